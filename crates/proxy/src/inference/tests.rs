//! Whole requests through the room, against scripted upstreams and the real ledger.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bytes;
mod failover;
mod gateway;
mod settlement;
