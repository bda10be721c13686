//! What every request passes before it meets a route.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use http::request::Parts;

/// What is known of a request before anyone has read it; put there by the outermost layer.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// The answer's `x-request-id`.
    pub request_id: Arc<str>,
    /// The client's address, after trusted proxies.
    pub client_ip: IpAddr,
    /// When the request arrived.
    pub received: Instant,
}

impl<S: Send + Sync> FromRequestParts<S> for RequestFacts {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // The outermost layer has put them there; a router tested by itself gets blank ones.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(Self::blank))
    }
}

impl RequestFacts {
    #[expect(clippy::disallowed_methods, reason = "a blank for routers that are tested by themselves")]
    fn blank() -> Self {
        Self { request_id: Arc::from(""), client_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), received: Instant::now() }
    }
}
