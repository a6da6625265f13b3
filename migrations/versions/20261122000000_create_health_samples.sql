-- Create health_samples: what the periodic check found, for the page's plots and to tell people of changes only.
-- parent: 20261121234832

CREATE TABLE health_samples (
    taken_at timestamptz NOT NULL,
    status text,
    verdicts jsonb NOT NULL DEFAULT '{}',
    numbers jsonb NOT NULL DEFAULT '{}',
    told boolean NOT NULL DEFAULT false,
    CONSTRAINT health_samples_pkey PRIMARY KEY (taken_at),
    CONSTRAINT health_samples_status_check CHECK (status IN ('ok', 'warn', 'fail', 'unknown')),
    CONSTRAINT health_samples_verdicts_check CHECK (jsonb_typeof(verdicts) = 'object'),
    CONSTRAINT health_samples_numbers_check CHECK (jsonb_typeof(numbers) = 'object')
);

COMMENT ON TABLE health_samples IS 'What the periodic check found, one row a minute at most';
COMMENT ON COLUMN health_samples.taken_at IS 'The minute; whoever writes its row makes the check';
COMMENT ON COLUMN health_samples.status IS 'Worst verdict; empty while the check runs, or where it was killed';
COMMENT ON COLUMN health_samples.verdicts IS 'Verdict of each check, by its name';
COMMENT ON COLUMN health_samples.numbers IS 'Value of each check that measures something, by its name';
COMMENT ON COLUMN health_samples.told IS 'True where people know of it, so that the next is compared with it';

-- down

DROP TABLE health_samples;
