//! Credentials to a principal: the bearer wall.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use control::audit::{AuditLog, Event};
use control::clock::Clock;
use control::identity::session::{Authenticated, BearerError, Bearers};
use control::identity::{Principal, Sessions};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use wire::error::ErrorType;

use super::error::refuse;
use super::layers::RequestFacts;

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

/// What the wall needs to know a bearer.
#[derive(Debug, Clone)]
pub struct Wall {
    /// Verifies.
    pub bearers: Arc<Bearers>,
    /// Knows the groups that a bearer could not carry.
    pub sessions: Sessions,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Hears of refusals.
    pub audit: AuditLog,
}

impl Wall {
    /// Whose bearer the request carries; of the groups, those that the configuration names are there.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, BearerError> {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.bearers.authenticate(authorization, self.clock.now())
    }

    /// The 401, the same whatever was wrong; the audit has the cause (R3).
    pub fn refuse(&self, error: BearerError, path: &str, facts: &RequestFacts) -> Response {
        let event = Event::AuthDenied {
            reason: if error == BearerError::Missing { "missing_token" } else { "invalid_token" },
            cause: error.cause(),
            path,
            client_ip: &facts.client_ip.to_string(),
        };
        self.audit.emit(Some(&facts.request_id), &event);
        let id = &facts.request_id;
        let mut response = refuse(StatusCode::UNAUTHORIZED, ErrorType::Authentication, "invalid token", id);
        // RFC 6750 section 3: no error code when no credentials were sent.
        let challenge = match error {
            BearerError::Missing => HeaderValue::from_static("Bearer"),
            _ => HeaderValue::from_static("Bearer error=\"invalid_token\""),
        };
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        response
    }
}

/// Lets a request through with its [`Caller`], or refuses it.
pub async fn require(State(wall): State<Wall>, facts: RequestFacts, mut request: Request, next: Next) -> Response {
    match wall.authenticate(request.headers()) {
        Ok(bearer) => {
            let principal = wall.sessions.complete(bearer).await;
            request.extensions_mut().insert(Caller(principal));
            next.run(request).await
        }
        Err(error) => wall.refuse(error, request.uri().path(), &facts),
    }
}
