//! What the ledger can be asked about itself, for metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Refusal;
use crate::spend::Money;

/// The ledger of this replica at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests in flight with money set aside.
    pub reservations: u64,
    /// Accounts that are admitted from here without asking the database.
    pub leases: u64,
    /// What these leases hold.
    pub leased: Money,
    /// Settlements that are not in the database yet.
    pub waiting: u64,
    /// Their sum: spend that no account knows of yet.
    pub waiting_spend: Money,
    /// For how long the oldest of them has been waiting.
    pub lag: Duration,
    /// The database does not answer; it is tried in the background.
    pub database_down: bool,
    /// Requests refused since the start, by cause.
    pub blocked: Blocked,
}

/// Requests refused since the start, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blocked {
    /// A cap or pool was exhausted, or too small for the request.
    pub over_limit: u64,
    /// Others in flight left no room in time.
    pub in_flight: u64,
    /// The ledger could not be read.
    pub store_error: u64,
    /// Strict mode: the cost could not be bounded.
    pub unbounded: u64,
}

/// Where the figures are kept: written by the writer and by every request.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) reservations: AtomicU64,
    /// No request waits for the database while this is set.
    pub(super) down: AtomicBool,
    /// More cannot be kept in memory: requests are refused until the database is back.
    pub(super) full: AtomicBool,
    over_limit: AtomicU64,
    in_flight: AtomicU64,
    store_error: AtomicU64,
    unbounded: AtomicU64,
    writer: Mutex<Told>,
}

/// What the writer tells.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) leases: u64,
    pub(super) leased: Money,
    pub(super) waiting: u64,
    pub(super) waiting_spend: Money,
    /// Since when the oldest waits.
    pub(super) since: Option<Instant>,
}

impl Board {
    pub(super) fn count(&self, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::Over(_) | Refusal::TooDear { .. } => &self.over_limit,
            Refusal::InFlight { .. } => &self.in_flight,
            Refusal::Unavailable => &self.store_error,
            Refusal::Unbounded(_) => &self.unbounded,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, told: Told) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    pub(super) fn figures(&self, now: Instant) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let told = *self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Figures {
            reservations: read(&self.reservations),
            leases: told.leases,
            leased: told.leased,
            waiting: told.waiting,
            waiting_spend: told.waiting_spend,
            lag: told.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            database_down: self.down.load(Ordering::Relaxed),
            blocked: Blocked {
                over_limit: read(&self.over_limit),
                in_flight: read(&self.in_flight),
                store_error: read(&self.store_error),
                unbounded: read(&self.unbounded),
            },
        }
    }
}
