//! A circuit: what recent attempts at one model of an upstream came to, and whether it rests because of them.
//!
//! Knows outcomes and times; what is told of them, and who asks, is its owner's matter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Nothing rests longer than this before it is tried again, whatever it or we said.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(300);

/// `upstreams[].breaker`: when a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// `consecutive_failures`: so many in a row open it.
    pub consecutive_failures: u32,
    /// `failure_percent`: such a share of the recent attempts opens it, ...
    pub failure_percent: u32,
    /// `minimum_requests`: ... once there are so many of them ...
    pub minimum_requests: u32,
    /// `window_seconds`: ... and recent means within this.
    pub window: Duration,
    /// `open_seconds`: how long it rests at first; twice as long after each failed trial, at most five minutes.
    pub open_for: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_percent: 50,
            minimum_requests: 20,
            window: Duration::from_secs(30),
            open_for: Duration::from_secs(10),
        }
    }
}

/// Why an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Usual,
    /// It finds out whether the rest is over.
    Probe,
    /// Nobody else is left.
    LastResort,
}

#[derive(Debug, Default)]
pub(super) struct Circuit {
    pub(super) state: State,
    /// Failures since the last success.
    pub(super) in_a_row: u32,
    pub(super) recent: Recent,
    /// Rests since the last success; each is longer than the one before.
    rests: u32,
    pub(super) told_open: bool,
    pub(super) opened: u64,
    pub(super) attempts: BTreeMap<&'static str, (u64, Duration)>,
    /// Tells those who wait for a connection that it has opened.
    pub(super) opening: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    /// A probe is on its way; the rest ended then.
    Probing {
        since: Instant,
    },
}

/// Outcomes of this window and the one before it.
#[derive(Debug, Default)]
pub(super) struct Recent {
    began: Option<Instant>,
    now: Outcomes,
    before: Outcomes,
}

#[derive(Debug, Default, Clone, Copy)]
struct Outcomes {
    all: u32,
    failed: u32,
}

impl Circuit {
    pub(super) fn is_failing(&self, breaker: &Breaker) -> bool {
        let recent = self.recent.sum();
        let share = u64::from(recent.failed) * 100 >= u64::from(recent.all) * u64::from(breaker.failure_percent);
        self.in_a_row >= breaker.consecutive_failures || (recent.all >= breaker.minimum_requests && share)
    }

    pub(super) fn longer_rest(&mut self, breaker: &Breaker) -> Duration {
        let doubled = breaker.open_for.saturating_mul(1 << self.rests.min(16));
        self.rests += 1;
        doubled.min(LONGEST_REST.max(breaker.open_for))
    }

    pub(super) fn open(&mut self, until: Instant) {
        self.state = State::Open { until };
        self.opened += 1;
        self.opening.notify_waiters();
    }

    pub(super) fn close(&mut self) {
        self.state = State::Closed;
        self.in_a_row = 0;
        self.rests = 0;
        self.recent = Recent::default();
    }

    /// A probe that found out nothing: the next request is one.
    pub(super) fn release(&mut self, kind: Kind) {
        if let (State::Probing { since }, Kind::Probe) = (self.state, kind) {
            self.state = State::Open { until: since };
        }
    }
}

impl Recent {
    pub(super) fn add(&mut self, now: Instant, window: Duration, failed: bool) {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        match age {
            Some(age) if age < window => {}
            Some(age) => {
                let is_next = age < window.saturating_mul(2);
                self.before = if is_next { self.now } else { Outcomes::default() };
                self.now = Outcomes::default();
                self.began = Some(now);
            }
            None => self.began = Some(now),
        }
        self.now.all += 1;
        self.now.failed += u32::from(failed);
    }

    /// A success that was counted and is none.
    pub(super) fn take_back(&mut self) {
        self.now.all = self.now.all.saturating_sub(1);
    }

    fn sum(&self) -> Outcomes {
        Outcomes { all: self.now.all + self.before.all, failed: self.now.failed + self.before.failed }
    }
}
