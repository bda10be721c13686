//! The writer: one task per replica that collects what happens and commits it, batch by batch.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::batch::{Ask, Batch, Decision, Entry, Promise, Record, Settle, Verdict};
use super::figures::Told;
use super::lease::Leases;
use super::work::{Decisions, Work};
use crate::identity::Principal;
use crate::spend::table::{self, Swept};
use crate::spend::{Overshoot, Period};
use crate::store::{Store, StoreError};

/// Entries taken into one transaction.
const MOST: usize = 512;
/// How long what nobody waits for may gather company.
const LINGER: Duration = Duration::from_millis(5);
/// How long a settlement may be known to the database's memory only. Requests need not wait for its disk: until then the
/// settlement is kept here too, and entered again when the database was lost.
const DURABLE_WITHIN: Duration = Duration::from_millis(100);
/// How often what waits for room is looked at again, for room that other replicas make.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Settlements that are kept in memory while the database is away, at about a kilobyte each. Beyond, requests are refused:
/// nobody spends what could not be counted.
const MOST_KEPT: usize = 100_000;
/// Pause between two attempts to reach a database that is away.
const PAUSE: Duration = Duration::from_secs(1);
/// How often reservations are renewed, expired ones swept, and caps compared.
const UPKEEP: Duration = Duration::from_secs(2);
const RENEW_EVERY: u32 = 10;
/// How long a reservation or lease holds when its replica does not renew it.
const HOLD: Duration = Duration::from_secs(60);
/// How long leases are used when they were not renewed: another replica, by its own clock, may sweep them after [`HOLD`].
const USE: Duration = Duration::from_secs(40);
/// How long the end waits for a database that does not answer.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Writes the ledger; see [`Writer::run`].
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Entry>,
    replica: String,
    batch: Batch,
    asks: Vec<Ask>,
    flushes: Vec<oneshot::Sender<()>>,
    leases: Leases,
    /// No lease is given any more.
    ending: bool,
    /// Dead replicas have left more than was swept so far.
    sweeping: bool,
    /// Committed, but not yet durably, since `durable_at`.
    committed: Vec<Settle>,
    durable_at: Instant,
    /// Principals as written on that day, by subject; and those still to be.
    known: HashMap<String, u64>,
    known_on: Option<Arc<str>>,
    unknown: HashMap<String, Arc<Principal>>,
    /// What the database did not take yet; more of it than goes into one transaction.
    backlog: Batch,
    /// Since when the oldest entry of batch or backlog waits.
    waiting_since: Option<Instant>,
    /// The database did not answer. It is probed in the background, and nobody waits for it until it has taken a transaction
    /// again.
    down: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, inbox: mpsc::UnboundedReceiver<Entry>) -> Self {
        let durable_at = shared.instant();
        Self {
            shared,
            inbox,
            committed: Vec::new(),
            durable_at,
            replica: uuid::Uuid::new_v4().to_string(),
            batch: Batch::default(),
            asks: Vec::new(),
            flushes: Vec::new(),
            leases: Leases::default(),
            ending: false,
            sweeping: false,
            known: HashMap::new(),
            known_on: None,
            unknown: HashMap::new(),
            backlog: Batch::default(),
            waiting_since: None,
            down: false,
        }
    }

    /// Works until `stop`, then commits everything that was entered before and returns. Whatever could not be committed
    /// by then is told in the log.
    pub async fn run(mut self, stop: CancellationToken) {
        // Before anything is admitted: what a predecessor left belongs to the totals.
        self.upkeep(0).await;
        let mut upkeep = interval(UPKEEP);
        // The first comes at once.
        upkeep.tick().await;
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 1_u32;
        let mut probe: Option<BoxFuture<'static, ()>> = None;
        loop {
            if self.down && probe.is_none() {
                probe = Some(Box::pin(back(self.shared.store.clone())));
            }
            let look_again = self.look_again();
            tokio::select! {
                // In this order: under load the inbox is never empty, and upkeep must still have its turn.
                biased;
                () = stop.cancelled() => break,
                () = answered(&mut probe) => {
                    probe = None;
                    self.down = false;
                }
                _ = upkeep.tick() => {
                    self.upkeep(ticks).await;
                    ticks = ticks.wrapping_add(1);
                    continue;
                }
                entry = self.inbox.recv() => match entry {
                    Some(entry) => self.gather(entry).await,
                    None => break,
                },
                () = tokio::time::sleep(look_again) => {}
            }
            if self.has_work() || self.must_be_durable() || self.is_on_trial() {
                self.commit().await;
            }
            self.tell_full();
            if self.backlog.is_empty() {
                self.tell_figures();
            }
        }
        self.finish().await;
    }

    fn look_again(&self) -> Duration {
        match (self.has_work(), self.committed.is_empty()) {
            _ if self.down => UPKEEP,
            // The rest of what had to wait.
            _ if !self.batch.is_empty() || !self.backlog.is_empty() => Duration::ZERO,
            (_, false) => DURABLE_WITHIN,
            (true, true) => LOOK_AGAIN,
            (false, true) => UPKEEP,
        }
    }

    fn lose_database(&mut self) {
        // What the database had not yet on its disk may be gone with it. What it kept is not counted twice.
        self.backlog.settles.append(&mut self.committed);
        self.down = true;
        self.shared.board.down.store(true, Ordering::Relaxed);
    }

    /// The database has answered a probe, but has not taken a transaction yet: it may hang again at a row that the probe did
    /// not look at, so nobody else waits for it.
    fn is_on_trial(&self) -> bool {
        !self.down && self.shared.board.down.load(Ordering::Relaxed)
    }

    fn find_database(&self) {
        if self.shared.board.down.swap(false, Ordering::Relaxed) {
            tracing::info!(waiting = self.backlog.len(), "ledger: the database is back; what waited is counted now");
        }
    }

    fn tell_full(&mut self) {
        let waiting = self.backlog.settles.len();
        let full = waiting >= MOST_KEPT;
        if full && !self.shared.board.full.swap(full, Ordering::Relaxed) {
            tracing::error!(
                waiting,
                "ledger: no more spend can be kept in memory; requests are refused until the database is back"
            );
        } else if !full {
            self.shared.board.full.store(false, Ordering::Relaxed);
        }
    }

    fn tell_figures(&mut self) {
        if self.batch.is_empty() && self.backlog.is_empty() {
            self.waiting_since = None;
        }
        let (leases, leased) = self.leases.sum();
        self.shared.board.tell(Told {
            leases,
            leased,
            waiting: (self.batch.settles.len() + self.backlog.settles.len()) as u64,
            waiting_spend: self.batch.spend().plus(self.backlog.spend()),
            since: self.waiting_since,
        });
    }

    fn has_work(&self) -> bool {
        let nothing_to_write = self.batch.is_empty() && self.backlog.is_empty() && !self.leases.are_stale();
        !(nothing_to_write && self.asks.is_empty() && self.flushes.is_empty() && self.unknown.is_empty())
    }

    /// Whether the next commit must reach the disk.
    fn must_be_durable(&self) -> bool {
        let waited = self.shared.instant().saturating_duration_since(self.durable_at) >= DURABLE_WITHIN;
        !self.flushes.is_empty() || (waited && !self.committed.is_empty())
    }

    /// Takes an entry and all that is there beside it. What nobody waits for is given a moment to gather company.
    async fn gather(&mut self, first: Entry) {
        self.take(first);
        self.take_ready();
        if self.asks.is_empty() && self.flushes.is_empty() && self.batch.len() < MOST {
            let _ = timeout(LINGER, self.until_urgent()).await;
            self.take_ready();
        }
    }

    async fn until_urgent(&mut self) {
        while self.asks.is_empty() && self.flushes.is_empty() && self.batch.len() < MOST {
            match self.inbox.recv().await {
                Some(entry) => self.take(entry),
                None => return,
            }
        }
    }

    fn take_ready(&mut self) {
        while self.batch.len() < MOST && self.asks.len() < MOST {
            let Ok(entry) = self.inbox.try_recv() else { return };
            self.take(entry);
        }
    }

    fn take(&mut self, entry: Entry) {
        if self.waiting_since.is_none()
            && !matches!(entry, Entry::Ask(_) | Entry::Flush(_) | Entry::Lost | Entry::Withdraw(_))
        {
            self.waiting_since = Some(self.shared.instant());
        }
        match entry {
            Entry::Ask(ask) => {
                self.meet(&ask.record);
                self.asks.push(ask);
            }
            Entry::Admit { aside, leased } => {
                self.meet(&aside.record);
                if leased {
                    self.leases.use_up(&aside.record.account, &aside.record.keys, aside.amount);
                }
                self.batch.admit(aside);
            }
            Entry::Grow { id, to } if self.backlog.admits.contains_key(&id) => self.backlog.grow(id, to),
            Entry::Grow { id, to } => self.batch.grow(id, to),
            Entry::Settle(settle) => {
                self.backlog.forget(&settle.record.id);
                self.batch.settle(settle);
            }
            Entry::Withdraw(id) => {
                self.backlog.forget(&id);
                self.batch.withdraw(id);
            }
            Entry::Lost => self.lose_database(),
            Entry::Flush(done) => self.flushes.push(done),
        }
    }

    /// Whoever is seen is written once a day, and when something is new about the person.
    fn meet(&mut self, record: &Record) {
        let (principal, day) = (&record.principal, record.keys.key(Period::Daily));
        if self.known_on.as_ref() != Some(day) {
            self.known.clear();
            self.known_on = Some(Arc::clone(day));
        }
        let print = fingerprint(principal);
        if self.known.get(&principal.sub) != Some(&print) {
            self.known.insert(principal.sub.clone(), print);
            self.unknown.insert(principal.sub.clone(), Arc::clone(principal));
        }
    }

    async fn commit(&mut self) {
        if self.down {
            self.backlog.join(std::mem::take(&mut self.batch));
            return self.answer_all_unavailable();
        }
        self.batch.draw(&mut self.backlog, MOST);
        let durable = self.must_be_durable();
        match self.try_commit(durable).await {
            Ok(decisions) => {
                self.find_database();
                let batch = std::mem::take(&mut self.batch);
                self.keep(batch.settles, durable);
                self.answer(decisions);
                self.write_principals().await;
                self.answer_flushes();
            }
            Err(error) if error.is_outage() => self.hold_back(&error),
            Err(error) => self.commit_one_by_one(&error).await,
        }
    }

    /// Remembers settlements until they are durable.
    fn keep(&mut self, settles: Vec<Settle>, durable: bool) {
        if durable {
            self.committed.clear();
        } else if self.committed.is_empty() {
            self.committed = settles;
        } else {
            self.committed.extend(settles);
            return;
        }
        self.durable_at = self.shared.instant();
    }

    fn answer_flushes(&mut self) {
        if !self.backlog.is_empty() {
            return;
        }
        for done in self.flushes.drain(..) {
            // Who no longer waits need not be told.
            let _ = done.send(());
        }
    }

    /// One entry that the database refuses must not keep the others from being recorded.
    async fn commit_one_by_one(&mut self, refusal: &StoreError) {
        tracing::warn!("ledger: {refusal}; each entry is tried by itself");
        let mut rest = std::mem::take(&mut self.batch).split();
        let asks = std::mem::take(&mut self.asks);
        while let Some(part) = rest.pop() {
            self.batch = part;
            match self.try_commit(true).await {
                Ok(_) => self.batch = Batch::default(),
                Err(error) if error.is_outage() => {
                    rest.into_iter().for_each(|part| self.batch.join(part));
                    self.asks = asks;
                    return self.hold_back(&error);
                }
                Err(error) => {
                    tracing::error!(entry = %self.batch.describe(), "ledger: the database refuses an entry: {error}");
                    self.batch = Batch::default();
                }
            }
        }
        let mut asks = asks.into_iter();
        while let Some(ask) = asks.next() {
            let waiting = std::mem::replace(&mut self.asks, vec![ask]);
            match self.try_commit(true).await {
                Ok(decisions) => self.answer(decisions),
                Err(error) if error.is_outage() => {
                    self.asks.extend(waiting.into_iter().chain(asks));
                    return self.hold_back(&error);
                }
                Err(error) => {
                    tracing::error!("ledger: a request could not be decided: {error}");
                    self.answer_all_unavailable();
                }
            }
            self.asks.extend(waiting);
        }
        self.find_database();
        self.answer_flushes();
    }

    async fn try_commit(&mut self, durable: bool) -> Result<Decisions, StoreError> {
        if self.batch.is_empty() && self.asks.is_empty() && !self.leases.are_stale() && !durable {
            return Ok(Decisions::default());
        }
        let now = self.shared.clock.now();
        let work = Work {
            store: &self.shared.store,
            caps: &self.shared.caps,
            accounts: &self.shared.accounts,
            leases: &mut self.leases,
            overshoot: self.shared.overshoot,
            may_lease: !self.ending && self.shared.overshoot == Overshoot::Bounded,
            replica: &self.replica,
            now,
            keys: self.shared.keys(now),
            instant: self.shared.instant(),
            durable,
            expires_at: now.checked_add(HOLD).unwrap_or(Timestamp::MAX),
        };
        let done = work.commit(&self.batch, &self.asks).await;
        if done.is_err() {
            self.leases.doubt();
        }
        done
    }

    fn answer(&mut self, decisions: Decisions) {
        for (principal, snapshot) in decisions.snapshots {
            self.shared.accounts.remember(&principal, snapshot);
        }
        for (account, month, settled) in decisions.pools {
            self.shared.accounts.remember_pool(account, month, settled, self.shared.instant());
        }
        let asks = std::mem::take(&mut self.asks);
        let mut verdicts = decisions.verdicts.into_iter();
        for ask in asks {
            match verdicts.next().flatten() {
                None => self.asks.push(ask),
                Some(verdict) => self.tell(ask, verdict),
            }
        }
    }

    fn tell(&self, ask: Ask, decision: Decision) {
        let verdict = match decision {
            Decision::Granted(granted) => {
                Verdict::Granted(Promise::new(ask.record.id, granted, self.shared.entries.clone()))
            }
            Decision::Over(standing) => Verdict::Over(standing),
            Decision::TooDear(standing) => Verdict::TooDear(standing),
            Decision::InFlight => Verdict::InFlight,
        };
        // A grant that nobody receives gives itself back.
        drop(ask.reply.send(verdict));
    }

    fn answer_all_unavailable(&mut self) {
        for ask in std::mem::take(&mut self.asks) {
            // It may have been granted by a transaction that was not heard of. Whoever does not go ahead takes that back.
            let doubt = Promise::new(ask.record.id, (), self.shared.entries.clone());
            drop(ask.reply.send(Verdict::Unavailable(doubt)));
        }
    }

    /// Keeps what must not be lost for the next attempt, and lets nobody wait for it.
    fn hold_back(&mut self, error: &StoreError) {
        self.lose_database();
        self.answer_all_unavailable();
        self.backlog.join(std::mem::take(&mut self.batch));
        tracing::warn!(waiting = self.backlog.len(), "ledger: {error}; what was settled is kept and tried again");
    }

    async fn write_principals(&mut self) {
        if self.unknown.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        // Ordered by subject, so that two replicas never wait for each other.
        let mut principals: Vec<_> = self.unknown.values().collect();
        principals.sort_by(|a, b| a.sub.cmp(&b.sub));
        match table::put_principals(&self.shared.store, principals.into_iter(), now).await {
            Ok(()) => self.unknown.clear(),
            Err(error) => {
                tracing::warn!("ledger: who was seen is not recorded: {error}");
                if error.is_outage() {
                    self.lose_database();
                }
                for (sub, _) in self.unknown.drain() {
                    self.known.remove(&sub);
                }
            }
        }
    }

    async fn upkeep(&mut self, ticks: u32) {
        // To sum up a long backlog takes a moment: now and then will do.
        self.tell_figures();
        if self.down {
            return;
        }
        match self.try_upkeep(ticks).await {
            Ok(()) => {}
            Err(error) if error.is_outage() => self.hold_back(&error),
            Err(error) => tracing::warn!("ledger upkeep: {error}"),
        }
    }

    async fn try_upkeep(&mut self, ticks: u32) -> Result<(), StoreError> {
        let shared = &self.shared;
        shared.caps.refresh_if_changed().await?;
        let instant = shared.instant();
        self.leases.give_back(&shared.accounts, &shared.keys(shared.clock.now()), instant, false);
        shared.accounts.forget(instant);
        if !ticks.is_multiple_of(RENEW_EVERY) && !self.sweeping {
            return Ok(());
        }
        let now = shared.clock.now();
        let until = now.checked_add(HOLD).unwrap_or(Timestamp::MAX);
        table::renew_reservations(&shared.store, &self.replica, until).await?;
        self.renew_leases(until).await?;
        let shared = &self.shared;
        // Nobody else can be alive on an embedded database: what is left there was left by a process that died.
        let before = if shared.store.is_embedded() { Timestamp::MAX } else { now };
        loop {
            let Swept { settled, released, more } = table::sweep_expired(&shared.store, before, &self.replica).await?;
            if settled + released > 0 {
                tracing::warn!(
                    settled,
                    released,
                    "ledger: requests of a process that died were charged at their estimates, and its leases given back"
                );
            }
            self.sweeping = more;
            // What a predecessor left belongs to the totals before anything is admitted; later nobody waits for the rest.
            if !more || (ticks > 0 && !self.inbox.is_empty()) {
                return Ok(());
            }
        }
    }

    async fn renew_leases(&mut self, until: Timestamp) -> Result<(), StoreError> {
        let use_until = self.shared.instant() + USE;
        let renewed = table::renew_leases(&self.shared.store, &self.replica, until).await?;
        if renewed != self.leases.rows() {
            // Swept, because this replica was silent for too long: what is held has to be written anew.
            self.leases.doubt();
        }
        self.shared.accounts.hold_leases_until(use_until);
        Ok(())
    }

    async fn finish(&mut self) {
        self.inbox.close();
        self.ending = true;
        let deadline = self.shared.instant() + LAST_WORDS;
        loop {
            self.take_ready();
            self.answer_all_unavailable();
            let (keys, instant) = (self.shared.keys(self.shared.clock.now()), self.shared.instant());
            self.leases.give_back(&self.shared.accounts, &keys, instant, self.inbox.is_empty());
            if !self.has_work() && self.committed.is_empty() && self.inbox.is_empty() {
                return;
            }
            // Whatever was entered last is to be on the disk.
            let (last, _) = oneshot::channel();
            self.flushes.push(last);
            self.down = false;
            self.commit().await;
            if self.down {
                if self.shared.instant() >= deadline {
                    tracing::error!(
                        lost = self.backlog.len(),
                        "ledger: the database is gone and so are these settlements"
                    );
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Returns once the database takes the ledger's transactions again.
async fn back(store: Store) {
    loop {
        tokio::time::sleep(PAUSE).await;
        if table::probe(&store).await.is_ok() {
            return;
        }
    }
}

async fn answered(probe: &mut Option<BoxFuture<'static, ()>>) {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

fn fingerprint(principal: &Principal) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&principal.email, &principal.name, &principal.groups).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
