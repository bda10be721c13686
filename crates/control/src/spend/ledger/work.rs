//! One transaction of the ledger: settlements first, because they make room, then what asks for room, then the leases.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use super::account::{Balance, Snapshot};
use super::batch::{Ask, Batch, Decision, Record, Settle};
use super::lease::{self, Change, Held, LeaseKey, Leases};
use super::local::{self, Accounts};
use crate::identity::Principal;
use crate::spend::period::Keys;
use crate::spend::table::{self, AccountKey, Rows};
use crate::spend::{Caps, Money, Period};
use crate::store::{Store, StoreError, Tx};

/// What was decided, and the accounts as they stand after it.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// In the order of the asks; `None`: it must wait.
    pub(super) verdicts: Vec<Option<Decision>>,
    pub(super) snapshots: Vec<(Arc<Principal>, Snapshot)>,
}

/// Changes to accounts, in the order in which their rows are locked - the same in every replica.
type Deltas = BTreeMap<AccountKey, Balance>;

#[derive(Debug, Default)]
struct Decided {
    verdicts: Vec<Option<Decision>>,
    granted: Vec<(Arc<Record>, Money)>,
    /// Accounts that somebody waits for room in.
    crowded: HashSet<Arc<str>>,
}

/// A replica at work on one transaction.
pub(super) struct Work<'a> {
    pub(super) store: &'a Store,
    pub(super) caps: &'a Caps,
    pub(super) accounts: &'a Accounts,
    pub(super) leases: &'a mut Leases,
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
        let caps_revision = self.record_settlements(&mut tx, &batch.settles, &mut deltas).await?;
        if !asks.is_empty() || !leases.is_empty() {
            self.caps.refresh_in_unless(&mut tx, caps_revision).await?;
        }
        self.record_growth(&mut tx, &batch.grows, &mut deltas).await?;
        self.record_reservations(&mut tx, &batch.admits, &mut deltas).await?;
        let mut balances = Balances::read(&mut tx, &mut deltas, asks, &leases).await?;
        let decided = self.decide(asks, &mut balances);
        decided.granted.iter().for_each(|(record, amount)| add_reserved(&mut deltas, record, *amount));
        let changes = self.plan(leases, &decided.crowded, &balances);
        let written = self.write_leases(&mut tx, &changes, &mut deltas, &mut balances).await?;
        let reservations = self.reservation_rows(decided.granted.iter().map(|(record, amount)| (record, *amount)));
        table::finish(tx, reservations, written, &deltas).await?;
        self.hand_out(changes, &balances);
        Ok(Decisions { verdicts: decided.verdicts, snapshots: balances.snapshots(asks, self.instant) })
    }

    /// Those whose rows are out of date, and those of busy people who ask.
    fn leases_in_question(&self, asks: &[Ask]) -> HashMap<LeaseKey, Held> {
        let busy = |ask: &&Ask| self.may_lease && self.accounts.busy(&ask.record.principal, self.instant).is_some();
        let people = asks.iter().filter(busy).map(|ask| (&ask.record.account, &ask.record.keys, &ask.record.principal));
        self.leases.candidates(people)
    }

    /// Gives the revision of the caps too, which is asked for on the way.
    async fn record_settlements(
        &self,
        tx: &mut Tx,
        settles: &[Settle],
        deltas: &mut Deltas,
    ) -> Result<i64, StoreError> {
        let told = table::settle(tx, settles).await?;
        for settle in settles {
            let charge = if told.new.contains(&settle.record.id) {
                settle.outcome.charge
            } else {
                // Settled before: by the sweeper at the estimate, which the real charge replaces once; or by this very
                // settlement, when its commit was not heard of.
                table::replace_estimate(tx, settle).await?
            };
            for period in Period::ALL {
                let delta = deltas.entry(account_key(&settle.record.keys, period, &settle.record.account)).or_default();
                delta.settled = delta.settled.plus(charge);
            }
        }
        for ended in told.ended {
            ended.add_to(deltas, Money::ZERO.minus(ended.amount));
        }
        Ok(told.caps_revision)
    }

    async fn record_growth(
        &self,
        tx: &mut Tx,
        grows: &HashMap<Uuid, Money>,
        deltas: &mut Deltas,
    ) -> Result<(), StoreError> {
        if grows.is_empty() {
            return Ok(());
        }
        let rows = Rows::of(grows.iter(), |row, (id, by)| {
            row.id(*id);
            row.int(by.nano());
        });
        for grown in table::grow_reservations(tx, &rows).await? {
            let by = grows.get(&grown.id).copied().unwrap_or_default();
            grown.add_to(deltas, by);
        }
        Ok(())
    }

    async fn record_reservations(
        &self,
        tx: &mut Tx,
        reservations: &HashMap<Uuid, (Arc<Record>, Money)>,
        deltas: &mut Deltas,
    ) -> Result<(), StoreError> {
        if reservations.is_empty() {
            return Ok(());
        }
        // An earlier attempt may have been committed unseen: only what is new is added.
        let rows = self.reservation_rows(reservations.values().map(|(record, amount)| (record, *amount)));
        for id in table::insert_reservations(tx, &rows).await? {
            if let Some((record, amount)) = reservations.get(&id) {
                add_reserved(deltas, record, *amount);
            }
        }
        Ok(())
    }

    fn reservation_rows<'a>(&self, reservations: impl Iterator<Item = (&'a Arc<Record>, Money)>) -> Rows {
        Rows::of(reservations, |row, (record, amount)| {
            table::write_reservation(row, record, amount, self.replica, self.expires_at);
        })
    }

    /// First come, first served within an account: who must wait makes those behind wait too, or a large request would
    /// never find room among small ones. A request counts in the periods of its arrival, also when it waited past their end.
    fn decide(&self, asks: &[Ask], balances: &mut Balances) -> Decided {
        let mut decided = Decided::default();
        for ask in asks {
            let verdict = self.verdict(ask, balances, &mut decided.crowded);
            if matches!(verdict, Some(Decision::Granted(_))) {
                balances.reserve(&ask.record, ask.amount);
                decided.granted.push((Arc::clone(&ask.record), ask.amount));
            }
            decided.verdicts.push(verdict);
        }
        decided
    }

    fn verdict(&self, ask: &Ask, balances: &Balances, crowded: &mut HashSet<Arc<str>>) -> Option<Decision> {
        let (account, now) = (&ask.record.account, ask.record.started_at);
        let in_force = self.caps.in_force(&ask.record.principal);
        let snapshot = balances.snapshot(account, &ask.record.keys, self.instant);
        if let Some(standing) = snapshot.over(&in_force, now) {
            return Some(Decision::Over(Box::new(standing)));
        }
        // Its caller has gone: nobody would settle it.
        if ask.reply.is_closed() {
            return Some(Decision::InFlight);
        }
        if crowded.contains(account) || !snapshot.admits(&in_force, ask.amount, now) {
            crowded.insert(Arc::clone(account));
            return (self.instant >= ask.deadline).then_some(Decision::InFlight);
        }
        Some(Decision::Granted(snapshot.fullest(&in_force, now)))
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
        let Some(heat) = heat.filter(|_| self.may_lease && !in_force.is_empty() && Arc::ptr_eq(&held.keys, &self.keys))
        else {
            return Money::ZERO;
        };
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

fn add_reserved(deltas: &mut Deltas, record: &Record, amount: Money) {
    for period in Period::ALL {
        let delta = deltas.entry(account_key(&record.keys, period, &record.account)).or_default();
        delta.reserved = delta.reserved.plus(amount);
    }
}

/// The rows that a transaction is about.
#[derive(Debug, Default)]
struct Balances {
    rows: HashMap<AccountKey, Balance>,
}

impl Balances {
    /// The rows that are changed or asked about, as they stand once the changes are made; nobody else can change them until
    /// the transaction ends. None when nothing is to be decided: then the changes are made at the end.
    async fn read(
        tx: &mut Tx,
        deltas: &mut Deltas,
        asks: &[Ask],
        leases: &HashMap<LeaseKey, Held>,
    ) -> Result<Self, StoreError> {
        let of_leases = leases.iter().map(|(key, held)| (&held.keys, &key.0));
        let rows = if !asks.is_empty() {
            let asked = asks.iter().map(|ask| (&ask.record.keys, &ask.record.account)).chain(of_leases);
            let asked = asked.flat_map(|(keys, account)| Period::ALL.map(|period| account_key(keys, period, account)));
            lock(tx, deltas, asked).await?
        } else if !leases.is_empty() {
            for (keys, account) in of_leases {
                for period in Period::ALL {
                    deltas.entry(account_key(keys, period, account)).or_default();
                }
            }
            // As a rule nothing is left to change after that: one statement instead of two.
            table::change_accounts(tx, &std::mem::take(deltas)).await?
        } else {
            HashMap::new()
        };
        Ok(Self { rows })
    }

    fn snapshot(&self, account: &Arc<str>, keys: &Arc<Keys>, read_at: Instant) -> Snapshot {
        let balance = |period| self.rows.get(&account_key(keys, period, account)).copied();
        let balances = Period::ALL.map(|period| balance(period).unwrap_or_default());
        Snapshot { keys: Arc::clone(keys), balances, read_at }
    }

    fn reserve(&mut self, record: &Record, amount: Money) {
        for period in Period::ALL {
            let balance = self.rows.entry(account_key(&record.keys, period, &record.account)).or_default();
            balance.reserved = balance.reserved.plus(amount);
        }
    }

    fn snapshots(&self, asks: &[Ask], read_at: Instant) -> Vec<(Arc<Principal>, Snapshot)> {
        let accounts: HashMap<&str, &Record> = asks.iter().map(|ask| (&*ask.record.account, &*ask.record)).collect();
        let snapshot = |record: &Record| self.snapshot(&record.account, &record.keys, read_at);
        accounts.into_values().map(|record| (Arc::clone(&record.principal), snapshot(record))).collect()
    }
}

async fn lock(
    tx: &mut Tx,
    deltas: &Deltas,
    asked: impl Iterator<Item = AccountKey>,
) -> Result<HashMap<AccountKey, Balance>, StoreError> {
    let wanted: BTreeSet<AccountKey> = deltas.keys().cloned().chain(asked).collect();
    let mut rows = table::lock_accounts(tx, &wanted).await?;
    if rows.len() < wanted.len() {
        // The first spend of a period. Whoever else creates the row meanwhile, it is there then.
        let missing = wanted.iter().filter(|key| !rows.contains_key(*key));
        table::create_accounts(tx, missing).await?;
        rows = table::lock_accounts(tx, &wanted).await?;
    }
    for (key, delta) in deltas {
        rows.entry(key.clone()).or_default().add(*delta);
    }
    Ok(rows)
}

/// The key of an account's row.
fn account_key(keys: &Keys, period: Period, account: &Arc<str>) -> AccountKey {
    (Arc::clone(keys.key(period)), Arc::clone(account))
}
