//! Leaves a failing destination alone for a while (contract A11).

use std::time::{Duration, Instant};

/// How long a tripped destination is left alone.
pub(super) const REST: Duration = Duration::from_secs(30);
/// Failures in a row that trip it.
const FAILURES: u32 = 5;

/// Whether a destination may be posted to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Yes; it has failed so often in a row.
    Closed { failures: u32 },
    /// Not before then.
    Open { until: Instant },
    /// One post is finding out.
    Trying,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a post may go now; after a rest, one may.
    pub(super) fn lets_pass(&mut self, now: Instant) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { until } if now >= *until => {
                *self = Self::Trying;
                true
            }
            Self::Open { .. } | Self::Trying => false,
        }
    }

    /// A post arrived.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A post did not arrive; says whether that tripped it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        match self {
            Self::Closed { failures } if *failures + 1 < FAILURES => {
                *failures += 1;
                false
            }
            Self::Closed { .. } | Self::Trying => {
                *self = Self::Open { until: now + REST };
                true
            }
            // A straggler from before.
            Self::Open { .. } => false,
        }
    }

    /// The post that was let pass could not be sent for a reason of ours: the next one may try at once.
    pub(super) fn was_not_sent(&mut self, now: Instant) {
        if *self == Self::Trying {
            *self = Self::Open { until: now };
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests of a rule about instants need one to start from")]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_failure_in_a_row_trips_it_for_thirty_seconds() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            assert!(!breaker.failed(now) && breaker.lets_pass(now));
        }
        breaker.succeeded();
        assert_eq!([(); 5].map(|()| breaker.failed(now)), [false, false, false, false, true]);
        assert!(!breaker.lets_pass(now + REST - Duration::from_millis(1)));
        assert!(breaker.lets_pass(now + REST));
        assert!(!breaker.lets_pass(now + REST), "one post finds out");
    }

    #[test]
    fn after_the_rest_one_post_decides() {
        let (mut breaker, now) = (Breaker::Trying, Instant::now());
        assert!(!breaker.lets_pass(now), "only one at a time");
        assert!(breaker.failed(now), "one more failure trips it again");
        assert!(breaker.lets_pass(now + REST));
        breaker.succeeded();
        assert_eq!(breaker, Breaker::Closed { failures: 0 });
    }

    #[test]
    fn a_trial_that_could_not_be_sent_does_not_close_it_for_ever() {
        let (mut breaker, now) = (Breaker::Trying, Instant::now());
        breaker.was_not_sent(now);
        assert!(breaker.lets_pass(now));
    }
}
