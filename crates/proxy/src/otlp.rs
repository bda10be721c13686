//! The telemetry relay: what clients post for OpenTelemetry collectors, passed on as it came.
//!
//! Knows destinations and signals; reads no telemetry, keeps no queue, and never makes a client wait.

use http::{HeaderName, HeaderValue};
use url::Url;

/// One entry of `telemetry.forward_to`.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `url`: `/v1/<signal>` is appended to its path.
    pub url: Url,
    /// `headers`, sent with every post; their values may be secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `metrics` (default on).
    pub metrics: bool,
    /// `logs` (default off).
    pub logs: bool,
    /// `traces` (default off).
    pub traces: bool,
}
