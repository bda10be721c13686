//! What managed clients fetch for themselves after the sign-in (surface: Claude Code and Claude Desktop).

mod settings;

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use control::audit::AuditLog;
use control::policy::Policies;

/// Every path of this surface; all of them are behind the bearer wall.
pub fn routes(policies: Arc<Policies>, audit: AuditLog) -> Router {
    // Any method: clients of the reference are answered alike whatever they send (contract A2).
    Router::new().route("/managed/settings", any(settings::serve)).with_state(settings::Managed { policies, audit })
}

#[cfg(test)]
mod tests;
