-- SQLite's json_each, as far as our statements use it: one text then serves both databases.
CREATE FUNCTION json_each(list TEXT) RETURNS TABLE (value JSONB)
    LANGUAGE SQL IMMUTABLE AS 'SELECT jsonb_array_elements(CAST(list AS JSONB))';

-- Counts changes, so that a replica notices in the statement it runs anyway that its copy is old.
CREATE TABLE revision (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE spend_limit (
    id         TEXT COLLATE "C" PRIMARY KEY,
    position   BIGINT GENERATED ALWAYS AS IDENTITY,
    scope_type TEXT COLLATE "C" NOT NULL,
    scope_id   TEXT COLLATE "C" NOT NULL,
    period     TEXT COLLATE "C" NOT NULL,
    cents      BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (scope_type, scope_id, period)
);
CREATE UNIQUE INDEX spend_limit_position ON spend_limit (position);

-- Nano-dollars of one payer in one period. No index on what changes with every request.
CREATE TABLE account (
    id       TEXT COLLATE "C" NOT NULL,
    period   TEXT COLLATE "C" NOT NULL,
    settled  BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    PRIMARY KEY (period, id)
) WITH (fillfactor = 70);

-- Only what is in flight: small enough to be looked through, and every request writes here.
CREATE TABLE reservation (
    id         TEXT COLLATE "C" PRIMARY KEY,
    account    TEXT COLLATE "C" NOT NULL,
    day        TEXT COLLATE "C" NOT NULL,
    week       TEXT COLLATE "C" NOT NULL,
    month      TEXT COLLATE "C" NOT NULL,
    amount     BIGINT NOT NULL,
    replica    TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    principal  TEXT COLLATE "C" NOT NULL,
    groups     TEXT NOT NULL,
    model      TEXT COLLATE "C" NOT NULL,
    session_id TEXT
);

CREATE TABLE usage (
    id                TEXT COLLATE "C" PRIMARY KEY,
    started_at        BIGINT NOT NULL,
    principal         TEXT COLLATE "C" NOT NULL,
    groups            TEXT NOT NULL,
    session_id        TEXT,
    model             TEXT COLLATE "C" NOT NULL,
    upstream          TEXT,
    status            BIGINT,
    input_tokens      BIGINT NOT NULL,
    output_tokens     BIGINT NOT NULL,
    cache_read        BIGINT NOT NULL,
    cache_write_5m    BIGINT NOT NULL,
    cache_write_1h    BIGINT NOT NULL,
    web_searches      BIGINT NOT NULL,
    fast              BIGINT NOT NULL,
    charge            BIGINT NOT NULL,
    estimated         BIGINT NOT NULL,
    ms                BIGINT,
    ttfb_ms           BIGINT,
    account           TEXT COLLATE "C" NOT NULL,
    day               TEXT COLLATE "C" NOT NULL,
    week              TEXT COLLATE "C" NOT NULL,
    month             TEXT COLLATE "C" NOT NULL
);
CREATE INDEX usage_by_time ON usage (started_at);

-- Who has been seen, for the people who read reports.
CREATE TABLE principal (
    sub     TEXT COLLATE "C" PRIMARY KEY,
    email   TEXT,
    name    TEXT,
    groups  TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);

CREATE TABLE admin_audit (
    id     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     BIGINT NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT,
    after  TEXT,
    reason TEXT
);
