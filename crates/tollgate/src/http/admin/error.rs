//! How the admin API says no: the Messages API's envelope, with a request id of its own kind.

use axum::response::{IntoResponse, Response};
use control::store::StoreError;
use http::{StatusCode, header};
use wire::error::{Envelope, ErrorType};

/// Why an admin request is refused.
#[derive(Debug)]
pub(super) enum Error {
    Unauthenticated,
    ReadOnly,
    NotFound,
    /// What is wrong with the request, in a sentence that names the field.
    Invalid(String),
    Store(StoreError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Carried to the layer that knows the request id.
#[derive(Debug, Clone)]
struct Unnamed {
    error: ErrorType,
    message: String,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, error, message) = match self {
            Self::Unauthenticated => {
                let message = "missing or invalid admin credentials".to_owned();
                (StatusCode::UNAUTHORIZED, ErrorType::Authentication, message)
            }
            Self::ReadOnly => (StatusCode::FORBIDDEN, ErrorType::Permission, "requires write:spend_limits".to_owned()),
            Self::NotFound => (StatusCode::NOT_FOUND, ErrorType::NotFound, "not found".to_owned()),
            Self::Invalid(message) => (StatusCode::BAD_REQUEST, ErrorType::InvalidRequest, message),
            Self::Store(error) => {
                tracing::error!("admin API: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorType::Api, "internal server error".to_owned())
            }
        };
        let mut response = status.into_response();
        response.extensions_mut().insert(Unnamed { error, message });
        response
    }
}

/// Writes the body of a refusal, now that its request id is known.
pub(super) fn name(response: &mut Response, id: &str) {
    let Some(Unnamed { error, message }) = response.extensions_mut().remove() else { return };
    let body = Envelope::new(error, &message).request_id(id).to_bytes();
    *response.body_mut() = body.into();
    response.headers_mut().insert(header::CONTENT_TYPE, crate::http::error::JSON);
    response.headers_mut().remove(header::CONTENT_LENGTH);
}
