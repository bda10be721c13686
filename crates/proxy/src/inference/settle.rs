//! The last phase, open from the first moment: what a request has used and how it ended, told once to the ledger and to
//! the audit log, whichever way it ends.

mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::spend::ledger::{Settlement, Standing};
use control::spend::{Money, Origin, Reservation};
use http::{HeaderValue, StatusCode};
use wire::usage::Usage;

use super::seats::Seat;
use super::{Facts, Failure, Inference};
use crate::upstream::{Answer, CACHE_LIFE, CacheKey, Candidate, Endpoint, LONG_CACHE_LIFE, Sent, Upstream};
use told::End;

/// The audit's status of a request whose client went away before there was one.
const CLIENT_GONE: u16 = 499;

/// One request's open tab. Dropped while it is open, the client has gone away, or the gateway is being stopped.
#[derive(Debug)]
pub(super) struct Tab {
    inference: Arc<Inference>,
    endpoint: Endpoint,
    facts: Facts,
    reservation: Option<Reservation>,
    /// The client's word for the model; `None` until it was admitted.
    model: Option<String>,
    origin: Origin,
    billing_group_ignored: bool,
    upstream: Option<Arc<Upstream>>,
    /// The model's id there.
    model_sent: Option<String>,
    sent: Sent,
    tried: Vec<Tried>,
    /// The attempt under way.
    asking: Option<(Arc<Upstream>, Instant)>,
    served: Option<Served>,
    /// Its session's cache of the model.
    cache: Option<CacheKey>,
    /// An upstream serves it; and whether the session would go elsewhere next time.
    moved_in: Option<bool>,
    seat: Option<Seat>,
    first_byte: Option<Instant>,
    open: bool,
}

/// Whose answer went to the client.
#[derive(Debug)]
struct Served {
    status: StatusCode,
    request_id: Option<HeaderValue>,
    cloud_request_id: Option<HeaderValue>,
}

/// One attempt, when it is over.
#[derive(Debug)]
struct Tried {
    upstream: Arc<Upstream>,
    ended: &'static str,
    status: Option<u16>,
    ms: u64,
}

/// How a request ended, as the audit says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Complete,
    ClientAborted,
    UpstreamAborted,
    Cut,
    Error,
    Rejected,
}

/// What a request is charged for (contract R18).
#[derive(Debug, Clone, Copy)]
pub(super) enum Charge {
    /// No upstream did work that could be counted.
    Nothing,
    /// This much, by the upstream's last word.
    Used(Usage),
    /// This much, as far as we saw.
    Seen(Usage),
}

impl Tab {
    pub(super) fn open(inference: Arc<Inference>, endpoint: Endpoint, facts: Facts) -> Self {
        Self {
            inference,
            endpoint,
            facts,
            reservation: None,
            model: None,
            origin: Origin::default(),
            billing_group_ignored: false,
            upstream: None,
            model_sent: None,
            sent: Sent::default(),
            tried: Vec::new(),
            asking: None,
            served: None,
            cache: None,
            moved_in: None,
            seat: None,
            first_byte: None,
            open: true,
        }
    }

    pub(super) fn inference(&self) -> &Arc<Inference> {
        &self.inference
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The seat is its own until the answer has ended.
    pub(super) fn sit(&mut self, seat: Seat) {
        self.seat = Some(seat);
    }

    /// What it says of itself; the flag: its tag was none of the caller's groups.
    pub(super) fn describe(&mut self, origin: Origin, billing_group_ignored: bool) {
        self.model = Some(origin.model_asked.clone());
        self.origin = origin;
        self.billing_group_ignored = billing_group_ignored;
    }

    /// The money set aside for it.
    pub(super) fn hold(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
    }

    /// The upstream that holds its session's cache, where that is not the one that comes first anyway.
    pub(super) fn find_home(&mut self, model: &str) -> Option<Arc<Upstream>> {
        // Counting writes no cache, and may be done where nothing else is.
        let session = self.origin.session_id.as_deref().filter(|_| self.endpoint == Endpoint::Messages)?;
        let upstreams = &self.inference.upstreams;
        let key = upstreams.cache_key(&self.facts.principal.sub, session, model);
        self.cache = Some(key);
        upstreams.home(key, self.inference.clock.instant())
    }

    /// An upstream is about to be asked; the flag says whether it has the whole request.
    pub(super) fn try_upstream(&mut self, candidate: &Candidate) -> Sent {
        let upstream = &candidate.upstream;
        self.upstream = Some(Arc::clone(upstream));
        self.model_sent = Some(candidate.model_id.clone());
        self.asking = Some((Arc::clone(upstream), self.inference.clock.instant()));
        // What the one before had is no work of this one.
        self.sent = Sent::default();
        self.sent.clone()
    }

    /// It has answered, or not.
    pub(super) fn tried(&mut self, ended: &'static str, status: Option<u16>) {
        if let Some((upstream, began)) = self.asking.take() {
            let ms = millis(self.inference.clock.instant().saturating_duration_since(began));
            self.tried.push(Tried { upstream, ended, status, ms });
        }
    }

    /// Its session's cache is now where it is served; `first` is where the configuration's order begins.
    pub(super) fn move_in(&mut self, candidate: &Candidate, first: Option<&Candidate>) {
        let is_first = first.is_some_and(|first| Arc::ptr_eq(&first.upstream, &candidate.upstream));
        self.moved_in = Some(!is_first);
        self.keep_home(CACHE_LIFE);
    }

    fn keep_home(&self, life: Duration) {
        let (Some(key), Some(is_away)) = (self.cache, self.moved_in) else { return };
        let home = self.upstream.as_ref().filter(|_| is_away);
        self.inference.upstreams.settle_at(key, home, self.inference.clock.instant() + life);
    }

    /// The answer that goes to the client.
    pub(super) fn serve(&mut self, upstream: Arc<Upstream>, answer: &Answer) {
        self.upstream = Some(upstream);
        self.served = Some(Served {
            status: answer.status(),
            request_id: answer.request_id().cloned(),
            cloud_request_id: answer.cloud_request_id().cloned(),
        });
    }

    pub(super) fn standing(&self) -> Option<&Standing> {
        self.reservation.as_ref()?.standing()
    }

    pub(super) fn saw_first_byte(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.inference.clock.instant());
        }
    }

    /// The answer has used this much so far.
    pub(super) fn grow(&mut self, seen: &Usage) {
        if let (Some(reservation), Some(upstream)) = (&mut self.reservation, &self.upstream) {
            reservation.grow(upstream.name(), seen);
        }
    }

    /// What to assume of an answer that says nothing of its usage.
    pub(super) fn expected(&self) -> Usage {
        self.reservation.as_ref().map(Reservation::expected).unwrap_or_default()
    }

    /// Nothing is charged when nothing of an answer came, unless an upstream had the whole request and was at work.
    fn charge_unanswered(&self) -> Charge {
        if self.sent.get() { Charge::Seen(self.expected()) } else { Charge::Nothing }
    }

    /// Closes it without an answer of an upstream. The surface answers `failure` with the status that is audited here.
    pub(super) fn refuse(&mut self, failure: &Failure) {
        if let Failure::Blocked { refusal, .. } = failure {
            self.open = false;
            return self.audit_block(refusal);
        }
        let (outcome, charge) = match failure {
            Failure::Stopping => (Outcome::Cut, self.charge_unanswered()),
            Failure::Overloaded { .. } | Failure::Exhausted { .. } => (Outcome::Error, Charge::Nothing),
            Failure::BodyCut | Failure::BodyStalled(_) => (Outcome::ClientAborted, Charge::Nothing),
            // Rejected for its own sake, or for want of a seat.
            _ => (Outcome::Rejected, Charge::Nothing),
        };
        if outcome == Outcome::Rejected {
            self.model = None;
        }
        self.upstream = self.upstream.take().filter(|_| !matches!(charge, Charge::Nothing));
        self.close(failure.status().as_u16(), outcome, charge);
    }

    /// Ends an answer that went to the client.
    pub(super) fn end(&mut self, outcome: Outcome, charge: Charge) {
        let status = self.served.as_ref().map_or(CLIENT_GONE, |served| served.status.as_u16());
        self.close(status, outcome, charge);
    }

    /// How an answer of its status ends.
    pub(super) fn outcome_of_status(&self) -> Outcome {
        let is_success = self.served.as_ref().is_some_and(|served| served.status.is_success());
        if is_success { Outcome::Complete } else { Outcome::Error }
    }

    /// Whether its end is still to be told.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Why it ends when nobody wants the answer any more.
    pub(super) fn abandoned(&self) -> Outcome {
        if self.inference.cut.is_cancelled() { Outcome::Cut } else { Outcome::ClientAborted }
    }

    fn close(&mut self, status: u16, outcome: Outcome, charge: Charge) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let charge = match charge {
            // A canned answer costs nothing, also when nobody waited for its end (contract B10).
            Charge::Seen(_) if self.inference.load_test.is_some() => Charge::Used(Usage::default()),
            charge => charge,
        };
        let ms = millis(self.since_received(self.inference.clock.instant()));
        let ttfb_ms = self.first_byte.map(|at| millis(self.since_received(at)));
        let (usage, estimated) = match charge {
            Charge::Nothing => (None, false),
            Charge::Used(usage) => (Some(usage), false),
            Charge::Seen(usage) => (Some(usage), true),
        };
        self.tried(outcome.as_str(), None);
        self.tell_upstream(outcome, usage.as_ref());
        self.seat = None;
        let reservation = self.reservation.take();
        let cost = match (reservation, usage, &self.upstream) {
            (None, _, _) => None,
            (Some(reservation), Some(usage), Some(upstream)) => {
                let (upstream, model_sent) = (upstream.name().to_owned(), self.model_sent.clone());
                Some(reservation.settle(Settlement { upstream, model_sent, usage, estimated, status, ms, ttfb_ms }))
            }
            (Some(reservation), _, _) => {
                reservation.release(status, ms);
                Some(Money::ZERO)
            }
        };
        let first = self.first_byte.map(|at| self.since_received(at));
        let total = self.since_received(self.inference.clock.instant());
        self.inference.meters.ended(self.endpoint.path(), outcome.as_str(), total, first);
        if let (Some(usage), Some(cost), Some(upstream), Some(model)) = (&usage, cost, &self.upstream, &self.model_sent)
        {
            self.inference.meters.charged(upstream.name(), model, usage, cost);
        }
        self.tell_end(&End { status, outcome, ms, ttfb_ms, usage, estimated, cost });
    }

    /// What its end says of the upstream, and of the cache that the session has there.
    fn tell_upstream(&self, outcome: Outcome, usage: Option<&Usage>) {
        let (Some(upstream), Some(model_id), Some(_)) = (&self.upstream, &self.model_sent, self.moved_in) else {
            return;
        };
        if outcome == Outcome::UpstreamAborted {
            upstream.broke_off(model_id);
        } else if let Some(usage) = usage {
            let is_long = usage.cache_creation_1h_tokens > 0;
            self.keep_home(if is_long { LONG_CACHE_LIFE } else { CACHE_LIFE });
        }
    }

    fn since_received(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.facts.received)
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        if self.open {
            let (outcome, charge) = (self.abandoned(), self.charge_unanswered());
            self.end(outcome, charge);
        }
    }
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientAborted => "client_aborted",
            Self::UpstreamAborted => "upstream_aborted",
            Self::Cut => "cut",
            Self::Error => "error",
            Self::Rejected => "rejected",
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
