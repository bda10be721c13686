//! One transaction of the ledger: settlements first, because they make room, then what asks for room.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use wire::catalog::Model;
use wire::usage::Usage;

use super::Origin;
use super::account::{Balance, Snapshot, Standing};
use crate::identity::Principal;
use crate::spend::period::Keys;
use crate::spend::table::{self, AccountKey, Rows};
use crate::spend::{Caps, Money, Period};
use crate::store::{Store, StoreError, Tx};

/// What the ledger knows of a request from its admission on.
#[derive(Debug)]
pub(in crate::spend) struct Record {
    pub(in crate::spend) id: Uuid,
    pub(in crate::spend) account: Arc<str>,
    pub(in crate::spend) principal: Arc<Principal>,
    pub(in crate::spend) model: Arc<Model>,
    pub(in crate::spend) origin: Origin,
    pub(in crate::spend) body_bytes: u64,
    pub(in crate::spend) started_at: Timestamp,
    /// The periods that it counts in, whenever it ends.
    pub(in crate::spend) keys: Arc<Keys>,
}

/// How a request ended, as the usage row keeps it.
#[derive(Debug, Clone, Default)]
pub(in crate::spend) struct Outcome {
    pub(in crate::spend) upstream: Option<String>,
    pub(in crate::spend) model_sent: Option<String>,
    pub(in crate::spend) status: Option<u16>,
    pub(in crate::spend) usage: Usage,
    pub(in crate::spend) charge: Money,
    pub(in crate::spend) estimated: bool,
    pub(in crate::spend) ms: Option<u64>,
    pub(in crate::spend) ttfb_ms: Option<u64>,
}

#[derive(Debug)]
pub(in crate::spend) struct Settle {
    pub(in crate::spend) record: Arc<Record>,
    pub(in crate::spend) outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) record: Arc<Record>,
    pub(super) amount: Money,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Verdict>,
}

/// A yes on its way to the caller. One that is never taken - the caller went away before it heard - is given back: nothing was
/// sent, nothing is owed, and nobody else would end the reservation.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) record: Option<Arc<Record>>,
    pub(super) standing: Option<Standing>,
    pub(super) entries: mpsc::UnboundedSender<Entry>,
}

impl Grant {
    /// Hands it to the caller, who ends the reservation.
    pub(super) fn take(mut self) -> Option<Standing> {
        self.record = None;
        self.standing.take()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            // Fails only once the writer has ended, after everything was settled.
            let _ = self.entries.send(Entry::Settle(Settle { record, outcome: Outcome::default() }));
        }
    }
}

/// What is answered to an ask.
#[derive(Debug)]
pub(super) enum Verdict {
    Granted(Grant),
    Over(Box<Standing>),
    InFlight,
    Unavailable,
}

/// What is decided about an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Granted(Option<Standing>),
    Over(Box<Standing>),
    InFlight,
}

#[derive(Debug)]
pub(super) enum Entry {
    /// May it spend? Answered once the answer is in the database.
    Ask(Ask),
    /// It spends and needs no leave.
    Admit { record: Arc<Record>, amount: Money },
    /// It has cost more than was set aside.
    Grow { id: Uuid, by: Money },
    /// It has ended.
    Settle(Settle),
    /// Answered once everything before it is in the database.
    Flush(oneshot::Sender<()>),
}

/// What one transaction takes on. Kept until it is committed, so that a failed one can be tried again whole: every
/// statement of it gives the same result when an earlier attempt was committed unseen.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) settles: Vec<Settle>,
    pub(super) grows: HashMap<Uuid, Money>,
    pub(super) admits: Vec<(Arc<Record>, Money)>,
}

/// What was decided, and the accounts as they stand after it.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// In the order of the asks; `None`: it must wait.
    pub(super) verdicts: Vec<Option<Decision>>,
    pub(super) snapshots: Vec<(Arc<str>, Snapshot)>,
}

/// Changes to accounts, in the order in which their rows are locked - the same in every replica.
type Deltas = BTreeMap<AccountKey, Balance>;

/// The verdicts, and what was granted.
type Decided = (Vec<Option<Decision>>, Vec<(Arc<Record>, Money)>);

/// A replica at work on one transaction.
pub(super) struct Work<'a> {
    pub(super) store: &'a Store,
    pub(super) caps: &'a Caps,
    pub(super) replica: &'a str,
    pub(super) instant: Instant,
    /// Whether the commit must be on the database's disk; a lazy one is with the next that must.
    pub(super) durable: bool,
    /// Until when this replica's reservations hold without being renewed.
    pub(super) expires_at: Timestamp,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.settles.len() + self.grows.len() + self.admits.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch in batches of one entry each.
    pub(super) fn split(self) -> Vec<Self> {
        let settles = self.settles.into_iter().map(|settle| Self { settles: vec![settle], ..Self::default() });
        let grows = self.grows.into_iter().map(|grow| Self { grows: HashMap::from([grow]), ..Self::default() });
        let admits = self.admits.into_iter().map(|admit| Self { admits: vec![admit], ..Self::default() });
        settles.chain(grows).chain(admits).collect()
    }

    /// Takes on what another batch holds.
    pub(super) fn join(&mut self, other: Self) {
        self.settles.extend(other.settles);
        self.admits.extend(other.admits);
        for (id, by) in other.grows {
            self.grow(id, by);
        }
    }

    /// The ids it is about, for the log.
    pub(super) fn describe(&self) -> String {
        let settles = self.settles.iter().map(|settle| format!("settlement {}", settle.record.id));
        let grows = self.grows.keys().map(|id| format!("growth of {id}"));
        let admits = self.admits.iter().map(|(record, _)| format!("reservation {}", record.id));
        settles.chain(grows).chain(admits).collect::<Vec<_>>().join(", ")
    }

    /// Takes an entry that needs no answer.
    pub(super) fn admit(&mut self, record: Arc<Record>, amount: Money) {
        self.admits.push((record, amount));
    }

    pub(super) fn grow(&mut self, id: Uuid, by: Money) {
        // Not yet recorded: then it is recorded at its new size.
        if let Some((_, amount)) = self.admits.iter_mut().rev().find(|(record, _)| record.id == id) {
            *amount = amount.plus(by);
        } else {
            let grown = self.grows.entry(id).or_default();
            *grown = grown.plus(by);
        }
    }

    pub(super) fn settle(&mut self, settle: Settle) {
        // What is over before it was recorded needs no reservation any more.
        let id = settle.record.id;
        self.grows.remove(&id);
        if let Some(index) = self.admits.iter().rposition(|(record, _)| record.id == id) {
            self.admits.swap_remove(index);
        }
        self.settles.push(settle);
    }
}

impl Work<'_> {
    /// Commits the batch and decides the asks, in order, or does nothing.
    pub(super) async fn commit(&self, batch: &Batch, asks: &[Ask]) -> Result<Decisions, StoreError> {
        let mut tx = if self.durable { self.store.begin().await? } else { self.store.begin_lazily().await? };
        if batch.is_empty() && asks.is_empty() {
            // Something must be written for a commit to reach the disk.
            table::bump_revision(&mut tx, "ledger").await?;
        }
        let mut deltas = Deltas::new();
        let caps_revision = self.record_settlements(&mut tx, &batch.settles, &mut deltas).await?;
        if !asks.is_empty() {
            self.caps.refresh_in_unless(&mut tx, caps_revision).await?;
        }
        self.record_growth(&mut tx, &batch.grows, &mut deltas).await?;
        self.record_reservations(&mut tx, &batch.admits, &mut deltas).await?;
        let mut accounts = Accounts::lock(&mut tx, &deltas, asks).await?;
        let (verdicts, granted) = self.decide(asks, &mut accounts);
        granted.iter().for_each(|(record, amount)| add_reserved(&mut deltas, record, *amount));
        table::finish(tx, self.reservation_rows(&granted), &deltas).await?;
        let snapshots = accounts.snapshots(asks, self.instant);
        Ok(Decisions { verdicts, snapshots })
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
            let charge = if told.new.contains(&settle.record.id.to_string()) {
                settle.outcome.charge
            } else {
                // Settled before: by the sweeper at the estimate, which the real charge replaces once; or by this very
                // settlement, when its commit was not heard of.
                table::replace_estimate(tx, settle).await?
            };
            for period in Period::ALL {
                let delta = deltas.entry(row(&settle.record.keys, period, &settle.record.account)).or_default();
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
        reservations: &[(Arc<Record>, Money)],
        deltas: &mut Deltas,
    ) -> Result<(), StoreError> {
        if reservations.is_empty() {
            return Ok(());
        }
        // An earlier attempt may have been committed unseen: only what is new is added.
        let new = table::insert_reservations(tx, &self.reservation_rows(reservations)).await?;
        for (record, amount) in reservations.iter().filter(|(record, _)| new.contains(&record.id.to_string())) {
            add_reserved(deltas, record, *amount);
        }
        Ok(())
    }

    fn reservation_rows(&self, reservations: &[(Arc<Record>, Money)]) -> Rows {
        Rows::of(reservations.iter(), |row, (record, amount)| {
            table::write_reservation(row, record, *amount, self.replica, self.expires_at);
        })
    }

    /// First come, first served within an account: who must wait makes those behind wait too, or a large request would
    /// never find room among small ones. A request counts in the periods of its arrival, also when it waited past their end.
    fn decide(&self, asks: &[Ask], accounts: &mut Accounts) -> Decided {
        let mut waiting: HashSet<&str> = HashSet::new();
        let mut granted = Vec::new();
        let verdicts = asks.iter().map(|ask| {
            let (account, now) = (&*ask.record.account, ask.record.started_at);
            let in_force = self.caps.in_force(&ask.record.principal);
            let snapshot = accounts.snapshot(&ask.record, self.instant);
            if let Some(standing) = snapshot.over(&in_force, now) {
                return Some(Decision::Over(Box::new(standing)));
            }
            // Its caller has gone: nobody would settle it.
            if ask.reply.is_closed() {
                return Some(Decision::InFlight);
            }
            if waiting.contains(account) || !snapshot.admits(&in_force, ask.amount, now) {
                waiting.insert(account);
                return (self.instant >= ask.deadline).then_some(Decision::InFlight);
            }
            accounts.reserve(&ask.record, ask.amount);
            granted.push((Arc::clone(&ask.record), ask.amount));
            Some(Decision::Granted(snapshot.fullest(&in_force, now)))
        });
        let verdicts = verdicts.collect();
        (verdicts, granted)
    }
}

fn add_reserved(deltas: &mut Deltas, record: &Record, amount: Money) {
    for period in Period::ALL {
        let delta = deltas.entry(row(&record.keys, period, &record.account)).or_default();
        delta.reserved = delta.reserved.plus(amount);
    }
}

#[derive(Debug, Default)]
struct Accounts {
    rows: HashMap<AccountKey, Balance>,
}

impl Accounts {
    /// The rows that will be changed or asked about, as they stand once the changes are made; nobody else can change them
    /// until the transaction ends.
    async fn lock(tx: &mut Tx, deltas: &Deltas, asks: &[Ask]) -> Result<Self, StoreError> {
        let asked =
            asks.iter().flat_map(|ask| Period::ALL.map(|period| row(&ask.record.keys, period, &ask.record.account)));
        let wanted: BTreeSet<AccountKey> = deltas.keys().cloned().chain(asked).collect();
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        let mut rows = table::lock_accounts(tx, &wanted).await?;
        if rows.len() < wanted.len() {
            // The first spend of a period. Whoever else creates the row meanwhile, it is there then.
            let missing = wanted.iter().filter(|key| !rows.contains_key(*key));
            table::create_accounts(tx, missing).await?;
            rows = table::lock_accounts(tx, &wanted).await?;
        }
        for (key, delta) in deltas {
            let balance = rows.entry(key.clone()).or_default();
            balance.settled = balance.settled.plus(delta.settled);
            balance.reserved = balance.reserved.plus(delta.reserved);
        }
        Ok(Self { rows })
    }

    fn snapshot(&self, record: &Record, read_at: Instant) -> Snapshot {
        let balance = |period| self.rows.get(&row(&record.keys, period, &record.account)).copied();
        let balances = Period::ALL.map(|period| balance(period).unwrap_or_default());
        Snapshot { keys: Arc::clone(&record.keys), balances, read_at }
    }

    fn reserve(&mut self, record: &Record, amount: Money) {
        for period in Period::ALL {
            let balance = self.rows.entry(row(&record.keys, period, &record.account)).or_default();
            balance.reserved = balance.reserved.plus(amount);
        }
    }

    fn snapshots(&self, asks: &[Ask], read_at: Instant) -> Vec<(Arc<str>, Snapshot)> {
        let accounts: HashMap<&str, &Ask> = asks.iter().map(|ask| (&*ask.record.account, ask)).collect();
        accounts.into_values().map(|ask| (ask.record.account.clone(), self.snapshot(&ask.record, read_at))).collect()
    }
}

/// The key of an account's row.
pub(in crate::spend) fn row(keys: &Keys, period: Period, account: &Arc<str>) -> AccountKey {
    (Arc::clone(keys.key(period)), Arc::clone(account))
}
