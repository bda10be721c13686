//! Credentials to a principal.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use control::identity::Principal;
use http::StatusCode;
use http::request::Parts;

/// The authenticated caller; put there by the bearer wall, so a handler that asks for it cannot be reached without.
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<Principal>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, StatusCode> {
        // A route outside the wall that asks for a caller is our mistake; it stays closed.
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}
