-- What the charge is made of; they add up to it, but for an estimate, which is of no kind.
ALTER TABLE usage ADD COLUMN charge_input BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN charge_cache_read BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN charge_cache_write_5m BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN charge_cache_write_1h BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN charge_output BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN charge_web_search BIGINT NOT NULL DEFAULT 0;

-- The same rows added up by the hour that they began in, for reports: several rows of one kind are as good as one. Whole hours
-- before `usage_fold.until` are here, but for those in `usage_late`, to which a row was added or changed since.
CREATE TABLE usage_hour (
    hour           BIGINT NOT NULL,
    principal      TEXT COLLATE "C" NOT NULL,
    billing_group  TEXT COLLATE "C",
    model          TEXT COLLATE "C" NOT NULL,
    upstream       TEXT,
    session_id     TEXT,
    fast           BIGINT NOT NULL,
    long_prompt    BIGINT NOT NULL,
    requests       BIGINT NOT NULL,
    input_tokens   BIGINT NOT NULL,
    output_tokens  BIGINT NOT NULL,
    cache_read     BIGINT NOT NULL,
    cache_write_5m BIGINT NOT NULL,
    cache_write_1h BIGINT NOT NULL,
    web_searches   BIGINT NOT NULL,
    charge         BIGINT NOT NULL,
    charge_input          BIGINT NOT NULL,
    charge_cache_read     BIGINT NOT NULL,
    charge_cache_write_5m BIGINT NOT NULL,
    charge_cache_write_1h BIGINT NOT NULL,
    charge_output         BIGINT NOT NULL,
    charge_web_search     BIGINT NOT NULL
);
CREATE INDEX usage_hour_by_time ON usage_hour (hour);

CREATE TABLE usage_late (hour BIGINT PRIMARY KEY);

-- One row, in Unix milliseconds; who holds it adds up hours, or says that one is late.
CREATE TABLE usage_fold (until BIGINT NOT NULL);
INSERT INTO usage_fold (until) VALUES (0);
