//! Sign-in over HTTP (surface: RFC clients and the browser of the person who signs in).
//!
//! Every path here is open to all; what is checked instead stands beside each handler. Decides nothing: reads, asks
//! [`SignIn`], answers.

mod callback;
mod cookie;
mod device;
mod discovery;
mod error;
mod form;
mod page;
mod revoke;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use control::audit::AuditLog;
use control::clock::Clock;
use control::identity::SignIn;
use control::identity::sign_in::Asker;
use control::limit::{Counters, RateLimit};
use http::HeaderValue;
use url::Url;

use self::page::Pages;
use super::layers::RequestFacts;

/// What this surface is told by the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Scheme, host and port that clients and browsers use; no trailing slash.
    pub public_origin: String,
    /// Shown by clients and on the pages.
    pub login_notice: Option<String>,
    /// `oidc.form_action_origins`: where else the provider's own redirects may lead a form.
    pub form_action_origins: Vec<String>,
    /// Device authorizations per client address.
    pub device_authorization: RateLimit,
    /// Decisions about user codes per client address.
    pub device_verify: RateLimit,
    /// Refreshes per session.
    pub refresh: RateLimit,
}

/// What the handlers of this surface ask.
#[derive(Clone)]
struct Surface {
    sign_in: Arc<SignIn>,
    counters: Counters,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
}

/// Every path of this surface. None is behind the bearer wall; other methods on them are, and so are left to the
/// router's fallback.
pub fn routes(
    sign_in: Arc<SignIn>,
    counters: Counters,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    config: Config,
) -> Router {
    let surface = Surface { sign_in, counters, audit, clock, config: Arc::new(config) };
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(discovery::show))
        .route("/oauth/device_authorization", post(device::authorize))
        .route("/device", get(device::show).post(device::confirm))
        .route("/device/deny", post(device::deny))
        .route("/oauth/callback", get(callback::finish))
        .route("/oauth/token", post(token::grant))
        .route("/oauth/revoke", post(revoke::revoke))
        .route("/oauth/backchannel_logout", post(revoke::backchannel_logout))
        .with_state(surface)
}

impl Surface {
    /// Made anew for each page: the provider may move its authorization endpoint.
    fn pages(&self) -> Pages {
        let mut origins = vec![self.sign_in.provider_origin()];
        origins.extend(self.config.form_action_origins.iter().cloned());
        Pages::new(&origins, self.config.login_notice.clone())
    }

    /// The origin as browsers write it in `Origin`.
    fn browser_origin(&self) -> Option<String> {
        Some(Url::parse(&self.config.public_origin).ok()?.origin().ascii_serialization())
    }

    fn is_https(&self) -> bool {
        self.config.public_origin.starts_with("https://")
    }
}

/// Sign-in answers hold secrets or speak of them: nobody may keep them.
const NO_STORE: [(http::HeaderName, HeaderValue); 2] = [
    (http::header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (http::header::PRAGMA, HeaderValue::from_static("no-cache")),
];

fn asker(facts: &RequestFacts) -> Asker<'_> {
    Asker { request_id: &facts.request_id, client_ip: facts.client_ip }
}

#[cfg(test)]
mod tests;
