//! Pools: one budget that the members of a group share, set on the group's monthly cap (contract B7).
//!
//! Knows what a pool is and in which order pools are asked; what is spent from them is in the ledger's accounts.

use std::sync::Arc;

use serde_json::{Value, json};

use super::cap::{InForce, Scope};
use super::{Cap, Money, Period};

/// A pool as stored beside its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Whole US cents a month.
    pub cents: i64,
    /// Neither enforced nor metered.
    pub paused: bool,
}

/// What an administrator wants of a pool; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolChange {
    /// Whole US cents a month; without it, what has no pool gets none.
    pub cents: Option<i64>,
    /// A new pool is not paused unless this says so.
    pub paused: Option<bool>,
}

/// Why a cap cannot have a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// Members would have no limit of their own under the group's.
    #[error("pooled_budget: must be paused while amount is null; set amount too, or paused to true")]
    CapUnlimited,
}

/// A pool that counts for a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInForce {
    /// Whose budget it is.
    pub group: String,
    /// Its account.
    pub account: Arc<str>,
    /// In whole US cents, as set.
    pub cents: i64,
    /// The id of the cap it is set on.
    pub id: String,
}

impl Pool {
    /// What an administrative change and its log line say of it.
    #[must_use]
    pub fn to_json(self) -> Value {
        json!({"amount": self.cents.to_string(), "paused": self.paused})
    }
}

impl PoolChange {
    /// The pool that comes of it.
    pub(super) fn apply(self, before: Option<Pool>, cap_cents: Option<i64>) -> Result<Option<Pool>, PoolFault> {
        let Some(cents) = self.cents.or(before.map(|pool| pool.cents)) else { return Ok(None) };
        let paused = self.paused.or(before.map(|pool| pool.paused)).unwrap_or(false);
        Pool { cents, paused }.stands_beside(cap_cents).map(Some)
    }
}

impl Pool {
    /// The pool, if a cap of this amount may have it.
    pub(super) fn stands_beside(self, cap_cents: Option<i64>) -> Result<Self, PoolFault> {
        if cap_cents.is_none() && !self.paused { Err(PoolFault::CapUnlimited) } else { Ok(self) }
    }
}

impl PoolInForce {
    /// The pool of a cap; `None` without one, or while it is paused.
    pub(super) fn of(cap: &Cap) -> Option<Self> {
        let (Scope::Group(group), Some(pool)) = (&cap.scope, cap.pool) else { return None };
        let found = || Self { group: group.clone(), account: account_of(group), cents: pool.cents, id: cap.id.clone() };
        (!pool.paused).then(found)
    }

    /// The pool as a cap, for whoever is told of it.
    #[must_use]
    pub fn as_cap(&self) -> InForce {
        InForce {
            period: Period::Monthly,
            cents: self.cents,
            source: Scope::Group(self.group.clone()),
            shared: true,
            id: self.id.clone(),
        }
    }

    /// The pool as an amount; one beyond the ledger's range is the range's end.
    #[must_use]
    pub const fn limit(&self) -> Money {
        Money::from_cents(self.cents)
    }
}

impl Scope {
    /// Only a group's monthly cap can have a pool; only such a row says so.
    #[must_use]
    pub fn may_have_pool(&self, period: Period) -> bool {
        matches!((self, period), (Self::Group(_), Period::Monthly))
    }
}

/// The account of a group's pool; its rows are those of months.
pub(super) fn account_of(group: &str) -> Arc<str> {
    format!("pool:{group}").into()
}

/// In the order in which they are asked: the largest first, ties by the group's name.
pub(super) fn in_order(mut pools: Vec<PoolInForce>) -> Vec<PoolInForce> {
    pools.sort_by(|a, b| b.cents.cmp(&a.cents).then_with(|| a.group.cmp(&b.group)));
    pools.dedup();
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let before = Some(Pool { cents: 500, paused: true });
        let change = |cents, paused| PoolChange { cents, paused };
        assert_eq!(change(None, Some(false)).apply(before, Some(1)), Ok(Some(Pool { cents: 500, paused: false })));
        assert_eq!(change(Some(7), None).apply(before, Some(1)), Ok(Some(Pool { cents: 7, paused: true })));
        assert_eq!(change(Some(7), None).apply(None, Some(1)), Ok(Some(Pool { cents: 7, paused: false })));
        assert_eq!(change(None, Some(true)).apply(None, Some(1)), Ok(None));
    }

    #[test]
    fn a_pool_is_paused_while_its_cap_is_unlimited() {
        let change = PoolChange { cents: Some(7), paused: None };
        assert_eq!(change.apply(None, None), Err(PoolFault::CapUnlimited));
        let paused = PoolChange { paused: Some(true), ..change };
        assert_eq!(paused.apply(None, None), Ok(Some(Pool { cents: 7, paused: true })));
    }

    #[test]
    fn the_largest_pool_is_asked_first_and_of_equal_ones_the_first_by_name() {
        let pool = |group: &str, cents| PoolInForce {
            group: group.to_owned(),
            account: account_of(group),
            cents,
            id: String::new(),
        };
        let sorted = in_order(vec![pool("eng", 2), pool("contractors", 2), pool("big", 1000), pool("eng", 2)]);
        let names: Vec<&str> = sorted.iter().map(|pool| pool.group.as_str()).collect();
        assert_eq!(names, ["big", "contractors", "eng"]);
    }
}
