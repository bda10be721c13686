//! The ledger: reservations before a call, settlements after it, exactly once.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use wire::catalog::Model;
use wire::usage::Usage;

use super::cap::InForce;
use super::{Money, Period};
use crate::identity::Principal;
use crate::policy::permit::Permit;

/// Reserves and settles; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {}

/// A request that wants to be admitted.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The request's id, unique for ever: reservation, usage row and audit line share it.
    pub id: uuid::Uuid,
    /// Who pays.
    pub principal: Arc<Principal>,
    /// Length of the body in bytes: no more input tokens than this.
    pub body_bytes: u64,
    /// `max_tokens`: no more output tokens than this.
    pub max_tokens: Option<u64>,
    /// Names of the upstreams that may serve it.
    pub upstreams: Vec<String>,
    /// The client's session id, for the usage row.
    pub session_id: Option<String>,
}

/// Money set aside for one request. Ended by [`Reservation::settle`] or [`Reservation::release`]; one that is dropped
/// without is settled at its estimate.
#[must_use = "settle or release it"]
#[derive(Debug)]
pub struct Reservation {
    _model: Arc<Model>,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The upstream that answered.
    pub upstream: String,
    /// What was used.
    pub usage: Usage,
    /// The usage rests on an estimate, not on the upstream's final word.
    pub estimated: bool,
    /// The status sent to the client.
    pub status: u16,
    /// Milliseconds from arrival to end.
    pub ms: u64,
    /// Milliseconds to the first byte of the body.
    pub ttfb_ms: Option<u64>,
}

/// Where a principal stands against the fullest of its caps, before this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The fullest cap.
    pub cap: InForce,
    /// Spent in its period.
    pub spent: Money,
    /// When the period ends.
    pub resets_at: Timestamp,
}

/// Why a request cannot be afforded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A cap is exhausted; of several, the one that resets last.
    Over(Box<Standing>),
    /// It does not fit while other requests of the same account are in flight.
    InFlight {
        /// When to try again.
        retry_after: Duration,
    },
    /// The ledger cannot be read and `fail_closed_on_error` is on.
    Unavailable,
}

impl Ledger {
    /// Whether the principal is known to be over a cap, asked before the body is read. Answers from a snapshot when that
    /// suffices; `Ok` is no promise that [`Ledger::reserve`] will say yes.
    ///
    /// # Errors
    /// [`Refusal::Over`] or [`Refusal::Unavailable`].
    pub async fn check(&self, _principal: &Principal) -> Result<(), Refusal> {
        Ok(())
    }

    /// Like [`Ledger::check`], but asks the database when the snapshot does not suffice: used before a request is
    /// answered with an error of its body, so that a blocked caller always hears of the block first (contract B1).
    ///
    /// # Errors
    /// As [`Ledger::check`].
    pub async fn check_now(&self, _principal: &Principal) -> Result<(), Refusal> {
        Ok(())
    }

    /// Sets money aside for a request, or says why not.
    ///
    /// # Errors
    /// When a cap stands in the way.
    pub async fn reserve(&self, permit: &Permit, _admission: Admission) -> Result<Reservation, Refusal> {
        Ok(Reservation { _model: Arc::clone(permit.model()) })
    }

    /// Ends of the periods that `at` lies in, for callers that describe them.
    #[must_use]
    pub fn resets_at(period: Period, at: Timestamp) -> Timestamp {
        period.ends(at)
    }
}

impl Reservation {
    /// Where the principal stood against its fullest cap before this request; `None` without caps.
    #[must_use]
    pub fn standing(&self) -> Option<&Standing> {
        None
    }

    /// The meter has seen this much: when it costs more than was set aside, more is set aside.
    pub fn grow(&mut self, _upstream: &str, _seen: &Usage) {}

    /// What `usage` costs on `upstream`.
    #[must_use]
    pub fn charge(&self, _upstream: &str, _usage: &Usage) -> Money {
        Money::ZERO
    }

    /// The usage to assume for a request whose answer never came, when the request had been sent (R18).
    #[must_use]
    pub fn expected(&self) -> Usage {
        Usage::default()
    }

    /// Swaps the reservation for the real charge and returns it. Takes effect exactly once, also when the process dies
    /// right after (then at the estimate).
    pub fn settle(self, _settlement: Settlement) -> Money {
        Money::ZERO
    }

    /// Ends it without a charge: nothing was used.
    pub fn release(self, _status: u16, _ms: u64) {}
}
