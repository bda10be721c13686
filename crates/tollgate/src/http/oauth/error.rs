//! The OAuth endpoints' answers: RFC 6749's shapes, and what each room's trouble is called there.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use control::identity::sign_in::{RefreshError, SignInError};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use wire::oauth::{ErrorCode, ErrorResponse};

use super::NO_STORE;
use crate::http::error::JSON;
use crate::http::layers::RequestFacts;

/// A JSON answer that nobody may keep.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, JSON)], NO_STORE, body).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, NO_STORE).into_response(),
    }
}

/// An error with its usual status (RFC 6749, section 5.2; 429 for `slow_down` as clients of the reference know it).
pub(super) fn refuse(error: ErrorCode) -> Response {
    json(status_of(error), &ErrorResponse::from(error))
}

/// As [`refuse`], with a sentence for the person.
pub(super) fn explain(error: ErrorCode, description: &str) -> Response {
    let body = ErrorResponse { error, error_description: Some(description.to_owned()) };
    json(status_of(error), &body)
}

/// Sign-in cannot be served: the cause goes to the log.
pub(super) fn unavailable(error: &SignInError, facts: &RequestFacts) -> Response {
    tell(error, facts);
    refuse(ErrorCode::TemporarilyUnavailable)
}

/// Told once, where it is answered.
pub(super) fn tell(error: &SignInError, facts: &RequestFacts) {
    tracing::error!("sign-in cannot be served request_id={}: {error}", facts.request_id);
}

/// No new tokens.
pub(super) fn not_refreshed(error: RefreshError) -> Response {
    match error {
        RefreshError::Ended => json(StatusCode::UNAUTHORIZED, &ErrorResponse::from(ErrorCode::InvalidGrant)),
        RefreshError::Unavailable => refuse(ErrorCode::TemporarilyUnavailable),
    }
}

/// Asked too often; seconds are rounded up, so that who waits that long is let in.
pub(super) fn too_many(retry_after: Duration) -> Response {
    let mut response = refuse(ErrorCode::SlowDown);
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn status_of(error: ErrorCode) -> StatusCode {
    match error {
        ErrorCode::SlowDown => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::InvalidClient => StatusCode::UNAUTHORIZED,
        ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::AuthorizationPending
        | ErrorCode::AccessDenied
        | ErrorCode::ExpiredToken
        | ErrorCode::InvalidRequest
        | ErrorCode::InvalidGrant
        | ErrorCode::UnauthorizedClient
        | ErrorCode::UnsupportedGrantType
        | ErrorCode::InvalidScope => StatusCode::BAD_REQUEST,
    }
}
