-- Create subscriptions: who has which plan for which period. A person has at most one that is not canceled; the
-- canceled ones stay as history.
-- parent: 20261121120200

CREATE TABLE subscriptions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    user_id bigint NOT NULL,
    plan_id bigint NOT NULL,
    status text NOT NULL DEFAULT 'active',
    current_period_start timestamptz NOT NULL DEFAULT now(),
    current_period_end timestamptz NOT NULL,
    canceled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscriptions_pkey PRIMARY KEY (id),
    CONSTRAINT subscriptions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT subscriptions_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES plans (id) ON DELETE RESTRICT,
    CONSTRAINT subscriptions_status_check CHECK (status IN ('trialing', 'active', 'past_due', 'canceled')),
    CONSTRAINT subscriptions_current_period_end_check CHECK (current_period_end > current_period_start),
    CONSTRAINT subscriptions_canceled_at_check CHECK ((status = 'canceled') = (canceled_at IS NOT NULL))
);

CREATE UNIQUE INDEX subscriptions_one_current_per_user_key ON subscriptions (user_id) WHERE status <> 'canceled';

CREATE INDEX subscriptions_user_id_idx ON subscriptions (user_id);

CREATE INDEX subscriptions_plan_id_idx ON subscriptions (plan_id);

CREATE TRIGGER subscriptions_set_updated_at
BEFORE UPDATE ON subscriptions
FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
EXECUTE FUNCTION set_updated_at();

COMMENT ON TABLE subscriptions IS 'Who has which plan, now and before';
COMMENT ON COLUMN subscriptions.id IS 'Surrogate key';
COMMENT ON COLUMN subscriptions.user_id IS 'Who subscribed';
COMMENT ON COLUMN subscriptions.plan_id IS 'To which plan';
COMMENT ON COLUMN subscriptions.status IS 'trialing, active, past_due or canceled';
COMMENT ON COLUMN subscriptions.current_period_start IS 'When the period that is paid for began';
COMMENT ON COLUMN subscriptions.current_period_end IS 'When it ends, and the next one is due';
COMMENT ON COLUMN subscriptions.canceled_at IS 'When it was canceled; empty as long as it is not';
COMMENT ON COLUMN subscriptions.created_at IS 'When the row was added';
COMMENT ON COLUMN subscriptions.updated_at IS 'When the row was last changed; kept by a trigger';

-- down

DROP TABLE subscriptions;
