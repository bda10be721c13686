//! Bodies of the sign-in protocols we serve: RFC 8414 metadata, RFC 8628 device authorization, RFC 6749 tokens and errors.
//!
//! Knows field names and their order; knows nothing of grants, sessions or how a token is made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `grant_type` of a device-code redemption (RFC 8628, section 3.4).
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// `grant_type` of a refresh (RFC 6749, section 6).
pub const REFRESH_GRANT: &str = "refresh_token";

/// Authorization server metadata (RFC 8414, section 2), fields in the order of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerMetadata {
    issuer: String,
    device_authorization_endpoint: String,
    token_endpoint: String,
    grant_types_supported: [&'static str; 2],
    response_types_supported: [&'static str; 0],
    token_endpoint_auth_methods_supported: [&'static str; 1],
    scopes_supported: [&'static str; 3],
    gateway_protocol_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_endpoint: Option<String>,
}

impl ServerMetadata {
    /// The document of a gateway at that public URL; a trailing slash is dropped.
    #[must_use]
    pub fn new(public_url: &str) -> Self {
        let base = public_url.strip_suffix('/').unwrap_or(public_url);
        Self {
            issuer: base.to_owned(),
            device_authorization_endpoint: format!("{base}/oauth/device_authorization"),
            token_endpoint: format!("{base}/oauth/token"),
            grant_types_supported: [DEVICE_CODE_GRANT, REFRESH_GRANT],
            response_types_supported: [],
            token_endpoint_auth_methods_supported: ["none"],
            scopes_supported: ["openid", "profile", "email"],
            gateway_protocol_version: 1,
            revocation_endpoint: None,
        }
    }

    /// Advertises an RFC 7009 endpoint.
    #[must_use]
    pub fn with_revocation_endpoint(self, url: String) -> Self {
        Self { revocation_endpoint: Some(url), ..self }
    }
}

/// The answer to a device authorization request (RFC 8628, section 3.2). Holds a credential: no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct DeviceAuthorization {
    /// What the device polls with.
    pub device_code: String,
    /// What the person compares or types.
    pub user_code: String,
    /// Where the person goes.
    pub verification_uri: String,
    /// The same with the user code in it.
    pub verification_uri_complete: String,
    /// Seconds until both codes expire.
    pub expires_in: u64,
    /// Least seconds between two polls.
    pub interval: u64,
    /// A line of the operator that the client shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_notice: Option<String>,
}

/// A successful token answer (RFC 6749, section 5.1). Holds credentials: no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct TokenResponse {
    /// The bearer.
    pub access_token: String,
    /// Left out when the session cannot be refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// Always `Bearer`.
    pub token_type: TokenType,
    /// Seconds the bearer still lives.
    pub expires_in: u64,
    /// Who signed in, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// `token_type` of a token answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum TokenType {
    /// RFC 6750.
    #[default]
    Bearer,
}

/// An error answer of an OAuth endpoint (RFC 6749, section 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// The code.
    pub error: ErrorCode,
    /// A sentence for the person who reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}

impl From<ErrorCode> for ErrorResponse {
    fn from(error: ErrorCode) -> Self {
        Self { error, error_description: None }
    }
}

/// Error codes that our OAuth endpoints give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The person has not decided yet (RFC 8628, section 3.5).
    AuthorizationPending,
    /// Polled too often (RFC 8628, section 3.5).
    SlowDown,
    /// The person or a sign-in rule said no.
    AccessDenied,
    /// The device code is expired, unknown or used (RFC 8628, section 3.5).
    ExpiredToken,
    /// A parameter is missing, repeated or malformed.
    InvalidRequest,
    /// The client is not known.
    InvalidClient,
    /// The grant or refresh token is no longer good.
    InvalidGrant,
    /// The client may not use this grant.
    UnauthorizedClient,
    /// Not one of [`DEVICE_CODE_GRANT`] and [`REFRESH_GRANT`].
    UnsupportedGrantType,
    /// A scope is malformed.
    InvalidScope,
    /// Something failed on our side.
    ServerError,
    /// Try again: the store or the identity provider does not answer.
    TemporarilyUnavailable,
}

impl ErrorCode {
    /// The code as it stands in the body.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationPending => "authorization_pending",
            Self::SlowDown => "slow_down",
            Self::AccessDenied => "access_denied",
            Self::ExpiredToken => "expired_token",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token request, read from its form. Holds credentials: no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenRequest {
    /// Redeems a device code.
    DeviceCode {
        /// `device_code`.
        device_code: String,
    },
    /// Asks for a new bearer.
    Refresh {
        /// `refresh_token`.
        refresh_token: String,
    },
}

impl TokenRequest {
    /// Reads the decoded pairs of the form. Unknown parameters are ignored; an empty one counts as left out and a repeated
    /// one as malformed (RFC 6749, section 3.2).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] or [`ErrorCode::UnsupportedGrantType`].
    pub fn from_form<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, ErrorCode> {
        let (mut grant_type, mut device_code, mut refresh_token) = (None, None, None);
        for (name, value) in pairs {
            let field = match name.as_ref() {
                "grant_type" => &mut grant_type,
                "device_code" => &mut device_code,
                "refresh_token" => &mut refresh_token,
                _ => continue,
            };
            if value.as_ref().is_empty() {
                continue;
            }
            if field.replace(value.as_ref().to_owned()).is_some() {
                return Err(ErrorCode::InvalidRequest);
            }
        }
        match grant_type.as_deref().ok_or(ErrorCode::InvalidRequest)? {
            DEVICE_CODE_GRANT => device_code.map(|device_code| Self::DeviceCode { device_code }),
            REFRESH_GRANT => refresh_token.map(|refresh_token| Self::Refresh { refresh_token }),
            _ => return Err(ErrorCode::UnsupportedGrantType),
        }
        .ok_or(ErrorCode::InvalidRequest)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_the_document_of_the_contract() {
        let expected = concat!(
            r#"{"issuer":"https://gw.example","device_authorization_endpoint":"https://gw.example/oauth/device_authorization","#,
            r#""token_endpoint":"https://gw.example/oauth/token","#,
            r#""grant_types_supported":["urn:ietf:params:oauth:grant-type:device_code","refresh_token"],"#,
            r#""response_types_supported":[],"token_endpoint_auth_methods_supported":["none"],"#,
            r#""scopes_supported":["openid","profile","email"],"gateway_protocol_version":1}"#
        );
        assert_eq!(serde_json::to_string(&ServerMetadata::new("https://gw.example/")).unwrap(), expected);
        let with =
            ServerMetadata::new("https://gw.example").with_revocation_endpoint("https://gw.example/r".to_owned());
        assert!(serde_json::to_string(&with).unwrap().ends_with(r#","revocation_endpoint":"https://gw.example/r"}"#));
    }

    #[test]
    fn a_device_authorization_names_its_fields_in_order_and_leaves_out_an_absent_notice() {
        let mut answer = DeviceAuthorization {
            device_code: "d".to_owned(),
            user_code: "FTQR-JGFV".to_owned(),
            verification_uri: "v".to_owned(),
            verification_uri_complete: "c".to_owned(),
            expires_in: 600,
            interval: 5,
            login_notice: None,
        };
        let plain = concat!(
            r#"{"device_code":"d","user_code":"FTQR-JGFV","verification_uri":"v","verification_uri_complete":"c","#,
            r#""expires_in":600,"interval":5"#
        );
        assert_eq!(serde_json::to_string(&answer).unwrap(), format!("{plain}}}"));
        answer.login_notice = Some("hello".to_owned());
        assert_eq!(serde_json::to_string(&answer).unwrap(), format!(r#"{plain},"login_notice":"hello"}}"#));
    }

    #[test]
    fn a_token_answer_leaves_out_what_it_does_not_have() {
        let answer = TokenResponse {
            access_token: "a".to_owned(),
            refresh_token: None,
            token_type: TokenType::Bearer,
            expires_in: 3600,
            email: None,
        };
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"access_token":"a","token_type":"Bearer","expires_in":3600}"#
        );
        let full = TokenResponse { refresh_token: Some("r".to_owned()), email: Some("a@b".to_owned()), ..answer };
        assert_eq!(
            serde_json::to_string(&full).unwrap(),
            r#"{"access_token":"a","refresh_token":"r","token_type":"Bearer","expires_in":3600,"email":"a@b"}"#
        );
    }

    #[test]
    fn every_error_code_serialises_as_it_displays() {
        use ErrorCode::{
            AccessDenied, AuthorizationPending, ExpiredToken, InvalidClient, InvalidGrant, InvalidRequest,
            InvalidScope, ServerError, SlowDown, TemporarilyUnavailable, UnauthorizedClient, UnsupportedGrantType,
        };
        for code in [
            AuthorizationPending,
            SlowDown,
            AccessDenied,
            ExpiredToken,
            InvalidRequest,
            InvalidClient,
            InvalidGrant,
            UnauthorizedClient,
            UnsupportedGrantType,
            InvalidScope,
            ServerError,
            TemporarilyUnavailable,
        ] {
            let body = serde_json::to_string(&ErrorResponse::from(code)).unwrap();
            assert_eq!(body, format!(r#"{{"error":"{code}"}}"#));
        }
    }

    #[test]
    fn a_token_request_is_told_what_is_wrong_with_it() {
        let read = |pairs: &[(&str, &str)]| TokenRequest::from_form(pairs.iter().copied()).err();
        assert_eq!(read(&[]), Some(ErrorCode::InvalidRequest));
        assert_eq!(read(&[("grant_type", "")]), Some(ErrorCode::InvalidRequest));
        assert_eq!(read(&[("grant_type", "password")]), Some(ErrorCode::UnsupportedGrantType));
        assert_eq!(read(&[("grant_type", DEVICE_CODE_GRANT)]), Some(ErrorCode::InvalidRequest));
        assert_eq!(read(&[("grant_type", REFRESH_GRANT), ("device_code", "x")]), Some(ErrorCode::InvalidRequest));
        let twice = [("grant_type", REFRESH_GRANT), ("refresh_token", "a"), ("refresh_token", "b")];
        assert_eq!(read(&twice), Some(ErrorCode::InvalidRequest));
    }

    #[test]
    fn a_good_token_request_is_read_and_unknown_parameters_are_ignored() {
        let form = [("client_id", "x"), ("device_code", "d"), ("grant_type", DEVICE_CODE_GRANT), ("x", "y")];
        assert!(TokenRequest::from_form(form) == Ok(TokenRequest::DeviceCode { device_code: "d".to_owned() }));
        let form = [("grant_type", REFRESH_GRANT), ("refresh_token", "r")];
        assert!(TokenRequest::from_form(form) == Ok(TokenRequest::Refresh { refresh_token: "r".to_owned() }));
    }
}
