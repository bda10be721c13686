//! Upstreams on clouds: how the gateway proves who it is there, and what a developer sees of it.

mod proof;
