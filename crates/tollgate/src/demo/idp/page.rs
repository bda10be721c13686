//! The provider's pages: pick a person, or read why not.

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use url::Url;

use super::Authorize;
use crate::demo::people::{PEOPLE, Person};

#[derive(Template)]
#[template(path = "demo/people.html")]
struct People<'a> {
    people: [&'static Person; 3],
    /// The request, carried through the form.
    carried: Vec<(&'static str, &'a str)>,
}

#[derive(Template)]
#[template(path = "demo/refusal.html")]
struct Refusal<'a> {
    reason: &'a str,
}

/// Asks who is signing in.
pub(super) fn choice(request: &Authorize) -> Response {
    let carried = vec![
        ("client_id", request.client_id.as_str()),
        ("redirect_uri", &request.redirect_uri),
        ("response_type", &request.response_type),
        ("scope", &request.scope),
        ("state", &request.state),
        ("nonce", request.nonce.as_deref().unwrap_or_default()),
        ("code_challenge", &request.code_challenge),
        ("code_challenge_method", &request.code_challenge_method),
    ];
    // Browsers hold the redirect after a form to the same rule as the form.
    let client = Url::parse(&request.redirect_uri).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    html(StatusCode::OK, &People { people: PEOPLE, carried }, &client)
}

/// Says why nobody can sign in; nothing goes to an address that is not the client's.
pub(super) fn refusal(reason: &str) -> Response {
    html(StatusCode::BAD_REQUEST, &Refusal { reason }, "")
}

fn html(status: StatusCode, page: &impl Template, form_target: &str) -> Response {
    let Ok(text) = page.render() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' {form_target}; frame-ancestors 'none'; base-uri 'none'"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy.as_str()),
    ];
    (status, headers, text).into_response()
}
