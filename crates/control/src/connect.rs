//! Outbound connections: resolve, check every address, connect to the address that was checked.
//!
//! Nothing leaves but through here, so that a configured URL cannot reach a metadata service or this machine (SSRF).
//! Knows hosts, addresses, TLS and forward proxies; knows no provider and no protocol above HTTP/1.1.

mod client;
mod connector;
mod egress;
mod error;
mod guard;
mod proxy;

pub use client::{RequestError, ResponseBody, UpstreamClient};
pub use connector::{Connector, GuardedTlsConnector};
pub use egress::{Egress, FetchError, chain};
pub use error::{ConnectError, connect_error};
pub use guard::{Blocked, check_address, check_literal_host};
pub use proxy::ProxyConfig;

/// What outbound connections may do.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `CLAUDE_GATEWAY_ALLOW_LOOPBACK=1`: loopback addresses may be connected to.
    pub allow_loopback: bool,
    /// The forward proxy of upstream connections, when the environment names one.
    pub proxy: Option<ProxyConfig>,
}
