//! What clouds answer instead of a message: their errors, and what a client is told of them (contract B4).
//!
//! Knows the shapes and the sentences; knows no connection and not which upstream may be asked next.

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::{Envelope, ErrorType};
use crate::json;

/// What a client is told. A cloud's own text is only in it where it is Anthropic's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The kind of error.
    pub kind: ErrorType,
    /// The message.
    pub message: Cow<'static, str>,
}

/// What a cloud says it does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// These values of `anthropic-beta`.
    Betas(Vec<String>),
    /// One of them, without saying which.
    SomeBeta,
    /// This member of the body; of each of its `tools` where `in_tools` says so.
    Field {
        /// Its name.
        name: String,
        /// It stands in the definitions of tools.
        in_tools: bool,
    },
}

/// The message that stock clients read as "compact and try again".
const TOO_LONG: &str = "Input is too long.";

/// What a client is told of an error answer of this status and body. The status itself stays.
#[must_use]
pub fn told(status: u16, body: &[u8]) -> Told {
    let fixed = |kind, message| Told { kind, message: Cow::Borrowed(message) };
    match status {
        400 | 413 if let Some(told) = anthropic(body) => told,
        400 => match text(body) {
            Some(text) if text == TOO_LONG || is_google_size(&text) => fixed(ErrorType::InvalidRequest, TOO_LONG),
            Some(text) if is_too_long(&text) => {
                fixed(ErrorType::InvalidRequest, "capability_rejected: prompt_too_long")
            }
            _ => fixed(ErrorType::InvalidRequest, "upstream rejected the request"),
        },
        413 => fixed(ErrorType::RequestTooLarge, "request too large for this upstream"),
        401 => fixed(ErrorType::Authentication, "the upstream refused the gateway's credentials"),
        403 => fixed(ErrorType::Permission, "the upstream refused permission"),
        404 => fixed(ErrorType::NotFound, "the upstream has no such model"),
        429 => fixed(ErrorType::RateLimit, "the upstream is rate limiting; try again later"),
        501 => fixed(ErrorType::NotSupported, "not supported by this upstream"),
        529 => fixed(ErrorType::Overloaded, "the upstream is overloaded"),
        _ => fixed(ErrorType::Api, "upstream error"),
    }
}

impl Told {
    /// The body to send.
    #[must_use]
    pub fn body(&self, request_id: &str) -> Bytes {
        Envelope::new(self.kind, &self.message).request_id(request_id).to_bytes()
    }
}

/// An error in Anthropic's own envelope: its words are meant for clients.
fn anthropic(body: &[u8]) -> Option<Told> {
    if json::get(body, "type").and_then(json::text).as_deref() != Some("error") {
        return None;
    }
    let error = json::get(body, "error")?;
    let kind = ErrorType::named(&json::get(error, "type").and_then(json::text)?).unwrap_or(ErrorType::InvalidRequest);
    Some(Told { kind, message: json::get(error, "message").and_then(json::text)?.into() })
}

/// What an error body says, in the shapes of Anthropic, Amazon, Google and Microsoft. For the log.
#[must_use]
pub fn text(body: &[u8]) -> Option<String> {
    let first = json::elements(body).into_iter().next();
    let body = first.unwrap_or(body);
    let within = json::get(body, "error").filter(|error| error.starts_with(b"{")).unwrap_or(body);
    ["message", "Message", "error_description"]
        .iter()
        .find_map(|name| json::get(within, name).and_then(json::text))
        .or_else(|| json::get(body, "error").and_then(json::text))
}

/// Google's front end: `... request size (N bytes) exceeds 30.000MB limit.`
fn is_google_size(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    (text.contains("request size (") || text.contains("message size (")) && text.contains("mb limit")
}

fn is_too_long(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let speaks_of_input = ["prompt", "input", "context"].iter().any(|word| text.contains(word));
    speaks_of_input
        && ["too long", "too many tokens", "exceed context limit", "exceeds the maximum", "maximum context length"]
            .iter()
            .any(|word| text.contains(word))
}

/// Whether Bedrock says that it does not have the model, or not for what is asked (contract R29): another upstream may have it.
#[must_use]
pub fn is_unknown_model(text: &str) -> bool {
    text.contains("model identifier is invalid")
        || text.contains("on-demand throughput isn")
        || text.contains("support counting tokens")
}

/// Whether a refusal speaks of the credential itself, which has ended or was revoked, and not of what its holder may do:
/// every 401, and Amazon's 403 that say so
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html>).
#[must_use]
pub fn is_stale_credential(status: u16, text: &str) -> bool {
    status == 401 || status == 403 && is_stale_token(text)
}

/// Whether Amazon says that temporary keys have ended or are not known any more.
#[must_use]
pub fn is_stale_token(text: &str) -> bool {
    text.contains("security token included in the request")
}

/// What a refusal says is not known there, where it says so.
#[must_use]
pub fn unknown(text: &str) -> Option<Unknown> {
    if let Some((_, rest)) = text.split_once("Unexpected value(s) ")
        && let Some((names, _)) =
            rest.split_once(" for the `anthropic-beta` header").or(rest.split_once(" for the anthropic-beta"))
    {
        let names = names.split(',').map(|name| name.trim_matches([' ', '`', '\'', '"']).to_owned());
        let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
        return (!names.is_empty()).then_some(Unknown::Betas(names));
    }
    if text.contains("invalid beta flag") {
        return Some(Unknown::SomeBeta);
    }
    let (path, _) = text.split_once(": Extra inputs are not permitted")?;
    let path = path.rsplit([' ', '"', '\n']).next()?;
    match *path.split('.').collect::<Vec<_>>() {
        [name] if is_name(name) => Some(Unknown::Field { name: name.to_owned(), in_tools: false }),
        // The third segment is the kind of tool, which is not written in the request.
        ["tools", _, _, name] if is_name(name) => Some(Unknown::Field { name: name.to_owned(), in_tools: true }),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(status: u16, body: &str) -> (&'static str, String) {
        let Told { kind, message } = told(status, body.as_bytes());
        (kind.name(), message.into_owned())
    }

    #[test]
    fn the_table_of_the_contract() {
        let invalid = "invalid_request_error";
        let anthropic =
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too large"}}"#;
        let google =
            r#"[{"error":{"code":400,"message":"The request size (31457281 bytes) exceeds 30.000MB limit."}}]"#;
        let rows = [
            (400, anthropic, invalid, "max_tokens: too large"),
            (
                413,
                &anthropic.replace("invalid_request_error", "request_too_large"),
                "request_too_large",
                "max_tokens: too large",
            ),
            (400, r#"{"message":"Input is too long."}"#, invalid, TOO_LONG),
            (400, google, invalid, TOO_LONG),
            (
                400,
                r#"{"message":"Input is too long for requested model."}"#,
                invalid,
                "capability_rejected: prompt_too_long",
            ),
            (
                400,
                r#"{"message":"prompt is too long: 210000 tokens > 200000 maximum"}"#,
                invalid,
                "capability_rejected: prompt_too_long",
            ),
            (400, r#"{"message":"account 111122223333 may not"}"#, invalid, "upstream rejected the request"),
            (400, "<html>", invalid, "upstream rejected the request"),
            (400, r#"{"type":"error"}"#, invalid, "upstream rejected the request"),
            (413, "", "request_too_large", "request too large for this upstream"),
            (408, "", "api_error", "upstream error"),
            (424, anthropic, "api_error", "upstream error"),
            (501, "", "not_supported", "not supported by this upstream"),
        ];
        for (status, body, kind, message) in rows {
            assert_eq!(told_of(status, body), (kind, message.to_owned()), "{status} {body}");
        }
        for (status, kind) in [
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (429, "rate_limit_error"),
        ] {
            let (found, message) = told_of(status, r#"{"message":"secret of the cloud"}"#);
            assert!(found == kind && !message.contains("secret"), "{status}: {found} {message}");
        }
    }

    #[test]
    fn the_text_of_every_shape_is_found() {
        for body in [
            r#"{"message":"why"}"#,
            r#"{"Message":"why"}"#,
            r#"{"type":"error","error":{"type":"x","message":"why"}}"#,
            r#"[{"error":{"code":400,"message":"why","status":"INVALID_ARGUMENT"}}]"#,
            r#"{"error":{"code":"BadRequest","message":"why"}}"#,
            r#"{"error":"invalid_grant","error_description":"why"}"#,
            r#"{"error":"why"}"#,
        ] {
            assert_eq!(text(body.as_bytes()).as_deref(), Some("why"), "{body}");
        }
        assert_eq!(text(b"<html>"), None);
    }

    #[test]
    fn a_credential_that_has_ended_is_told_from_one_that_may_not() {
        assert!(is_stale_credential(401, ""));
        assert!(is_stale_credential(403, "The security token included in the request is expired"));
        assert!(is_stale_credential(403, "The security token included in the request is invalid."));
        assert!(!is_stale_credential(
            403,
            "User: arn:aws:iam::1:user/x is not authorized to perform: bedrock:InvokeModel"
        ));
        assert!(!is_stale_credential(400, "The security token included in the request is expired"));
    }

    #[test]
    fn what_a_refusal_names_is_read_out_of_it() {
        let field = |name: &str, in_tools| Some(Unknown::Field { name: name.to_owned(), in_tools });
        let betas = |names: &[&str]| Some(Unknown::Betas(names.iter().map(|&name| name.to_owned()).collect()));
        assert_eq!(unknown("context_management: Extra inputs are not permitted"), field("context_management", false));
        assert_eq!(
            unknown("***.***.tools.0.custom.x: Extra inputs are not permitted"),
            None,
            "a path that is not understood is left alone"
        );
        assert_eq!(
            unknown("tools.0.custom.eager_input_streaming: Extra inputs are not permitted"),
            field("eager_input_streaming", true)
        );
        assert_eq!(
            unknown("Unexpected value(s) `a-1`, `b-2` for the `anthropic-beta` header. Please consult"),
            betas(&["a-1", "b-2"])
        );
        assert_eq!(unknown("Unexpected value(s) a-1 for the anthropic-beta header."), betas(&["a-1"]));
        assert_eq!(unknown("The model returned the following errors: invalid beta flag"), Some(Unknown::SomeBeta));
        for other in
            ["messages.0.content: Extra inputs are not permitted", "thinking: Input should be a valid dictionary", ""]
        {
            assert_eq!(unknown(other), None, "{other}");
        }
    }
}
