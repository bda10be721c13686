-- A replica's slice of an account's headroom, from which it admits without asking; counted in `account.reserved`.
CREATE TABLE lease (
    replica    TEXT COLLATE "C" NOT NULL,
    account    TEXT COLLATE "C" NOT NULL,
    day        TEXT COLLATE "C" NOT NULL,
    week       TEXT COLLATE "C" NOT NULL,
    month      TEXT COLLATE "C" NOT NULL,
    amount     BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (replica, account, day)
);

-- The shared budget that a request is charged to as well, if any: an account of its own.
ALTER TABLE reservation ADD COLUMN pool TEXT COLLATE "C";
ALTER TABLE usage ADD COLUMN pool TEXT COLLATE "C";
