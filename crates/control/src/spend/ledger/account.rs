//! What is known of an account, and what follows from it under caps.

use std::time::Instant;

use jiff::Timestamp;

use super::super::cap::InForce;
use super::super::period::Keys;
use super::super::{Money, Overshoot, Period, PoolInForce};

/// Where a principal stands against one of its caps, before a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The cap.
    pub cap: InForce,
    /// Spent in its period.
    pub spent: Money,
    /// When the period ends.
    pub resets_at: Timestamp,
}

/// One row of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::spend) struct Balance {
    pub(in crate::spend) settled: Money,
    pub(in crate::spend) reserved: Money,
}

impl Balance {
    pub(in crate::spend) fn add(&mut self, other: Self) {
        self.settled = self.settled.plus(other.settled);
        self.reserved = self.reserved.plus(other.reserved);
    }
}

/// An account's rows as last read.
#[derive(Debug, Clone)]
pub(in crate::spend) struct Snapshot {
    pub(in crate::spend) keys: std::sync::Arc<Keys>,
    /// By [`Period`].
    pub(in crate::spend) balances: [Balance; 3],
    pub(in crate::spend) read_at: Instant,
}

impl Snapshot {
    /// The balance of a period that is still running at `now`.
    fn balance(&self, period: Period, now: Timestamp) -> Balance {
        if self.keys.holds(period, now) { self.balances[period as usize] } else { Balance::default() }
    }

    fn standing(&self, cap: &InForce, now: Timestamp) -> Standing {
        let spent = self.balance(cap.period, now).settled;
        Standing { cap: cap.clone(), spent, resets_at: cap.period.ends(now) }
    }

    /// The exhausted cap that resets last.
    pub(in crate::spend) fn over(&self, in_force: &[InForce], now: Timestamp) -> Option<Standing> {
        let exhausted = in_force.iter().map(|cap| self.standing(cap, now)).filter(Standing::is_exhausted);
        exhausted.max_by_key(|standing| standing.resets_at)
    }

    /// The fullest cap.
    pub(super) fn fullest(&self, in_force: &[InForce], now: Timestamp) -> Option<Standing> {
        in_force.iter().map(|cap| self.standing(cap, now)).max_by(|a, b| a.compare_fullness(b))
    }

    /// What is left under the cap that leaves least; below nothing when one is passed.
    pub(super) fn headroom(&self, in_force: &[InForce], now: Timestamp) -> Money {
        let left = in_force.iter().map(|cap| {
            let Balance { settled, reserved } = self.balance(cap.period, now);
            cap.limit().minus(settled).minus(reserved)
        });
        left.min().unwrap_or(Money::MAX)
    }

    /// Whether `amount` more fits under every cap.
    pub(super) fn admits(&self, in_force: &[InForce], amount: Money, mode: Overshoot, now: Timestamp) -> bool {
        in_force.iter().all(|cap| self.balance(cap.period, now).admits(cap.limit(), amount, mode))
    }

    /// A cap under which `amount` does not even fit alone.
    pub(super) fn too_small(&self, in_force: &[InForce], amount: Money, now: Timestamp) -> Option<Standing> {
        let small = |cap: &&InForce| !self.balance(cap.period, now).admits_alone(cap.limit(), amount);
        in_force.iter().find(small).map(|cap| self.standing(cap, now))
    }
}

impl Balance {
    /// Whether `amount` more fits beside what is settled and in flight. With a bounded overshoot also when nothing is in
    /// flight: then the one request may pass the limit, by what it costs beyond.
    pub(super) fn admits(self, limit: Money, amount: Money, mode: Overshoot) -> bool {
        let alone = mode == Overshoot::Bounded && self.settled < limit && self.reserved == Money::ZERO;
        alone || self.settled.plus(self.reserved).plus(amount) <= limit
    }

    /// Whether `amount` more would fit with nothing in flight.
    pub(super) fn admits_alone(self, limit: Money, amount: Money) -> bool {
        self.settled.plus(amount) <= limit
    }
}

impl Standing {
    /// Where a pool stands.
    pub(in crate::spend) fn of_pool(pool: &PoolInForce, spent: Money, now: Timestamp) -> Self {
        Self { cap: pool.as_cap(), spent, resets_at: Period::Monthly.ends(now) }
    }

    /// Whether the cap is reached.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.spent >= self.cap.limit()
    }

    /// Which of two caps is used up further.
    pub(in crate::spend) fn compare_fullness(&self, other: &Self) -> std::cmp::Ordering {
        let cross = |a: &Self, b: &Self| i128::from(a.spent.nano()) * i128::from(b.cap.limit().nano());
        cross(self, other).cmp(&cross(other, self))
    }
}
