-- A replica's slice of an account's headroom, from which it admits without asking; counted in `account.reserved`.
CREATE TABLE lease (
    replica    TEXT NOT NULL,
    account    TEXT NOT NULL,
    day        TEXT NOT NULL,
    week       TEXT NOT NULL,
    month      TEXT NOT NULL,
    amount     BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (replica, account, day)
) WITHOUT ROWID;

-- The shared budget that a request is charged to as well, if any: an account of its own.
ALTER TABLE reservation ADD COLUMN pool TEXT;
ALTER TABLE usage ADD COLUMN pool TEXT;
