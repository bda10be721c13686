-- Counts changes, so that a replica notices in the statement it runs anyway that its copy is old.
CREATE TABLE revision (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE spend_limit (
    id         TEXT NOT NULL UNIQUE,
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    scope_type TEXT NOT NULL,
    scope_id   TEXT NOT NULL,
    period     TEXT NOT NULL,
    cents      BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (scope_type, scope_id, period)
);

-- Nano-dollars of one payer in one period. No index on what changes with every request.
CREATE TABLE account (
    id       TEXT NOT NULL,
    period   TEXT NOT NULL,
    settled  BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    PRIMARY KEY (period, id)
) WITHOUT ROWID;

-- Only what is in flight: small enough to be looked through, and every request writes here.
CREATE TABLE reservation (
    id         TEXT PRIMARY KEY,
    account    TEXT NOT NULL,
    day        TEXT NOT NULL,
    week       TEXT NOT NULL,
    month      TEXT NOT NULL,
    amount     BIGINT NOT NULL,
    replica    TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    principal  TEXT NOT NULL,
    groups     TEXT NOT NULL,
    model      TEXT NOT NULL,
    session_id TEXT
);

CREATE TABLE usage (
    id                TEXT PRIMARY KEY,
    started_at        BIGINT NOT NULL,
    principal         TEXT NOT NULL,
    groups            TEXT NOT NULL,
    session_id        TEXT,
    model             TEXT NOT NULL,
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
    account           TEXT NOT NULL,
    day               TEXT NOT NULL,
    week              TEXT NOT NULL,
    month             TEXT NOT NULL
);
CREATE INDEX usage_by_time ON usage (started_at);

-- Who has been seen, for the people who read reports.
CREATE TABLE principal (
    sub     TEXT PRIMARY KEY,
    email   TEXT,
    name    TEXT,
    groups  TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);

CREATE TABLE admin_audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     BIGINT NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT,
    after  TEXT,
    reason TEXT
);
