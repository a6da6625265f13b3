-- Create throttles: how often something was tried of late, counted for all instances together.
-- The key is a hash: people type passwords into the field for the address, and these must not be kept.
-- parent: 20261121234831

CREATE TABLE throttles (
    key bytea NOT NULL,
    attempts integer NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT throttles_pkey PRIMARY KEY (key),
    CONSTRAINT throttles_key_check CHECK (octet_length(key) = 32)
);

CREATE INDEX throttles_expires_at_idx ON throttles (expires_at);

COMMENT ON TABLE throttles IS 'How often something was tried of late';
COMMENT ON COLUMN throttles.key IS 'SHA-256 of what was tried and by whom';
COMMENT ON COLUMN throttles.attempts IS 'Attempts since the count began';
COMMENT ON COLUMN throttles.expires_at IS 'When the count begins anew';

-- down

DROP TABLE throttles;
