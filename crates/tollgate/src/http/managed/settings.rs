//! `/managed/settings`: the caller's settings document (contract A9). Which document is policy's decision.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control::audit::{AuditLog, Event};
use control::policy::{Kind, Policies, Selection};
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
    if served.kind == Kind::Cli && is_desktop_session(&request) {
        return absent("not served to Claude Desktop sessions: this policy is for the command line");
    }
    let tag = [(ETAG, served.etag.as_str())];
    if served.kind == Kind::Code && takes_none(&request) {
        tracing::info!(principal.id = %principal.sub, policy_index = served.index, "a machine does not take the settings \
            that this policy has for Claude Desktop's Code tab; its own managed settings must name this gateway");
        return (StatusCode::NOT_MODIFIED, common(), NO_STORE, tag, no_body()).into_response();
    }
    let unchanged = has_current(&request, &served.etag);
    audit.emit(
        Some(&facts.request_id),
        &Event::ManagedServe {
            sub: &principal.sub,
            email: principal.email.as_deref(),
            policy_index: served.index,
            checksum: &served.checksum,
            unchanged,
        },
    );
    if unchanged {
        return (StatusCode::NOT_MODIFIED, common(), tag, no_body()).into_response();
    }
    let json = [(CONTENT_TYPE, "application/json;charset=utf-8")];
    (common(), json, tag, served.body.clone()).into_response()
}

/// A 404 is cacheable by default (RFC 9110 section 15.5.5), and the next policy must be seen at once.
const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// On every answer: the document depends on the user agent, and clients compare versions.
fn common() -> [(HeaderName, &'static str); 2] {
    [(VARY, "User-Agent"), (VERSION, env!("CARGO_PKG_VERSION"))]
}

/// Nothing, of unstated length: `content-length: 0` would claim that a 200 has no body either (RFC 9110 section 8.6).
fn no_body() -> Body {
    Body::from_stream(futures_util::stream::empty::<Result<Bytes, Infallible>>())
}

fn absent(why: &'static str) -> Response {
    let text = [(CONTENT_TYPE, "text/plain;charset=utf-8")];
    (StatusCode::NOT_FOUND, common(), NO_STORE, text, why).into_response()
}

/// Whether `If-None-Match` names the current document, by weak comparison (RFC 9110 section 13.1.2).
///
/// `*` does not count: a client that sends it holds no copy it could name; see [`takes_none`].
fn has_current(request: &HeaderMap, etag: &str) -> bool {
    let lists = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // A foreign tag may hold a comma, but no quote, so no piece of it can be taken for ours.
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Whether `If-None-Match` is `*`. Claude Desktop asks so on machines that take no settings of a gateway, to learn whether
/// its Code tab may start without; where settings are for it, it may not (contract A9). Terminals get the document.
fn takes_none(request: &HeaderMap) -> bool {
    request.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes().trim_ascii() == b"*")
}

/// Whether the user agent's comment names Claude Desktop, as `claude-cli/2.1.330 (external, claude-desktop)` does.
fn is_desktop_session(request: &HeaderMap) -> bool {
    let agent = request.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let comments = agent.split('(').skip(1).filter_map(|rest| rest.split_once(')')).map(|(comment, _)| comment);
    let mut words = comments.flat_map(|comment| comment.split(',')).map(str::trim);
    words.any(|word| matches!(word, "claude-desktop" | "local-agent"))
}
