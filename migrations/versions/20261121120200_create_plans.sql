-- Create plans: what people can subscribe to, with price and features.
-- parent: 20261121120100

CREATE TABLE plans (
    id bigint GENERATED ALWAYS AS IDENTITY,
    code text NOT NULL,
    name text NOT NULL,
    price_cents integer NOT NULL,
    currency text NOT NULL,
    billing_interval text NOT NULL,
    features jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT plans_pkey PRIMARY KEY (id),
    CONSTRAINT plans_code_key UNIQUE (code),
    CONSTRAINT plans_code_check CHECK (code ~ '^[a-z][a-z0-9_]{0,62}$'),
    CONSTRAINT plans_name_check CHECK (name <> ''),
    CONSTRAINT plans_price_cents_check CHECK (price_cents >= 0),
    CONSTRAINT plans_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT plans_billing_interval_check CHECK (billing_interval IN ('month', 'year')),
    CONSTRAINT plans_features_check CHECK (jsonb_typeof(features) = 'object')
);

CREATE TRIGGER plans_set_updated_at
BEFORE UPDATE ON plans
FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
EXECUTE FUNCTION set_updated_at();

COMMENT ON TABLE plans IS 'What people can subscribe to';
COMMENT ON COLUMN plans.id IS 'Surrogate key';
COMMENT ON COLUMN plans.code IS 'Name of the plan in code and URLs; never changes';
COMMENT ON COLUMN plans.name IS 'Name of the plan as people read it';
COMMENT ON COLUMN plans.price_cents IS 'Price of one interval in hundredths of the currency';
COMMENT ON COLUMN plans.currency IS 'ISO 4217 code in capitals';
COMMENT ON COLUMN plans.billing_interval IS 'month or year';
COMMENT ON COLUMN plans.features IS 'What the plan includes, as a JSON object';
COMMENT ON COLUMN plans.active IS 'False where the plan is no longer offered; its subscriptions go on';
COMMENT ON COLUMN plans.created_at IS 'When the row was added';
COMMENT ON COLUMN plans.updated_at IS 'When the row was last changed; kept by a trigger';

-- down

DROP TABLE plans;
