//! Leases: slices of the headroom of busy accounts that are far from every cap, reserved like any reservation, from which this
//! replica admits without asking the database.
//!
//! The writer alone changes them. What a lease's row should say is known here as an amount and not as a change, so that a
//! transaction that is tried again, its commit heard of or not, says the same twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::local::{Accounts, Heat};
use crate::identity::Principal;
use crate::spend::period::Keys;
use crate::spend::{Money, Period};

/// An account and the day that it holds for.
pub(in crate::spend) type LeaseKey = (Arc<str>, Arc<str>);

/// A lease is at most this part of the smallest headroom: however many replicas take one, something is left.
const PART: i64 = 16;
/// It is worth its while from so many requests on.
const LEAST: i64 = 4;

/// The leases of this replica.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: HashMap<LeaseKey, Held>,
    /// Whose rows do not say what they should.
    stale: HashSet<LeaseKey>,
}

/// One lease.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) keys: Arc<Keys>,
    pub(super) principal: Arc<Principal>,
    /// The room left to admit from, and what was admitted but is not in the batch yet: what its row should say.
    pub(super) amount: Money,
    /// What its row says; `None` when that is not known, because a transaction failed.
    pub(super) written: Option<Money>,
}

/// What a transaction makes of a lease.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: LeaseKey,
    pub(super) held: Held,
    /// What its row says before it; `None` when that is not known.
    pub(super) row: Option<Money>,
    /// Given to the lease once the transaction is committed.
    pub(super) more: Money,
}

impl Leases {
    /// Whether a transaction is wanted for their sake.
    pub(super) fn are_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// How many there are, and what they hold.
    pub(super) fn sum(&self) -> (u64, Money) {
        (self.held.len() as u64, self.held.values().fold(Money::ZERO, |sum, held| sum.plus(held.amount)))
    }

    /// How many rows there are, as far as anyone knows.
    pub(super) fn rows(&self) -> u64 {
        let written = |held: &&Held| held.written.is_some_and(|written| written != Money::ZERO);
        self.held.values().filter(written).count() as u64
    }

    /// What was admitted from a lease is in the batch from now on.
    pub(super) fn use_up(&mut self, account: &Arc<str>, keys: &Keys, amount: Money) {
        let key = (Arc::clone(account), Arc::clone(keys.key(Period::Daily)));
        if let Some(held) = self.held.get_mut(&key) {
            held.amount = held.amount.minus(amount).max(Money::ZERO);
            self.stale.insert(key);
        }
    }

    /// Gives back what nobody uses, or can use any more; everything when `all`, which nobody can use from then on.
    pub(super) fn give_back(&mut self, accounts: &Accounts, current: &Keys, now: Instant, all: bool) {
        for (key, held) in &mut self.held {
            if all || *held.keys != *current || accounts.is_idle(&held.principal, &key.1, now) {
                let back = accounts.take_back(&held.principal, &key.1, Money::MAX);
                held.amount = if all { Money::ZERO } else { held.amount.minus(back) };
                self.stale.insert(key.clone());
            }
        }
    }

    /// Nobody knows any more what the rows say.
    pub(super) fn doubt(&mut self) {
        for (key, held) in &mut self.held {
            held.written = None;
            self.stale.insert(key.clone());
        }
    }

    /// Those whose rows do not say what they should, and those that these people have or should have.
    pub(super) fn candidates<'a>(
        &self,
        people: impl Iterator<Item = (&'a Arc<str>, &'a Arc<Keys>, &'a Arc<Principal>)>,
    ) -> HashMap<LeaseKey, Held> {
        let mut found: HashMap<LeaseKey, Held> =
            self.stale.iter().filter_map(|key| Some((key.clone(), self.held.get(key)?.clone()))).collect();
        for (account, keys, principal) in people {
            let key = (Arc::clone(account), Arc::clone(keys.key(Period::Daily)));
            let new = || Held {
                keys: Arc::clone(keys),
                principal: Arc::clone(principal),
                amount: Money::ZERO,
                written: Some(Money::ZERO),
            };
            let held = found.entry(key.clone()).or_insert_with(|| self.held.get(&key).cloned().unwrap_or_else(new));
            // The caps that count are those of who asked last.
            held.principal = Arc::clone(principal);
        }
        found
    }

    /// A transaction has taken room back from a lease.
    pub(super) fn shrink(&mut self, key: &LeaseKey, by: Money) {
        if let Some(held) = self.held.get_mut(key) {
            held.amount = held.amount.minus(by);
        }
    }

    /// The rows say now what the changes say.
    pub(super) fn settle(&mut self, key: LeaseKey, held: Held) {
        self.stale.remove(&key);
        if held.amount == Money::ZERO {
            self.held.remove(&key);
        } else {
            self.held.insert(key, Held { written: Some(held.amount), ..held });
        }
    }
}

/// How much room a lease should have that has `room` and would have `again` with what was used of it replaced; `headroom` is
/// the smallest of its account's.
pub(super) fn room(heat: &Heat, room: Money, again: Money, headroom: Money) -> Money {
    let slice = Money::from_nano(headroom.plus(room).nano() / PART);
    if slice.nano() / LEAST < heat.amount.nano() {
        return Money::ZERO;
    }
    let wanted = heat.wanted();
    let enough = wanted.nano() / 2 <= again.nano() && again.nano() / 4 <= wanted.nano();
    // Left as it is, its row need not be written.
    if enough && again <= slice { again } else { wanted.plus(wanted).min(slice) }
}
