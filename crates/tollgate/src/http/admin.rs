//! The admin API (surface: automation): spend caps and what they do (contract B8).

mod caps;
mod effective;
mod error;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use control::audit::{AuditLog, Event};
use control::identity::admin_key::{Admin, AdminKeys, WriteAccess};
use control::spend::{Caps, Report};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use self::error::Error;
use super::caller::Wall;
use super::layers::RequestFacts;

/// Who may use the admin API.
#[derive(Debug)]
pub struct Admins {
    /// `admin.write_keys` and `admin.read_keys`.
    pub keys: AdminKeys,
    /// `admin.admin_groups`.
    pub groups: Vec<String>,
    /// Knows bearers.
    pub wall: Wall,
}

/// Every path of this surface. It has a wall of its own: keys are no bearers.
pub fn routes(admins: Arc<Admins>, caps: Caps, report: Report, audit: AuditLog) -> Router {
    Router::new()
        .route("/v1/organizations/spend_limits", get(caps::list).post(caps::put))
        .route("/v1/organizations/spend_limits/effective", get(effective::list))
        .route("/v1/organizations/spend_limits/{id}", get(caps::show).delete(caps::delete))
        .with_state(Surface { caps, report, audit })
        .method_not_allowed_fallback(async || Error::NotFound)
        .layer(middleware::from_fn_with_state(admins, require))
}

#[derive(Debug, Clone)]
struct Surface {
    caps: Caps,
    report: Report,
    audit: AuditLog,
}

/// Knows the administrator before anything is looked at, and gives every answer its own kind of request id.
async fn require(State(admins): State<Arc<Admins>>, facts: RequestFacts, mut request: Request, next: Next) -> Response {
    let id = format!("req_{}", uuid::Uuid::new_v4().simple());
    let reads = request.method() == Method::GET;
    let mut response = match admins.authenticate(&request) {
        Ok(admin) => {
            request.extensions_mut().insert(admin);
            next.run(request).await
        }
        Err(reason) => {
            let event = Event::AdminDenied {
                reason,
                method: request.method().as_str(),
                path: request.uri().path(),
                client_ip: &facts.client_ip.to_string(),
            };
            admins.wall.audit.emit(Some(&facts.request_id), &event);
            Error::Unauthenticated.into_response()
        }
    };
    error::name(&mut response, &id);
    let headers = response.headers_mut();
    if reads {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("request-id"), id);
    }
    response
}

impl Admins {
    /// A key decides alone when there is one; the bearer is then not looked at.
    fn authenticate(&self, request: &Request) -> Result<Admin, &'static str> {
        if let Some(key) = request.headers().get("x-api-key") {
            return key.to_str().ok().and_then(|key| self.keys.find(key)).ok_or("invalid_key");
        }
        if !request.headers().contains_key(header::AUTHORIZATION) {
            return Err("no_credentials");
        }
        let principal = self.wall.authenticate(request.headers()).map_err(|_| "bearer_rejected")?;
        Admin::person(&principal, &self.groups).ok_or("bearer_rejected")
    }
}

/// The caller's leave to change things; a reader is refused before its body is read.
struct Writer(WriteAccess);

impl<S: Send + Sync> FromRequestParts<S> for Writer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let admin = parts.extensions.get::<Admin>().ok_or(Error::Unauthenticated)?;
        admin.write_access().map(Self).ok_or(Error::ReadOnly)
    }
}

/// JSON with the content type of the reference.
fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, super::error::JSON)], body.to_string()).into_response()
}
