//! The client-facing error envelope of the Messages API.
//!
//! Knows its shape and the names of its error types; knows no status code and no cause.

use bytes::Bytes;
use serde::Serialize;

/// The `error.type` of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// The request is malformed or asks for what cannot be.
    InvalidRequest,
    /// No valid credentials.
    Authentication,
    /// Valid credentials without the right.
    Permission,
    /// No such resource.
    NotFound,
    /// The body is too large.
    RequestTooLarge,
    /// Too many requests.
    RateLimit,
    /// Something failed on our side or beyond.
    Api,
    /// Too busy for now.
    Overloaded,
    /// A spend cap is reached.
    Billing,
    /// No answer in time.
    Timeout,
    /// The operation does not exist on this upstream.
    NotSupported,
}

impl ErrorType {
    const ALL: [Self; 11] = [
        Self::InvalidRequest,
        Self::Authentication,
        Self::Permission,
        Self::NotFound,
        Self::RequestTooLarge,
        Self::RateLimit,
        Self::Api,
        Self::Overloaded,
        Self::Billing,
        Self::Timeout,
        Self::NotSupported,
    ];

    /// Its public name, as in `error.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::RequestTooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_error",
            Self::Api => "api_error",
            Self::Overloaded => "overloaded_error",
            Self::Billing => "billing_error",
            Self::Timeout => "timeout_error",
            Self::NotSupported => "not_supported",
        }
    }

    /// The type of that public name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Serialize for ErrorType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// `{"type":"error","request_id":..,"error":{"type":..,"message":..}}`, its fields in that order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Envelope<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    error: Detail<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Detail<'a> {
    r#type: ErrorType,
    message: &'a str,
}

impl<'a> Envelope<'a> {
    /// An error with its message for the client.
    #[must_use]
    pub fn new(error_type: ErrorType, message: &'a str) -> Self {
        Self { r#type: "error", request_id: None, error: Detail { r#type: error_type, message } }
    }

    /// Names the request; left out otherwise.
    #[must_use]
    pub fn request_id(self, request_id: &'a str) -> Self {
        Self { request_id: Some(request_id), ..self }
    }

    /// The body to send.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // Strings and unit variants always serialise.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(envelope: &Envelope<'_>) -> String {
        String::from_utf8_lossy(&envelope.to_bytes()).into_owned()
    }

    #[test]
    fn the_fields_stand_in_the_order_of_the_contract() {
        assert_eq!(
            text(&Envelope::new(ErrorType::Authentication, "invalid token").request_id("r-1")),
            r#"{"type":"error","request_id":"r-1","error":{"type":"authentication_error","message":"invalid token"}}"#
        );
    }

    #[test]
    fn an_error_without_a_request_id_leaves_the_field_out_and_escapes_its_message() {
        assert_eq!(
            text(&Envelope::new(ErrorType::RequestTooLarge, "a \"b\"\n")),
            r#"{"type":"error","error":{"type":"request_too_large","message":"a \"b\"\n"}}"#
        );
    }

    #[test]
    fn every_type_has_its_public_name() {
        let names = [
            (ErrorType::InvalidRequest, "invalid_request_error"),
            (ErrorType::Permission, "permission_error"),
            (ErrorType::NotFound, "not_found_error"),
            (ErrorType::RateLimit, "rate_limit_error"),
            (ErrorType::Api, "api_error"),
            (ErrorType::Overloaded, "overloaded_error"),
            (ErrorType::Billing, "billing_error"),
            (ErrorType::Timeout, "timeout_error"),
            (ErrorType::NotSupported, "not_supported"),
        ];
        for (error_type, name) in names {
            assert!(text(&Envelope::new(error_type, "")).contains(&format!("\"type\":\"{name}\"")), "{name}");
        }
    }
}
