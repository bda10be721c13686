//! Health: whether the process lives, and whether it can do its work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use control::clock::Clock;
use control::store::Store;
use http::StatusCode;

/// A load balancer that waits longer than this takes the answer for a no.
const BUDGET: Duration = Duration::from_millis(900);

/// Readiness: the store answers, or has failed for no longer than the grace.
#[derive(Debug)]
pub struct Readiness {
    store: Store,
    clock: Arc<dyn Clock>,
    grace: Duration,
    failing_since: Mutex<Option<Instant>>,
}

impl Readiness {
    /// With `store.readiness_grace_seconds`.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, grace: Duration) -> Self {
        Self { store, clock, grace, failing_since: Mutex::new(None) }
    }

    async fn is_ready(&self) -> bool {
        let answer = self.store.ping(BUDGET).await;
        let now = self.clock.instant();
        let mut failing_since = self.failing_since.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(()) => {
                *failing_since = None;
                true
            }
            Err(_) => now.saturating_duration_since(*failing_since.get_or_insert(now)) < self.grace,
        }
    }
}

/// `/healthz` and `/readyz`, open to all.
pub fn routes(readiness: Arc<Readiness>) -> Router {
    Router::new().route("/healthz", get(async || "ok")).route("/readyz", get(ready)).with_state(readiness)
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> (StatusCode, &'static str) {
    if readiness.is_ready().await {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "store unavailable")
    }
}
