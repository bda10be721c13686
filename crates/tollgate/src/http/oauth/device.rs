//! Device authorization (RFC 8628): the device's request, and the pages where a person decides about it.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use control::audit::Event;
use control::identity::sign_in::{Departure, SignInError};
use control::identity::{GRANT_LIFE, POLL_INTERVAL, UserCode};
use control::limit::{Hit, RateLimit};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::ExposeSecret;
use url::form_urlencoded;
use wire::oauth::{DeviceAuthorization, ErrorCode};

use super::error::{explain, json, tell, unavailable};
use super::form::{Form, is_same_origin};
use super::page::Words;
use super::{NO_STORE, Surface, asker, cookie};
use crate::http::layers::RequestFacts;

/// Longer names of applications are cut: they are shown to a person who must recognise them.
const LONGEST_SURFACE: usize = 64;
/// Looking at a code is free in the reference and shows nothing. Here it shows who asked, so guessing is bounded; far
/// above what the people behind one address need.
const LOOKS_PER_DECISION: u32 = 20;

/// `POST /oauth/device_authorization`: anyone may ask, so many times per address, with any body.
pub(super) async fn authorize(State(surface): State<Surface>, facts: RequestFacts, form: Form) -> Response {
    let bucket = format!("devauth:{}", facts.client_ip);
    match surface.counters.hit(&bucket, surface.config.device_authorization, surface.clock.now()).await {
        Ok(Hit::Within) => {}
        Ok(Hit::Over { .. }) => {
            let client_ip = facts.client_ip.to_string();
            let event =
                Event::DeviceAuthorize { result: "rate_limited", client_ip: &client_ip, flow: None, surface: None };
            surface.audit.emit(Some(&facts.request_id), &event);
            let text = "Too many sign-in attempts came from your network, which other people may share.";
            return explain(ErrorCode::SlowDown, text);
        }
        Err(error) => return unavailable(&error.into(), &facts),
    }
    let named = form.get("surface").and_then(recognisable);
    match surface.sign_in.begin(named.as_deref(), asker(&facts)).await {
        Ok(begun) => {
            let page = format!("{}/device", surface.config.public_origin);
            let answer = DeviceAuthorization {
                device_code: begun.device_code.expose_secret().to_owned(),
                user_code: begun.user_code.to_string(),
                verification_uri_complete: format!("{page}?user_code={}", begun.user_code),
                verification_uri: page,
                expires_in: GRANT_LIFE.as_secs(),
                interval: POLL_INTERVAL.as_secs(),
                login_notice: surface.config.login_notice.clone(),
            };
            json(StatusCode::OK, &answer)
        }
        Err(error) => unavailable(&error, &facts),
    }
}

/// `GET /device`: where a code is typed, or with a code, where a person sees who asked. Changes nothing.
pub(super) async fn show(State(surface): State<Surface>, facts: RequestFacts, RawQuery(query): RawQuery) -> Response {
    let typed = form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "user_code")
        .map(|(_, value)| value.into_owned());
    let Some(typed) = typed.filter(|typed| !typed.trim().is_empty()) else {
        return surface.pages().enter(StatusCode::OK, None, "");
    };
    let Some(code) = UserCode::read(&typed) else { return unknown(&surface, &typed) };
    let limit = surface.config.device_verify;
    let limit = RateLimit { max: limit.max.saturating_mul(LOOKS_PER_DECISION), ..limit };
    if let Err(refusal) = within(&surface, &format!("look:{}", facts.client_ip), limit, &facts).await {
        return *refusal;
    }
    match surface.sign_in.look_up(&code).await {
        Ok(Some(grant)) => surface.pages().approve(&code, &grant, facts.client_ip, surface.clock.now()),
        Ok(None) => unknown(&surface, &typed),
        Err(error) => out_of_order(&surface, &error, &facts),
    }
}

/// `POST /device`: the person says yes, from our own page; the browser goes to the provider.
pub(super) async fn confirm(
    State(surface): State<Surface>,
    facts: RequestFacts,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let typed = match decided(&surface, &facts, &headers, &form).await {
        Ok(typed) => typed,
        Err(refusal) => return *refusal,
    };
    match surface.sign_in.confirm(UserCode::read(&typed).as_ref(), asker(&facts)).await {
        Ok(Some(departure)) => depart(&surface, &departure),
        Ok(None) => unknown(&surface, &typed),
        Err(error) => out_of_order(&surface, &error, &facts),
    }
}

/// `POST /device/deny`: the person says no, from our own page.
pub(super) async fn deny(
    State(surface): State<Surface>,
    facts: RequestFacts,
    headers: HeaderMap,
    form: Form,
) -> Response {
    let typed = match decided(&surface, &facts, &headers, &form).await {
        Ok(typed) => typed,
        Err(refusal) => return *refusal,
    };
    match surface.sign_in.deny(UserCode::read(&typed).as_ref(), asker(&facts)).await {
        Ok(true) => surface.pages().good_end(&Words {
            title: "Sign-in denied",
            text: "The device was not signed in, and its code is no longer valid. You can close this page.",
            detail: None,
        }),
        Ok(false) => unknown(&surface, &typed),
        Err(error) => out_of_order(&surface, &error, &facts),
    }
}

/// What both decisions ask first: did our own page post this, and not too often? The code as it was posted.
async fn decided(
    surface: &Surface,
    facts: &RequestFacts,
    headers: &HeaderMap,
    form: &Form,
) -> Result<String, Box<Response>> {
    // Before the limit: another site's page must not use up this person's tries.
    if !is_same_origin(headers, surface.browser_origin().as_deref()) {
        refused_decision(surface, facts, "csrf_rejected");
        let problem = "That did not come from this page. Please enter the code here.";
        return Err(Box::new(surface.pages().enter(StatusCode::FORBIDDEN, Some(problem), "")));
    }
    let bucket = format!("device:{}", facts.client_ip);
    within(surface, &bucket, surface.config.device_verify, facts).await?;
    let typed = form.get("user_code").unwrap_or_default().to_owned();
    if typed.trim().is_empty() {
        refused_decision(surface, facts, "unknown_code");
        let problem = "Please enter the code that your device shows.";
        return Err(Box::new(surface.pages().enter(StatusCode::BAD_REQUEST, Some(problem), "")));
    }
    Ok(typed)
}

async fn within(surface: &Surface, bucket: &str, limit: RateLimit, facts: &RequestFacts) -> Result<(), Box<Response>> {
    match surface.counters.hit(bucket, limit, surface.clock.now()).await {
        Ok(Hit::Within) => Ok(()),
        Ok(Hit::Over { retry_after }) => {
            refused_decision(surface, facts, "rate_limited");
            let problem = "Too many codes were tried from your network. Please wait a few minutes.";
            let mut page = surface.pages().enter(StatusCode::TOO_MANY_REQUESTS, Some(problem), "");
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
                page.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            Err(Box::new(page))
        }
        Err(error) => Err(Box::new(out_of_order(surface, &error.into(), facts))),
    }
}

fn refused_decision(surface: &Surface, facts: &RequestFacts, result: &str) {
    let client_ip = facts.client_ip.to_string();
    let event = Event::DeviceVerify { result, client_ip: &client_ip, flow: None };
    surface.audit.emit(Some(&facts.request_id), &event);
}

fn depart(surface: &Surface, departure: &Departure) -> Response {
    let cookie = cookie::set(&departure.attempt, departure.binding.expose_secret(), surface.is_https());
    match (HeaderValue::from_str(&departure.url), cookie) {
        (Ok(location), Some(cookie)) => {
            (StatusCode::FOUND, [(header::LOCATION, location), (header::SET_COOKIE, cookie)], NO_STORE).into_response()
        }
        // A URL is ASCII, and so is the cookie.
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn unknown(surface: &Surface, typed: &str) -> Response {
    let problem = "This code is not valid: it was mistyped, used already, or has expired. Start again on your device for a new one.";
    // As much as the field takes.
    let typed: String = typed.chars().take(9).collect();
    surface.pages().enter(StatusCode::NOT_FOUND, Some(problem), &typed)
}

/// The page of a sign-in that cannot be served; the cause goes to the log.
pub(super) fn out_of_order(surface: &Surface, error: &SignInError, facts: &RequestFacts) -> Response {
    tell(error, facts);
    let words = Words {
        title: "Sign-in is not available right now",
        text: "Nothing was changed. Please try again in a minute.",
        detail: None,
    };
    surface.pages().bad_end(StatusCode::SERVICE_UNAVAILABLE, &words, &facts.request_id)
}

/// The name less what could make it look like something else on the page.
fn recognisable(name: &str) -> Option<String> {
    let plain = |c: &char| c.is_alphanumeric() || " .,-_/()@:+#'".contains(*c);
    let name: String = name.trim().chars().filter(plain).take(LONGEST_SURFACE).collect();
    (!name.is_empty()).then_some(name)
}
