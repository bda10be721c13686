-- Signed-in devices. `ended_revision` counts endings (row `session` of `revision`): replicas read what is newer than
-- what they know.
-- `groups`: all of a person who is in too many for a bearer, as a JSON array; the bearer names the list by its digest.
CREATE TABLE session (
    id             TEXT NOT NULL UNIQUE,
    position       INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer         TEXT NOT NULL,
    sub            TEXT NOT NULL,
    idp_sid        TEXT,
    email          TEXT,
    surface        TEXT,
    client_ip      TEXT NOT NULL,
    generation     BIGINT NOT NULL,
    claimed_until  BIGINT,
    created_at     BIGINT NOT NULL,
    refreshed_at   BIGINT NOT NULL,
    ended_at       BIGINT,
    why            TEXT,
    ended_revision BIGINT,
    groups         TEXT,
    CHECK ((ended_at IS NULL) = (why IS NULL) AND (ended_at IS NULL) = (ended_revision IS NULL))
);
CREATE INDEX session_by_sub ON session (sub);
CREATE INDEX session_by_idp_sid ON session (idp_sid) WHERE idp_sid IS NOT NULL;
CREATE INDEX session_by_creation ON session (created_at) WHERE ended_at IS NULL;
CREATE INDEX session_by_refresh ON session (refreshed_at) WHERE ended_at IS NULL;
CREATE INDEX session_by_end ON session (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX session_by_revision ON session (ended_revision) WHERE ended_revision IS NOT NULL;

-- For a minute, what the use of a generation's refresh token gave: whoever uses it again gets the same.
CREATE TABLE session_successor (
    session    TEXT NOT NULL,
    generation BIGINT NOT NULL,
    sealed     TEXT NOT NULL,
    used_at    BIGINT NOT NULL,
    PRIMARY KEY (session, generation)
);
CREATE INDEX session_successor_by_use ON session_successor (used_at);

-- What was issued to a person, or to everyone (sub is empty), before then is void.
CREATE TABLE not_before (
    sub      TEXT PRIMARY KEY,
    at       BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

-- Back-channel logout tokens that were obeyed, until they are too old to be sent again.
CREATE TABLE logout_token (
    id         TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
