-- Fixed-window counters of the rate limits; an expired row starts its next window, or is swept.
CREATE TABLE rate_limits (
    bucket TEXT PRIMARY KEY,
    hits BIGINT NOT NULL,
    resets_at BIGINT NOT NULL
);
CREATE INDEX rate_limits_by_expiry ON rate_limits (resets_at);

-- RFC 8628 grants, from the device's request to its redemption, which deletes the row.
CREATE TABLE device_grants (
    code_hash TEXT PRIMARY KEY,
    user_code TEXT NOT NULL UNIQUE,
    flow TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied')),
    surface TEXT,
    client_ip TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    polled_at BIGINT,
    sealed TEXT,
    CHECK ((state = 'approved') = (sealed IS NOT NULL))
);
CREATE INDEX device_grants_by_expiry ON device_grants (expires_at);
