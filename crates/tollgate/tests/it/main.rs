//! Every test that needs a whole gateway, or anything real beside it, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by stopping"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start programs, open connections and spawn tasks to stand around the gateway"
)]

mod support;

mod fixtures;

mod architecture;

mod demo;

mod ledger;
mod load_test;

mod admin;
mod authorization;
mod browser;
mod clouds;
mod crash;
mod explain;
mod failover;
mod faults;
mod fidelity;
mod identity_provider;
mod managed;
mod messages;
mod meter;
mod metrics;
mod oauth_usage;
mod sessions;
mod shutdown;
mod sign_in;
mod silence;
mod spend;
mod stock_client;
mod surface;
mod telemetry;
mod upkeep;
mod usage;
