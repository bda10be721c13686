//! What the gateway says of itself to whoever comes by (contract A3): a page for people, the protocol for programmers.
//!
//! The same for everybody, and nothing that a stranger may not know: no model, no policy, no name.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// What a client and this gateway say to each other.
const PROTOCOL: &str = include_str!("../../../../docs/protocol.md");

/// Browsers ask for it wherever they are; without an answer every visit would look like a refused caller (R40).
const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><g fill="none" stroke="#0a5c53" stroke-width="3" stroke-linecap="round"><path d="M6 28V12"/><path d="M3 28h6"/><path d="M6 14 28 5" stroke-dasharray="5 4.2"/></g><circle cx="6" cy="14" r="3.5" fill="#0a5c53"/></svg>"##;
const ROBOTS: &str = "User-agent: *\nDisallow: /\n";

/// The page has links and styles, and nothing else: no script, no form, no image from anywhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
);

/// Where somebody lands who opens the gateway's address.
#[derive(Debug, Template)]
#[template(path = "landing.html")]
pub struct Landing {
    /// Scheme, host and port that clients and browsers use.
    pub public_origin: String,
    /// Where people sign in, such as `idp.example`.
    pub idp_host: String,
    /// The gateway's version.
    pub version: &'static str,
}

/// The documents, open to all.
pub fn routes(landing: Landing) -> Router {
    let text = |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/", get(land))
        .with_state(Arc::new(landing))
        .route("/protocol", text("text/markdown; charset=utf-8", PROTOCOL))
        .route("/favicon.ico", text("image/svg+xml", ICON))
        .route("/robots.txt", text("text/plain; charset=utf-8", ROBOTS))
}

async fn land(State(landing): State<Arc<Landing>>) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    match landing.render() {
        Ok(html) => (HEADERS, html).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
