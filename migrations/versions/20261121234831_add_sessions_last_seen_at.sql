-- Add sessions.last_seen_at: a session that is not used for a while ends before its time is over.
-- Sessions that exist count as used now.
-- parent: 20261121120300

ALTER TABLE sessions ADD COLUMN last_seen_at timestamptz NOT NULL DEFAULT now();

COMMENT ON COLUMN sessions.last_seen_at IS 'When the session was last used; behind by an hour at most';

-- down

ALTER TABLE sessions DROP COLUMN last_seen_at;
