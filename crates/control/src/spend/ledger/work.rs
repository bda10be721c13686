//! One transaction of the ledger: settlements first, because they make room, then what asks for room, then the leases.

mod balances;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use self::balances::{Balances, Deltas, account_key, account_keys, wanted};
use super::account::{Balance, Snapshot, Standing};
use super::batch::{Aside, Ask, Batch, Decision, Granted};
use super::lease::{self, Change, Held, LeaseKey, Leases};
use super::local::{self, Accounts};
use crate::identity::Principal;
use crate::spend::period::Keys;
use crate::spend::table::{self, Rows};
use crate::spend::{Caps, Money, Overshoot, Period, PoolInForce};
use crate::store::{Store, StoreError, Tx};

/// What was decided, and the accounts as they stand after it.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// In the order of the asks; `None`: it must wait.
    pub(super) verdicts: Vec<Option<Decision>>,
    pub(super) snapshots: Vec<(Arc<Principal>, Snapshot)>,
    /// What pools have spent, by account, and the month it is of.
    pub(super) pools: Vec<(Arc<str>, Arc<str>, Money)>,
}

#[derive(Debug, Default)]
struct Decided {
    verdicts: Vec<Option<Decision>>,
    granted: Vec<Aside>,
    /// Accounts that somebody waits for room in.
    crowded: HashSet<Arc<str>>,
}

/// A replica at work on one transaction.
pub(super) struct Work<'a> {
    pub(super) store: &'a Store,
    pub(super) caps: &'a Caps,
    pub(super) accounts: &'a Accounts,
    pub(super) leases: &'a mut Leases,
    pub(super) overshoot: Overshoot,
    /// Whether busy accounts are given leases.
    pub(super) may_lease: bool,
    pub(super) replica: &'a str,
    pub(super) now: Timestamp,
    /// The periods of now.
    pub(super) keys: Arc<Keys>,
    pub(super) instant: Instant,
    /// Whether the commit must be on the database's disk; a lazy one is with the next that must.
    pub(super) durable: bool,
    /// Until when this replica's reservations hold without being renewed.
    pub(super) expires_at: Timestamp,
}

impl Work<'_> {
    /// Commits the batch, decides the asks in order and brings the leases up to date, or does nothing.
    pub(super) async fn commit(mut self, batch: &Batch, asks: &[Ask]) -> Result<Decisions, StoreError> {
        let mut tx = if self.durable { self.store.begin().await? } else { self.store.begin_lazily().await? };
        let leases = self.leases_in_question(asks);
        if batch.is_empty() && asks.is_empty() && leases.is_empty() {
            // Something must be written for a commit to reach the disk.
            table::bump_revision(&mut tx, "ledger").await?;
        }
        let mut deltas = Deltas::new();
        let caps_revision = self.record_ends(&mut tx, batch, &mut deltas).await?;
        if !asks.is_empty() || !leases.is_empty() {
            self.caps.refresh_in_unless(&mut tx, caps_revision).await?;
        }
        self.record_reservations(&mut tx, batch, &mut deltas).await?;
        let pools: Vec<_> = asks.iter().map(|ask| self.caps.pools(&ask.record.principal)).collect();
        let mut balances =
            Balances::read(&mut tx, &mut deltas, &wanted(asks, &pools, &leases), asks.is_empty()).await?;
        let decided = self.decide(asks, &pools, &mut balances);
        decided.granted.iter().for_each(|aside| add_reserved(&mut deltas, aside));
        let changes = self.plan(leases, &decided.crowded, &balances);
        let written = self.write_leases(&mut tx, &changes, &mut deltas, &mut balances).await?;
        let reservations = self.reservation_rows(decided.granted.iter());
        table::finish(tx, reservations, written, &deltas).await?;
        self.hand_out(changes, &balances);
        let snapshots = balances.snapshots(asks, self.instant);
        Ok(Decisions { verdicts: decided.verdicts, snapshots, pools: balances.pools(asks, &pools) })
    }

    /// Those whose rows are out of date, and those of busy people who ask.
    fn leases_in_question(&self, asks: &[Ask]) -> HashMap<LeaseKey, Held> {
        let busy = |ask: &&Ask| self.may_lease && self.accounts.busy(&ask.record.principal, self.instant).is_some();
        let people = asks.iter().filter(busy).map(|ask| (&ask.record.account, &ask.record.keys, &ask.record.principal));
        self.leases.candidates(people)
    }

    /// Gives the revision of the caps too, which is asked for on the way.
    async fn record_ends(&self, tx: &mut Tx, batch: &Batch, deltas: &mut Deltas) -> Result<i64, StoreError> {
        let told = table::settle(tx, &batch.settles, &batch.withdrawn).await?;
        table::mark_late(tx, self.now, batch.settles.iter().map(|settle| settle.record.started_at)).await?;
        for settle in &batch.settles {
            let (charge, pool) = if told.new.contains(&settle.record.id) {
                (settle.outcome.charge, settle.pool.clone())
            } else {
                // Settled before: by the sweeper at the estimate, which the real charge replaces once; or by this very
                // settlement, when its commit was not heard of.
                table::replace_estimate(tx, settle).await?.unwrap_or_default()
            };
            for key in account_keys(&settle.record, pool.as_ref()) {
                let delta = deltas.entry(key).or_default();
                delta.settled = delta.settled.plus(charge);
            }
        }
        for ended in told.ended {
            ended.add_to(deltas, Money::ZERO.minus(ended.amount));
        }
        Ok(told.caps_revision)
    }

    /// What has begun, and what has become more than was set aside for it. An earlier attempt may have been committed
    /// unseen: only what is new is added.
    async fn record_reservations(&self, tx: &mut Tx, batch: &Batch, deltas: &mut Deltas) -> Result<(), StoreError> {
        let mut grown = batch.grows.clone();
        if !batch.admits.is_empty() {
            let new = table::insert_reservations(tx, &self.reservation_rows(batch.admits.values())).await?;
            for (id, aside) in &batch.admits {
                if new.contains(id) {
                    add_reserved(deltas, aside);
                } else {
                    // It may have grown since that attempt.
                    grown.insert(*id, aside.amount);
                }
            }
        }
        if !grown.is_empty() {
            for (reservation, by) in table::grow_reservations(tx, &grown).await? {
                reservation.add_to(deltas, by);
            }
        }
        Ok(())
    }

    fn reservation_rows<'a>(&self, reservations: impl Iterator<Item = &'a Aside>) -> Rows {
        Rows::of(reservations, |row, aside| table::write_reservation(row, aside, self.replica, self.expires_at))
    }

    /// First come, first served within an account: who must wait makes those behind wait too, or a large request would
    /// never find room among small ones. A request counts in the periods of its arrival, also when it waited past their end.
    fn decide(&self, asks: &[Ask], pools: &[Vec<PoolInForce>], balances: &mut Balances) -> Decided {
        let mut decided = Decided::default();
        for (ask, pools) in asks.iter().zip(pools) {
            let verdict = self.verdict(ask, pools, balances, &mut decided.crowded);
            if let Some(Decision::Granted(Granted { pool, .. })) = &verdict {
                let aside = Aside { record: Arc::clone(&ask.record), amount: ask.amount, pool: pool.clone() };
                balances.reserve(&aside);
                decided.granted.push(aside);
            }
            decided.verdicts.push(verdict);
        }
        decided
    }

    /// `None`: it must wait.
    fn verdict(
        &self,
        ask: &Ask,
        pools: &[PoolInForce],
        balances: &Balances,
        crowded: &mut HashSet<Arc<str>>,
    ) -> Option<Decision> {
        let (record, now) = (&*ask.record, ask.record.started_at);
        let in_force = self.caps.in_force(&record.principal);
        let snapshot = balances.snapshot(&record.account, &record.keys, self.instant);
        // One pool pays, the first that can; where none is left, the first is to blame.
        let spent = |pool: &PoolInForce| balances.pool(pool, &record.keys).settled;
        let open = pools.iter().filter(|pool| spent(pool) < pool.limit()).collect::<Vec<_>>();
        let exhausted = pools.first().filter(|_| open.is_empty());
        let exhausted = exhausted.map(|pool| Standing::of_pool(pool, spent(pool), now));
        let over = snapshot.over(&in_force, now).into_iter().chain(exhausted);
        if let Some(standing) = over.max_by_key(|standing| standing.resets_at) {
            return Some(Decision::Over(Box::new(standing)));
        }
        // Its caller has gone: nobody would settle it.
        if ask.reply.is_closed() {
            return Some(Decision::InFlight);
        }
        let mut pool = open.first().copied();
        if self.overshoot == Overshoot::None {
            let fitting =
                |pool: &&&PoolInForce| balances.pool(pool, &record.keys).admits_alone(pool.limit(), ask.amount);
            pool = open.iter().find(fitting).copied();
            let blamed = open.first().filter(|_| pool.is_none()).map(|pool| Standing::of_pool(pool, spent(pool), now));
            if let Some(standing) = snapshot.too_small(&in_force, ask.amount, now).or(blamed) {
                return Some(Decision::TooDear(Box::new(standing)));
            }
        }
        let fits = snapshot.admits(&in_force, ask.amount, self.overshoot, now)
            && pool
                .is_none_or(|pool| balances.pool(pool, &record.keys).admits(pool.limit(), ask.amount, self.overshoot));
        let accounts = || [Some(&record.account), pool.map(|pool| &pool.account)].into_iter().flatten();
        if !fits || accounts().any(|account| crowded.contains(account)) {
            crowded.extend(accounts().cloned());
            return (self.instant >= ask.deadline).then_some(Decision::InFlight);
        }
        let standing = snapshot.fullest(&in_force, now);
        Some(Decision::Granted(Granted { standing, pool: pool.map(|pool| Arc::clone(&pool.account)) }))
    }

    /// What becomes of leases. Room that is not to be had any more is taken back at once; more of it is handed out when the
    /// transaction is committed.
    fn plan(
        &mut self,
        leases: HashMap<LeaseKey, Held>,
        crowded: &HashSet<Arc<str>>,
        balances: &Balances,
    ) -> Vec<Change> {
        let plan = |(key, mut held): (LeaseKey, Held)| {
            let room = self.accounts.room(&held.principal, &key.1);
            let wanted = if crowded.contains(&key.0) { Money::ZERO } else { self.room(&key, &held, room, balances) };
            let back = self.accounts.take_back(&held.principal, &key.1, room.minus(wanted).max(Money::ZERO));
            self.leases.shrink(&key, back);
            let more = wanted.minus(room).max(Money::ZERO);
            let row = held.written;
            held.amount = held.amount.minus(back).plus(more);
            Change { key, held, row, more }
        };
        leases.into_iter().map(plan).collect()
    }

    fn room(&self, key: &LeaseKey, held: &Held, room: Money, balances: &Balances) -> Money {
        let in_force = self.caps.in_force(&held.principal);
        let heat = self.accounts.heat(&held.principal);
        let may = self.may_lease
            && !in_force.is_empty()
            && Arc::ptr_eq(&held.keys, &self.keys)
            // Which of them pays is decided for every request.
            && self.caps.pools(&held.principal).is_empty();
        let Some(heat) = heat.filter(|_| may) else { return Money::ZERO };
        // Its row is counted in the balance, and says more than is left of it. One that is not known may be gone.
        let used = held.written.unwrap_or_default().minus(held.amount);
        let snapshot = balances.snapshot(&key.0, &held.keys, self.instant);
        let headroom = snapshot.headroom(&in_force, self.now).plus(used);
        lease::room(&heat, room, room.plus(used.max(Money::ZERO)), headroom)
    }

    /// Writes those leases that changed, and counts them in their accounts; gives the rows to insert.
    async fn write_leases(
        &self,
        tx: &mut Tx,
        changes: &[Change],
        deltas: &mut Deltas,
        balances: &mut Balances,
    ) -> Result<Rows, StoreError> {
        let changed: Vec<&Change> = changes.iter().filter(|change| change.row != Some(change.held.amount)).collect();
        if changed.is_empty() {
            return Ok(Rows::none());
        }
        let rows = table::take_leases(tx, self.replica, changed.iter().map(|change| &change.key)).await?;
        for Change { key, held, .. } in &changed {
            let row = rows.get(key).copied().unwrap_or_default();
            let by = Balance { settled: Money::ZERO, reserved: held.amount.minus(row) };
            for period in Period::ALL {
                let key = account_key(&held.keys, period, &key.0);
                balances.rows.entry(key.clone()).or_default().add(by);
                deltas.entry(key).or_default().add(by);
            }
        }
        let kept = changed.iter().filter(|change| change.held.amount != Money::ZERO);
        Ok(Rows::of(kept, |row, Change { key, held, .. }| {
            table::write_lease(row, self.replica, &key.0, &held.keys, held.amount, self.expires_at);
        }))
    }

    fn hand_out(&mut self, changes: Vec<Change>, balances: &Balances) {
        let revision = self.caps.revision();
        for Change { key, held, more, .. } in changes {
            let snapshot = balances.snapshot(&key.0, &held.keys, self.instant);
            if held.amount == Money::ZERO {
                self.accounts.end(&held.principal, &key.1);
            } else {
                let in_force = self.caps.in_force(&held.principal);
                self.accounts.grant(local::Lease {
                    keys: Arc::clone(&held.keys),
                    principal: Arc::clone(&held.principal),
                    revision,
                    room: more,
                    standing: snapshot.fullest(&in_force, self.now).map(Arc::new),
                    used_at: self.instant,
                });
            }
            self.accounts.remember(&held.principal, snapshot);
            self.leases.settle(key, held);
        }
    }
}

fn add_reserved(deltas: &mut Deltas, aside: &Aside) {
    for key in account_keys(&aside.record, aside.pool.as_ref()) {
        let delta = deltas.entry(key).or_default();
        delta.reserved = delta.reserved.plus(aside.amount);
    }
}
