//! The admin API (surface: automation): spend caps and what they do (contract B8), sessions and their end.

mod audit;
mod caps;
mod csv;
mod effective;
mod error;
mod openapi;
mod principals;
mod query;
mod reports;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post};
use control::audit::{AuditLog, Event};
use control::identity::Sessions;
use control::identity::admin_key::{Admin, AdminKeys, WriteAccess};
use control::limit::{Counters, Hit, RateLimit};
use control::spend::{Caps, Report, Upkeep};
use control::store::StoreError;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;

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
    /// Counts wrong credentials.
    pub counters: Counters,
    /// `rate_limits.admin_auth`: for one client address.
    pub failures: RateLimit,
}

/// Bytes of a body: a limit is a few hundred, unless somebody's id is very long.
const MOST_BYTES: usize = 64 * 1024;

/// Every path of this surface. It has a wall of its own: keys are no bearers.
pub fn routes(admins: Arc<Admins>, surface: Surface) -> Router {
    let mut router = Router::new();
    for (path, _, handler) in endpoints() {
        router = router.route(path, handler);
    }
    router
        .with_state(surface)
        .method_not_allowed_fallback(async || Error::NotFound)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn_with_state(admins, require))
}

/// Every path and method; what the document of the API is held against.
fn endpoints() -> [(&'static str, Method, MethodRouter<Surface>); 13] {
    [
        ("/v1/openapi.json", Method::GET, get(openapi::show)),
        ("/v1/organizations/spend_limits", Method::GET, get(caps::list)),
        ("/v1/organizations/spend_limits", Method::POST, post(caps::put)),
        ("/v1/organizations/spend_limits/effective", Method::GET, get(effective::list)),
        ("/v1/organizations/spend_limits/audit", Method::GET, get(audit::list)),
        ("/v1/organizations/spend_limits/{id}", Method::GET, get(caps::show)),
        ("/v1/organizations/spend_limits/{id}", Method::DELETE, delete(caps::delete)),
        ("/v1/organizations/usage_report/messages", Method::GET, get(reports::usage)),
        ("/v1/organizations/cost_report", Method::GET, get(reports::cost)),
        ("/v1/organizations/principals/{sub}", Method::DELETE, delete(principals::erase)),
        ("/v1/organizations/sessions", Method::GET, get(sessions::list)),
        ("/v1/organizations/sessions/revoke", Method::POST, post(sessions::revoke)),
        ("/v1/organizations/sessions/{id}", Method::DELETE, delete(sessions::end)),
    ]
}

/// The rooms that administrators ask.
#[derive(Debug, Clone)]
pub struct Surface {
    /// Sets and lists caps.
    pub caps: Caps,
    /// Tells what was spent.
    pub report: Report,
    /// Removes and proves.
    pub upkeep: Upkeep,
    /// Ends sessions.
    pub sessions: Sessions,
    /// Where changes are written down.
    pub audit: AuditLog,
}

/// Knows the administrator before anything is looked at, and gives every answer its own kind of request id.
async fn require(State(admins): State<Arc<Admins>>, facts: RequestFacts, mut request: Request, next: Next) -> Response {
    let id = format!("req_{}", uuid::Uuid::new_v4().simple());
    let reads = request.method() == Method::GET;
    let mut response = match admins.admit(request.headers(), &facts).await {
        Ok(_) if holds_nul(&request) => {
            Error::Invalid("the address must not hold a NUL character".to_owned()).into_response()
        }
        Ok(admin) => {
            request.extensions_mut().insert(admin);
            next.run(request).await
        }
        Err(denied) => {
            let event = Event::AdminDenied {
                reason: denied.reason(),
                method: request.method().as_str(),
                path: request.uri().path(),
                client_ip: &facts.client_ip.to_string(),
            };
            admins.wall.audit.emit(Some(&facts.request_id), &event);
            Error::from(denied).into_response()
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

/// Why nobody is let in.
enum Denied {
    InvalidKey,
    BearerRejected,
    NoCredentials,
    TooMany { retry_after: Duration },
}

impl Denied {
    /// The word for it in audit events.
    fn reason(&self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_key",
            Self::BearerRejected => "bearer_rejected",
            Self::NoCredentials => "no_credentials",
            Self::TooMany { .. } => "rate_limited",
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::InvalidKey | Denied::BearerRejected | Denied::NoCredentials => Self::Unauthenticated,
            Denied::TooMany { retry_after } => Self::TooMany { retry_after },
        }
    }
}

impl Admins {
    /// An address that sent too many wrong credentials waits, whatever it sends next: a limit that a right guess ends is
    /// none. While the store cannot count, nobody waits.
    async fn admit(&self, headers: &HeaderMap, facts: &RequestFacts) -> Result<Admin, Denied> {
        let bucket = format!("adminauth:{}", facts.client_ip);
        let now = self.wall.clock.now();
        let standing = self.counters.standing(&bucket, self.failures, now).await;
        if let Some(retry_after) = exhausted(standing, facts) {
            return Err(Denied::TooMany { retry_after });
        }
        let admitted = self.authenticate(headers);
        if let Err(Denied::InvalidKey | Denied::BearerRejected) = admitted {
            let hit = self.counters.hit(&bucket, self.failures, now).await;
            if let Some(retry_after) = exhausted(hit, facts) {
                return Err(Denied::TooMany { retry_after });
            }
        }
        admitted
    }

    /// A key decides alone when there is one; the bearer is then not looked at.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Admin, Denied> {
        if let Some(key) = headers.get("x-api-key") {
            return key.to_str().ok().and_then(|key| self.keys.find(key)).ok_or(Denied::InvalidKey);
        }
        if !headers.contains_key(header::AUTHORIZATION) {
            return Err(Denied::NoCredentials);
        }
        let principal = self.wall.authenticate(headers).map_err(|_| Denied::BearerRejected)?.principal;
        Admin::person(&principal, &self.groups).ok_or(Denied::BearerRejected)
    }
}

fn exhausted(hit: Result<Hit, StoreError>, facts: &RequestFacts) -> Option<Duration> {
    match hit {
        Ok(Hit::Over { retry_after }) => Some(retry_after),
        Ok(Hit::Within) => None,
        Err(error) => {
            tracing::warn!("wrong admin credentials are not counted request_id={}: {error}", facts.request_id);
            None
        }
    }
}

/// The caller's leave to change things; a reader is refused before its body is read.
struct Writer(WriteAccess);

impl<S: Send + Sync> FromRequestParts<S> for Writer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let admin = parts.extensions.get::<Admin>().ok_or(Error::Unauthenticated)?;
        let needed = match parts.uri.path() {
            path if path.starts_with("/v1/organizations/sessions") => "requires write:sessions",
            path if path.starts_with("/v1/organizations/principals") => "requires write:principals",
            _ => "requires write:spend_limits",
        };
        admin.write_access().map(Self).ok_or(Error::ReadOnly(needed))
    }
}

/// No database column holds it, so nothing is found by it.
fn holds_nul(request: &Request) -> bool {
    request.uri().path_and_query().is_some_and(|address| address.as_str().contains("%00"))
}

/// The id in a path; one that is no text is nobody's.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id)).map_err(|_| Error::NotFound)
    }
}

/// A whole body.
struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let body = Bytes::from_request(request, state).await;
        body.map(Self).map_err(|rejected| match rejected.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge,
            _ => Error::Invalid("the body could not be read".to_owned()),
        })
    }
}

/// JSON with the content type of the reference.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Objects whose keys are texts always serialise.
    let text = serde_json::to_vec(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, super::error::JSON)], text).into_response()
}
