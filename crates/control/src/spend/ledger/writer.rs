//! The writer: one task per replica that collects what happens and commits it, batch by batch.

mod commit;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::batch::{Ask, Batch, Entry, Settle};
use super::figures::Told;
use super::lease::Leases;
use crate::identity::Principal;
use crate::spend::table;
use crate::store::Store;

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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
