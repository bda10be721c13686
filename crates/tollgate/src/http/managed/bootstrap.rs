//! `/user/bootstrap`: the configuration of the caller's Claude Desktop (contract A10). What is in it is policy's decision.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract;
use axum::response::Response;
use control::audit::{AuditLog, Event};
use control::clock::Clock;
use control::identity::Principal;
use control::policy::{DesktopSelection, Policies};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use wire::error::ErrorType;

use crate::http::caller::Caller;
use crate::http::error::{JSON, refuse};
use crate::http::inference::models::{Reach, usable};
use crate::http::layers::RequestFacts;

const SPEND_ADMIN: HeaderName = HeaderName::from_static("x-gateway-spend-admin");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What the document says beside what policies say.
pub struct Desktop {
    /// Which models are served at all.
    pub reach: Reach,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// How long a document is good for: `session.ttl_hours`.
    pub ttl: Duration,
    /// `admin.admin_groups`.
    pub admin_groups: Vec<String>,
}

/// What this endpoint asks.
pub(super) struct State {
    pub(super) policies: Arc<Policies>,
    pub(super) desktop: Desktop,
    pub(super) audit: AuditLog,
}

impl std::fmt::Debug for Desktop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desktop")
            .field("ttl", &self.ttl)
            .field("admin_groups", &self.admin_groups)
            .finish_non_exhaustive()
    }
}

pub(super) async fn serve(
    extract::State(state): extract::State<Arc<State>>,
    Caller(principal): Caller,
    facts: RequestFacts,
    method: Method,
) -> Response {
    if method != Method::GET {
        let message = "method not allowed";
        let id = &facts.request_id;
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, ErrorType::InvalidRequest, message, id);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let bootstrap = match state.policies.select_desktop(&principal) {
        DesktopSelection::Serve(bootstrap) => bootstrap,
        DesktopSelection::NotConfigured => {
            let message = "this gateway has no configuration for Claude Desktop: no policy has `desktop`";
            return state.absent("not_configured", message, &principal, &facts);
        }
        DesktopSelection::NotOptedIn => {
            let message = "the policy that is yours has no configuration for Claude Desktop: it lacks `desktop`";
            return state.absent("policy_not_opted_in", message, &principal, &facts);
        }
        DesktopSelection::NoMatch => {
            return state.absent("no_policy_matched", "no policy matched", &principal, &facts);
        }
    };
    let (sub, email) = (principal.sub.as_str(), principal.email.as_deref());
    let event = Event::DesktopBootstrapServe { sub, email, policy_index: bootstrap.index };
    state.audit.emit(Some(&facts.request_id), &event);
    let desktop = &state.desktop;
    let ttl = i64::try_from(desktop.ttl.as_secs()).unwrap_or(i64::MAX);
    let expires_at = desktop.clock.now().as_second().saturating_add(ttl);
    let models = usable(&state.policies, &desktop.reach, &principal).map(AsRef::as_ref);
    let mut response = Response::new(Body::from(bootstrap.body(&principal, models, expires_at)));
    let is_admin = principal.groups.iter().any(|group| desktop.admin_groups.contains(group));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(SPEND_ADMIN, HeaderValue::from_static(if is_admin { "true" } else { "false" }));
    response
}

impl State {
    fn absent(&self, reason: &'static str, message: &str, principal: &Principal, facts: &RequestFacts) -> Response {
        let event = Event::DesktopBootstrapDenied { reason, sub: &principal.sub, email: principal.email.as_deref() };
        self.audit.emit(Some(&facts.request_id), &event);
        let mut response = refuse(StatusCode::NOT_FOUND, ErrorType::NotFound, message, &facts.request_id);
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        response
    }
}
