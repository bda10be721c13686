//! Where the provider sends the browser back to.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use control::identity::sign_in::{Cause, Completion, ProviderAnswer};
use http::{HeaderMap, StatusCode, header};
use url::form_urlencoded;

use super::device::out_of_order;
use super::page::Words;
use super::{Surface, asker, cookie};
use crate::http::layers::RequestFacts;

/// Longer words of a provider are cut before they are shown or recorded.
const LONGEST_WORDS: usize = 300;

/// `GET /oauth/callback`: bound by the sealed `state`, and by the cookie of the browser that confirmed the code.
pub(super) async fn finish(
    State(surface): State<Surface>,
    facts: RequestFacts,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let (state, answer) = read(query.as_deref().unwrap_or_default());
    let Ok(returned) = surface.sign_in.returned(state.as_deref(), asker(&facts)) else {
        let words =
            Words { title: "This link has expired", text: "Start the sign-in again on your device.", detail: None };
        return surface.pages().bad_end(StatusCode::BAD_REQUEST, &words, &facts.request_id);
    };
    let attempt = returned.attempt().to_owned();
    let binding = cookie::find(&headers, &attempt, surface.is_https());
    match surface.sign_in.complete(returned, binding, answer, asker(&facts)).await {
        Ok(completion) => {
            let mut page = page(&surface, &facts, &completion);
            if let Some(cookie) = cookie::clear(&attempt, surface.is_https()) {
                page.headers_mut().append(header::SET_COOKIE, cookie);
            }
            page
        }
        // The cookie stays: the same link can be tried again when the store is back.
        Err(error) => out_of_order(&surface, &error, &facts),
    }
}

fn page(surface: &Surface, facts: &RequestFacts, completion: &Completion) -> Response {
    const AGAIN: &str = "Start the sign-in again on your device.";
    let bad = |status, title, text, detail: Option<&str>| {
        surface.pages().bad_end(status, &Words { title, text, detail }, &facts.request_id)
    };
    match completion {
        Completion::SignedIn { email } => {
            let detail = email.as_ref().map(|email| format!("Signed in as {email}."));
            let text = "Your device will notice within a few seconds. You can close this page.";
            surface.pages().good_end(&Words { title: "You are signed in", text, detail: detail.as_deref() })
        }
        Completion::BrowserMismatch => {
            let text = "Finish it in the browser where you approved the code, or start again on your device.";
            bad(StatusCode::FORBIDDEN, "This sign-in was started in a different browser", text, None)
        }
        Completion::NotPending => bad(StatusCode::NOT_FOUND, "This code was already used or has expired", AGAIN, None),
        Completion::ProviderError { error, description } => {
            let status = match error.as_str() {
                "access_denied" => StatusCode::FORBIDDEN,
                "server_error" | "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            };
            let detail = match description {
                Some(description) => format!("{error}: {description}"),
                None => error.clone(),
            };
            bad(status, "Your identity provider refused the sign-in", AGAIN, Some(&detail))
        }
        Completion::Refused(cause) => {
            let (status, text) = refusal(*cause);
            bad(status, "The sign-in could not be completed", text, None)
        }
    }
}

/// What the person can do about it.
fn refusal(cause: Cause) -> (StatusCode, &'static str) {
    match cause {
        Cause::ProviderUnavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Your identity provider did not answer as it should. Start again on your device in a minute.",
        ),
        Cause::CodeRefused => (
            StatusCode::FORBIDDEN,
            "Your identity provider did not confirm this sign-in: it may have taken too long, or this page was opened \
             twice. Start again on your device.",
        ),
        Cause::BadAnswer => (
            StatusCode::FORBIDDEN,
            "What your identity provider answered could not be verified. Start again on your device; if it happens \
             again, tell your administrator.",
        ),
        Cause::EmailMissing => (
            StatusCode::FORBIDDEN,
            "Your identity provider did not tell your e-mail address, which is needed here. Ask your administrator.",
        ),
        Cause::EmailUnverified => (
            StatusCode::FORBIDDEN,
            "Your identity provider says that your e-mail address is not verified. Verify it there, then start again on \
             your device.",
        ),
        Cause::EmailDomain => (
            StatusCode::FORBIDDEN,
            "Your e-mail address is not of a domain that may sign in here. Sign in with your company account.",
        ),
        Cause::Group => (
            StatusCode::FORBIDDEN,
            "Your account is in none of the groups that may sign in here. Ask your administrator to be added to one.",
        ),
    }
}

fn read(query: &str) -> (Option<String>, ProviderAnswer) {
    let mut state = None;
    let mut answer = ProviderAnswer::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let field = match name.as_ref() {
            "state" => &mut state,
            "code" => &mut answer.code,
            "error" => &mut answer.error,
            "error_description" => &mut answer.error_description,
            "iss" => &mut answer.iss,
            _ => continue,
        };
        // The first one counts (RFC 6749, section 3.1, forbids a second).
        field.get_or_insert(value.into_owned());
    }
    let shortened = |words: String| words.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect();
    answer.error = answer.error.map(shortened);
    answer.error_description = answer.error_description.map(shortened);
    (state, answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_parameter_that_is_there_twice_the_first_counts_and_long_words_are_cut() {
        let (state, answer) = read("state=a&code=1&state=b&code=2&iss=x&iss=y&other=1");
        assert_eq!(
            (state.as_deref(), answer.code.as_deref(), answer.iss.as_deref()),
            (Some("a"), Some("1"), Some("x"))
        );
        assert_eq!((answer.error, answer.error_description), (None, None));
        let (state, answer) = read(&format!("error=e%0Ad&error_description={}", "d".repeat(1000)));
        assert_eq!((state, answer.code, answer.error.as_deref()), (None, None, Some("ed")));
        assert_eq!(answer.error_description.map(|words| words.len()), Some(LONGEST_WORDS));
    }
}
