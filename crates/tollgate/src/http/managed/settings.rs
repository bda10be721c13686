//! `/managed/settings`: the caller's settings document (contract A9). Which document is policy's decision.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control::audit::{AuditLog, Event};
use control::policy::{Policies, Selection};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, USER_AGENT, VARY};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::http::caller::Caller;
use crate::http::layers::RequestFacts;

const VERSION: HeaderName = HeaderName::from_static("x-cc-gateway-version");

/// What this endpoint asks.
#[derive(Debug, Clone)]
pub(super) struct Managed {
    pub(super) policies: Arc<Policies>,
    pub(super) audit: AuditLog,
}

pub(super) async fn serve(
    State(Managed { policies, audit }): State<Managed>,
    Caller(principal): Caller,
    facts: RequestFacts,
    request: HeaderMap,
) -> Response {
    let served = match policies.select(&principal) {
        Selection::Serve(served) => served,
        Selection::NotConfigured => return absent("not configured"),
        Selection::NoMatch => return absent("no policy matched"),
    };
    if is_desktop_session(&request) {
        return absent("not served to Claude Desktop sessions: this policy is for the command line");
    }
    audit.emit(
        Some(&facts.request_id),
        &Event::ManagedServe {
            sub: &principal.sub,
            email: principal.email.as_deref(),
            policy_index: served.index,
            checksum: &served.checksum,
        },
    );
    let tag = [(ETAG, served.etag.as_str())];
    if has_current(&request, &served.etag) {
        return (StatusCode::NOT_MODIFIED, common(), tag, no_body()).into_response();
    }
    let json = [(CONTENT_TYPE, "application/json;charset=utf-8")];
    (common(), json, tag, served.body.clone()).into_response()
}

/// On every answer: the document depends on the user agent, and clients compare versions.
fn common() -> [(HeaderName, &'static str); 2] {
    [(VARY, "User-Agent"), (VERSION, env!("CARGO_PKG_VERSION"))]
}

/// Nothing, of unstated length: `content-length: 0` would claim that a 200 has no body either (RFC 9110 section 8.6).
fn no_body() -> Body {
    Body::from_stream(futures_util::stream::empty::<Result<Bytes, Infallible>>())
}

fn absent(why: &'static str) -> Response {
    let text = [
        (CONTENT_TYPE, "text/plain;charset=utf-8"),
        // A 404 is cacheable by default (RFC 9110 section 15.5.5), and the next policy must be seen at once.
        (CACHE_CONTROL, "no-store"),
    ];
    (StatusCode::NOT_FOUND, common(), text, why).into_response()
}

/// Whether `If-None-Match` names the current document, by weak comparison (RFC 9110 section 13.1.2).
///
/// `*` does not count: a client that sends it holds no copy it could name, and existing ones expect the document.
fn has_current(request: &HeaderMap, etag: &str) -> bool {
    let lists = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // A foreign tag may hold a comma, but no quote, so no piece of it can be taken for ours.
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Whether the user agent's comment names Claude Desktop, as `claude-cli/2.1.330 (external, claude-desktop)` does.
fn is_desktop_session(request: &HeaderMap) -> bool {
    let agent = request.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let comments = agent.split('(').skip(1).filter_map(|rest| rest.split_once(')')).map(|(comment, _)| comment);
    let mut words = comments.flat_map(|comment| comment.split(',')).map(str::trim);
    words.any(|word| matches!(word, "claude-desktop" | "local-agent"))
}
