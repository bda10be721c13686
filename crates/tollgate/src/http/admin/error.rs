//! How the admin API says no: the Messages API's envelope, with a request id of its own kind.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use control::spend::cap::SetError;
use control::store::StoreError;
use http::{HeaderValue, StatusCode, header};
use wire::error::{Envelope, ErrorType};

/// Why an admin request is refused.
#[derive(Debug)]
pub(super) enum Error {
    Unauthenticated,
    /// The leave that the caller lacks.
    ReadOnly(&'static str),
    TooMany {
        retry_after: Duration,
    },
    NotFound,
    TooLarge,
    /// What is wrong with the request, in a sentence that names the field.
    Invalid(String),
    Store(StoreError),
}

impl From<SetError> for Error {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Pool(fault) => Self::Invalid(fault.to_string()),
            SetError::Store(error) => Self::Store(error),
        }
    }
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
        let retry_after = match self {
            // Rounded up, so that who waits that long is let in.
            Self::TooMany { retry_after } => Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)),
            _ => None,
        };
        let (status, error, message) = match self {
            Self::Unauthenticated => {
                let message = "missing or invalid admin credentials".to_owned();
                (StatusCode::UNAUTHORIZED, ErrorType::Authentication, message)
            }
            Self::ReadOnly(needed) => (StatusCode::FORBIDDEN, ErrorType::Permission, needed.to_owned()),
            Self::TooMany { .. } => {
                let message = "too many wrong admin credentials came from your address".to_owned();
                (StatusCode::TOO_MANY_REQUESTS, ErrorType::RateLimit, message)
            }
            Self::NotFound => (StatusCode::NOT_FOUND, ErrorType::NotFound, "not found".to_owned()),
            Self::TooLarge => {
                let message = "the body is larger than 64 KiB".to_owned();
                (StatusCode::PAYLOAD_TOO_LARGE, ErrorType::RequestTooLarge, message)
            }
            Self::Invalid(message) => (StatusCode::BAD_REQUEST, ErrorType::InvalidRequest, message),
            Self::Store(error) => {
                tracing::error!("admin API: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorType::Api, "internal server error".to_owned())
            }
        };
        let mut response = status.into_response();
        response.extensions_mut().insert(Unnamed { error, message });
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
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
