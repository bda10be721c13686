//! The refusals that every surface for API clients shares: the Messages API's envelope.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use wire::error::{Envelope, ErrorType};

/// As the reference writes it.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=utf-8");

/// An error in the envelope, naming the request.
#[must_use]
pub fn refuse(status: StatusCode, error: ErrorType, message: &str, request_id: &str) -> Response {
    let mut response = Response::new(Body::from(Envelope::new(error, message).request_id(request_id).to_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
