//! What this replica knows of the accounts of the people it has met lately, asked by every request: their names, how they
//! stood when last looked at, how busy they are, and the room that leases give them here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::account::{Snapshot, Standing};
use super::account_of;
use crate::identity::Principal;
use crate::spend::period::Keys;
use crate::spend::{Money, Period};

/// Requests within a second that make an account busy enough for a lease.
const BUSY: u32 = 8;
const SECOND: Duration = Duration::from_secs(1);
/// Who has not been met for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// A lease that nobody used for so long is given back.
const IDLE: Duration = Duration::from_secs(1);

/// The accounts, by the subject of their principal.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Box<str>, Known>,
    /// What pools have spent, by account: in which month, how much, and when that was read.
    pools: HashMap<Arc<str>, (Arc<str>, Money, Instant)>,
    /// Until when leases may be used: well before another replica could sweep them.
    leases_until: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    account: Arc<str>,
    snapshot: Option<Snapshot>,
    heat: Heat,
    lease: Option<Lease>,
    met_at: Instant,
}

/// Room to admit without asking the database.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) keys: Arc<Keys>,
    /// By whose caps it was measured: a bearer of the same person with other groups may have others.
    pub(super) principal: Arc<Principal>,
    /// The revision of the caps that it was measured by.
    pub(super) revision: i64,
    pub(super) room: Money,
    /// As of the last transaction.
    pub(super) standing: Option<Arc<Standing>>,
    pub(super) used_at: Instant,
}

/// What is asked about one request.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) principal: &'a Principal,
    pub(super) keys: &'a Arc<Keys>,
    /// Of the caps, as they are known now.
    pub(super) revision: i64,
    pub(super) amount: Money,
    pub(super) now: Instant,
}

/// How much an account was asked for, within a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heat {
    since: Instant,
    count: u32,
    cost: Money,
    before: (u32, Money),
    /// The last request's.
    pub(super) amount: Money,
}

impl Accounts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a principal's account.
    pub(super) fn name(&self, principal: &Principal, now: Instant) -> Arc<str> {
        self.state().meet(principal, now, |known| Arc::clone(&known.account))
    }

    /// The name of a principal's account, and the standing when a lease has room for the request, which is then taken.
    pub(super) fn admit(&self, wanted: &Wanted<'_>) -> (Arc<str>, Option<Option<Arc<Standing>>>) {
        let mut state = self.state();
        let in_time = state.leases_until.is_some_and(|until| wanted.now < until);
        state.meet(wanted.principal, wanted.now, |known| {
            known.heat.count(wanted.amount, wanted.now);
            let lease = known.lease.as_mut().filter(|lease| in_time && lease.serves(wanted));
            let standing = lease.map(|lease| {
                lease.room = lease.room.minus(wanted.amount);
                lease.used_at = wanted.now;
                lease.standing.clone()
            });
            (Arc::clone(&known.account), standing)
        })
    }

    /// Whether a lease would admit a principal, for all that is known before its request is read.
    pub(super) fn is_leased(&self, principal: &Principal, keys: &Arc<Keys>, revision: i64, now: Instant) -> bool {
        let state = self.state();
        let wanted = Wanted { principal, keys, revision, amount: Money::from_nano(1), now };
        let lease = state.known.get(&*principal.sub).and_then(|known| known.lease.as_ref());
        state.leases_until.is_some_and(|until| now < until) && lease.is_some_and(|lease| lease.serves(&wanted))
    }

    pub(super) fn snapshot(&self, principal: &Principal) -> Option<Snapshot> {
        self.state().known.get(&*principal.sub)?.snapshot.clone()
    }

    pub(super) fn remember(&self, principal: &Principal, snapshot: Snapshot) {
        let now = snapshot.read_at;
        self.state().meet(principal, now, |known| known.snapshot = Some(snapshot));
    }

    /// What a pool has spent in a month, and when that was read.
    pub(super) fn pool(&self, account: &str, month: &str) -> Option<(Money, Instant)> {
        let state = self.state();
        let (of, settled, read_at) = state.pools.get(account)?;
        (**of == *month).then_some((*settled, *read_at))
    }

    pub(super) fn remember_pool(&self, account: Arc<str>, month: Arc<str>, settled: Money, read_at: Instant) {
        self.state().pools.insert(account, (month, settled, read_at));
    }

    /// How busy a principal is, when that is enough for a lease.
    pub(super) fn busy(&self, principal: &Principal, now: Instant) -> Option<Heat> {
        let heat = self.state().known.get(&*principal.sub)?.heat;
        heat.is_busy(now).then_some(heat)
    }

    /// How busy a principal was last.
    pub(super) fn heat(&self, principal: &Principal) -> Option<Heat> {
        self.state().known.get(&*principal.sub).map(|known| known.heat)
    }

    /// The room of a principal's lease of the day.
    pub(super) fn room(&self, principal: &Principal, day: &str) -> Money {
        self.state().lease(principal, day).map_or(Money::ZERO, |lease| lease.room)
    }

    /// Takes back as much room as there is, up to `most`.
    pub(super) fn take_back(&self, principal: &Principal, day: &str, most: Money) -> Money {
        let mut state = self.state();
        let Some(lease) = state.lease(principal, day) else { return Money::ZERO };
        let taken = lease.room.min(most);
        lease.room = lease.room.minus(taken);
        taken
    }

    /// Puts a lease in place of the one there is, whose room it takes over when it is of the same day.
    pub(super) fn grant(&self, mut lease: Lease) {
        let principal = Arc::clone(&lease.principal);
        self.state().meet(&principal, lease.used_at, |known| {
            let same_day = |old: &Lease| old.keys.key(Period::Daily) == lease.keys.key(Period::Daily);
            if let Some(old) = known.lease.take().filter(same_day) {
                lease.room = lease.room.plus(old.room);
                lease.used_at = old.used_at;
            }
            known.lease = Some(lease);
        });
    }

    /// Forgets a lease that has no room any more.
    pub(super) fn end(&self, principal: &Principal, day: &str) {
        let mut state = self.state();
        if state.lease(principal, day).is_some_and(|lease| lease.room == Money::ZERO)
            && let Some(known) = state.known.get_mut(&*principal.sub)
        {
            known.lease = None;
        }
    }

    /// Whether nobody has used a principal's lease lately.
    pub(super) fn is_idle(&self, principal: &Principal, day: &str, now: Instant) -> bool {
        self.state().lease(principal, day).is_none_or(|lease| now.saturating_duration_since(lease.used_at) > IDLE)
    }

    /// Leases may be used until then.
    pub(super) fn hold_leases_until(&self, until: Instant) {
        self.state().leases_until = Some(until);
    }

    /// Until when they may be.
    #[cfg(test)]
    pub(super) fn leases_until(&self) -> Option<Instant> {
        self.state().leases_until
    }

    /// Forgets who has not been met for long.
    pub(super) fn forget(&self, now: Instant) {
        let met = |known: &Known| now.saturating_duration_since(known.met_at) < FORGET;
        self.state().known.retain(|_, known| known.lease.is_some() || met(known));
    }
}

impl State {
    fn meet<T>(&mut self, principal: &Principal, now: Instant, with: impl FnOnce(&mut Known) -> T) -> T {
        let known = match self.known.get_mut(&*principal.sub) {
            Some(known) => known,
            None => self.known.entry(principal.sub.as_str().into()).or_insert_with(|| Known {
                account: account_of(principal),
                snapshot: None,
                heat: Heat::at(now),
                lease: None,
                met_at: now,
            }),
        };
        known.met_at = now;
        with(known)
    }

    fn lease(&mut self, principal: &Principal, day: &str) -> Option<&mut Lease> {
        let lease = self.known.get_mut(&*principal.sub)?.lease.as_mut()?;
        (**lease.keys.key(Period::Daily) == *day).then_some(lease)
    }
}

impl Lease {
    fn serves(&self, wanted: &Wanted<'_>) -> bool {
        self.revision == wanted.revision
            && Arc::ptr_eq(&self.keys, wanted.keys)
            && self.room >= wanted.amount
            && self.principal.groups == wanted.principal.groups
    }
}

impl Heat {
    fn at(now: Instant) -> Self {
        Self { since: now, count: 0, cost: Money::ZERO, before: (0, Money::ZERO), amount: Money::ZERO }
    }

    fn count(&mut self, amount: Money, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= SECOND {
            let before = if age < 2 * SECOND { (self.count, self.cost) } else { (0, Money::ZERO) };
            *self = Self { before, ..Self::at(now) };
        }
        self.count += 1;
        self.cost = self.cost.plus(amount);
        self.amount = amount;
    }

    fn is_busy(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < 2 * SECOND && self.count.max(self.before.0) >= BUSY
    }

    /// What is asked for in about a second, and several requests at the least.
    pub(super) fn wanted(&self) -> Money {
        let several = Money::from_nano(self.amount.nano().saturating_mul(i64::from(BUSY)));
        self.cost.max(self.before.1).max(several)
    }
}
