-- Create users: the people who sign in, and the function that keeps updated_at true in every table that has it.
-- parent: none

CREATE FUNCTION set_updated_at() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION set_updated_at() IS 'Trigger function: stamps a changed row with the time of its transaction';

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY,
    email text NOT NULL,
    password_hash text NOT NULL,
    role text NOT NULL DEFAULT 'user',
    must_change_password boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_email_check CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$' AND length(email) <= 254),
    CONSTRAINT users_password_hash_check CHECK (starts_with(password_hash, '$argon2')),
    CONSTRAINT users_role_check CHECK (role IN ('admin', 'user'))
);

CREATE UNIQUE INDEX users_lower_email_key ON users (lower(email));

CREATE TRIGGER users_set_updated_at
BEFORE UPDATE ON users
FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
EXECUTE FUNCTION set_updated_at();

COMMENT ON TABLE users IS 'People who sign in';
COMMENT ON COLUMN users.id IS 'Surrogate key';
COMMENT ON COLUMN users.email IS 'Address to sign in with, as the person writes it; unique whatever its case';
COMMENT ON COLUMN users.password_hash IS 'argon2 hash with its parameters and salt, in PHC string format';
COMMENT ON COLUMN users.role IS 'admin or user';
COMMENT ON COLUMN users.must_change_password IS 'True until the person has replaced an initial password';
COMMENT ON COLUMN users.created_at IS 'When the row was added';
COMMENT ON COLUMN users.updated_at IS 'When the row was last changed; kept by a trigger';

-- down

DROP TABLE users;

DROP FUNCTION set_updated_at();
