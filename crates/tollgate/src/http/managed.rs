//! What managed clients fetch for themselves after the sign-in (surface: Claude Code and Claude Desktop).

mod bootstrap;
mod settings;

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use control::audit::AuditLog;
use control::policy::Policies;

pub use bootstrap::Desktop;

/// Every path of this surface; all of them are behind the bearer wall.
pub fn routes(policies: Arc<Policies>, desktop: Desktop, audit: AuditLog) -> Router {
    let bootstrap = Router::new()
        .route("/user/bootstrap", any(bootstrap::serve))
        .with_state(Arc::new(bootstrap::State { policies: Arc::clone(&policies), desktop, audit: audit.clone() }));
    // Any method: clients of the reference are answered alike whatever they send (contract A2).
    Router::new()
        .route("/managed/settings", any(settings::serve))
        .with_state(settings::Managed { policies, audit })
        .merge(bootstrap)
}

#[cfg(test)]
mod tests;
