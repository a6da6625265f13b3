-- Create sessions: one row for each signed-in browser, so that signing out, everywhere too, is a DELETE.
-- Only a hash of the token is kept: who reads this table cannot sign in with it.
-- parent: 20261121120000

CREATE TABLE sessions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    user_id bigint NOT NULL,
    token_hash bytea NOT NULL,
    ip_address inet,
    user_agent text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_token_hash_key UNIQUE (token_hash),
    CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT sessions_token_hash_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT sessions_user_agent_check CHECK (length(user_agent) <= 512),
    CONSTRAINT sessions_expires_at_check CHECK (expires_at > created_at)
);

CREATE INDEX sessions_user_id_idx ON sessions (user_id);

CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

COMMENT ON TABLE sessions IS 'Signed-in browsers';
COMMENT ON COLUMN sessions.id IS 'Surrogate key';
COMMENT ON COLUMN sessions.user_id IS 'Whose session it is';
COMMENT ON COLUMN sessions.token_hash IS 'SHA-256 of the token in the cookie; the token itself is not kept';
COMMENT ON COLUMN sessions.ip_address IS 'Address that signed in';
COMMENT ON COLUMN sessions.user_agent IS 'Browser that signed in, as it calls itself, cut to 512 characters';
COMMENT ON COLUMN sessions.created_at IS 'When the person signed in';
COMMENT ON COLUMN sessions.expires_at IS 'When the session ends by itself';

-- down

DROP TABLE sessions;
