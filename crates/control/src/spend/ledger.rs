//! The ledger: money is set aside before a call and swapped for the real charge after it, exactly once.
//!
//! One writer per replica decides and records in batches: what arrives while a transaction is under way goes into the
//! next one, so a row is locked once per batch and not once per request. The database is the only place where an
//! account's total is decided, so replicas need not know each other.

pub(in crate::spend) mod account;
pub(in crate::spend) mod batch;
pub(in crate::spend) mod lease;
mod local;
mod work;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use wire::usage::Usage;

pub use self::account::Standing;
pub use self::writer::Writer;

use self::account::Snapshot;
use self::batch::{Ask, Entry, Outcome, Record, Settle, Verdict};
use self::local::{Accounts, Wanted};
use super::estimate::Estimates;
use super::period::Keys;
use super::{Caps, Config, Money, Prices, Quote, table};
use crate::clock::Clock;
use crate::identity::Principal;
use crate::policy::permit::Permit;
use crate::store::Store;

/// A snapshot that says "over" is asked again when it is older than this.
const FRESH: Duration = Duration::from_secs(1);
/// When to come back after a request did not fit beside others.
const COME_BACK: Duration = Duration::from_secs(1);
/// Bytes of body to a token of prompt, where nobody said how many tokens there were.
const BYTES_PER_TOKEN: u64 = 4;

/// Reserves and settles; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    caps: Caps,
    prices: Prices,
    fail_closed: bool,
    wait: Duration,
    entries: mpsc::UnboundedSender<Entry>,
    estimates: Mutex<Estimates>,
    accounts: Accounts,
    keys: ArcSwapOption<Keys>,
}

/// A request that wants to be admitted.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The request's id, unique for ever: reservation, usage row and audit line share it.
    pub id: Uuid,
    /// Who pays.
    pub principal: Arc<Principal>,
    /// Length of the body in bytes: no more input tokens than this.
    pub body_bytes: u64,
    /// `max_tokens`: no more output tokens than this.
    pub max_tokens: Option<u64>,
    /// What it costs on each of the upstreams that may serve it; see [`Ledger::quote`].
    pub quotes: Vec<Quote>,
    /// What its usage row says of where it comes from.
    pub origin: Origin,
}

/// Where a request comes from, for its usage row (R21).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's word for the model.
    pub model_asked: String,
    /// The client's session id.
    pub session_id: Option<String>,
    /// The client's id of the agent that asks.
    pub agent_id: Option<String>,
    /// The client's id of the agent that started this one.
    pub parent_agent_id: Option<String>,
    /// The group of the principal that the request is billed to, where its tags name one.
    pub billing_group: Option<String>,
}

/// Money set aside for one request. Ended by [`Reservation::settle`] or [`Reservation::release`]; one that is dropped
/// without is settled at its estimate.
#[must_use = "settle or release it"]
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    record: Arc<Record>,
    quotes: Vec<Quote>,
    amount: Money,
    standing: Option<Arc<Standing>>,
    ended: bool,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The upstream that answered.
    pub upstream: String,
    /// The model's id there.
    pub model_sent: Option<String>,
    /// What was used.
    pub usage: Usage,
    /// The usage rests on an estimate, not on the upstream's final word.
    pub estimated: bool,
    /// The status sent to the client.
    pub status: u16,
    /// Milliseconds from arrival to end.
    pub ms: u64,
    /// Milliseconds to the first byte of the body.
    pub ttfb_ms: Option<u64>,
}

/// How a request is admitted.
#[derive(Debug)]
enum Way {
    /// Nobody limits it.
    Free,
    /// Out of a lease.
    Leased(Option<Arc<Standing>>),
    /// By the database.
    Ask,
}

/// Why a request cannot be afforded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A cap is exhausted; of several, the one that resets last.
    Over(Box<Standing>),
    /// It does not fit while other requests of the same account are in flight.
    InFlight {
        /// When to try again.
        retry_after: Duration,
    },
    /// The ledger cannot be read and `fail_closed_on_error` is on.
    Unavailable,
}

impl Ledger {
    /// A ledger and the task that writes it; nothing is decided until the task runs.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a settlement must never be refused; requests in flight bound them")]
    pub fn new(store: Store, clock: Arc<dyn Clock>, caps: Caps, prices: Prices, config: &Config) -> (Self, Writer) {
        let (entries, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            store,
            clock,
            caps,
            prices,
            fail_closed: config.fail_closed,
            wait: config.wait,
            entries,
            estimates: Mutex::default(),
            accounts: Accounts::default(),
            keys: ArcSwapOption::empty(),
        });
        (Self { shared: Arc::clone(&shared) }, Writer::new(shared, inbox))
    }

    /// Whether the principal is known to be over a cap, asked before the body is read. Answers from a snapshot when that
    /// suffices; `Ok` is no promise that [`Ledger::reserve`] will say yes.
    ///
    /// # Errors
    /// [`Refusal::Over`] or [`Refusal::Unavailable`].
    pub async fn check(&self, principal: &Principal) -> Result<(), Refusal> {
        let (now, instant) = (self.shared.clock.now(), self.shared.instant());
        let (keys, revision) = (self.shared.keys(now), self.shared.caps.revision());
        if self.shared.accounts.is_leased(principal, &keys, revision, instant) {
            return Ok(());
        }
        let in_force = self.shared.caps.in_force(principal);
        if in_force.is_empty() {
            return Ok(());
        }
        let Some(snapshot) = self.shared.accounts.snapshot(principal) else { return Ok(()) };
        match snapshot.over(&in_force, now) {
            None => Ok(()),
            Some(standing) if self.shared.is_fresh(&snapshot) => Err(Refusal::Over(Box::new(standing))),
            Some(_) => self.check_now(principal).await,
        }
    }

    /// Like [`Ledger::check`], but asks the database when the snapshot does not suffice: used before a request is
    /// answered with an error of its body, so that a blocked caller always hears of the block first (contract B1).
    ///
    /// # Errors
    /// As [`Ledger::check`].
    pub async fn check_now(&self, principal: &Principal) -> Result<(), Refusal> {
        let in_force = self.shared.caps.in_force(principal);
        if in_force.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let (account, keys) = (self.shared.accounts.name(principal, self.shared.instant()), self.shared.keys(now));
        let read = table::read_account(&self.shared.store, &account, &keys, self.shared.clock.instant()).await;
        match read {
            Ok(snapshot) => {
                let over = snapshot.over(&in_force, now);
                self.shared.accounts.remember(principal, snapshot);
                over.map_or(Ok(()), |standing| Err(Refusal::Over(Box::new(standing))))
            }
            Err(error) => self.shared.without_database(&error),
        }
    }

    /// What the permitted request costs on `upstream`, which is asked for the model as `sent`. `asked` is the client's word
    /// for it.
    #[must_use]
    pub fn quote(&self, permit: &Permit, asked: &str, upstream: &str, sent: &str) -> Quote {
        self.shared.prices.quote(asked, permit.model(), upstream, sent)
    }

    /// Sets money aside for a request, or says why not.
    ///
    /// # Errors
    /// When a cap stands in the way.
    pub async fn reserve(&self, permit: &Permit, admission: Admission) -> Result<Reservation, Refusal> {
        let model = permit.model();
        let bounds = admission.quotes.iter().map(|quote| quote.bound(admission.body_bytes, admission.max_tokens));
        let bound = bounds.max().unwrap_or(Money::ZERO);
        let amount = self.shared.estimates().expected(&model.id, admission.body_bytes, bound);
        let now = self.shared.clock.now();
        let keys = self.shared.keys(now);
        let (account, way) = self.shared.way(&admission.principal, &keys, amount);
        let record = Arc::new(Record {
            id: admission.id,
            account,
            principal: admission.principal,
            model: Arc::clone(model),
            origin: admission.origin,
            body_bytes: admission.body_bytes,
            started_at: now,
            keys,
        });
        let standing = match way {
            Way::Ask => self.ask(&record, amount).await?.map(Arc::new),
            // Nothing to decide: recorded behind, for whoever sets a cap meanwhile and for a crash.
            Way::Free => {
                self.shared.enter(Entry::Admit { record: Arc::clone(&record), amount, leased: false });
                None
            }
            Way::Leased(standing) => {
                self.shared.enter(Entry::Admit { record: Arc::clone(&record), amount, leased: true });
                standing
            }
        };
        let (shared, quotes) = (Arc::clone(&self.shared), admission.quotes);
        Ok(Reservation { shared, record, quotes, amount, standing, ended: false })
    }

    async fn ask(&self, record: &Arc<Record>, amount: Money) -> Result<Option<Standing>, Refusal> {
        let (reply, verdict) = oneshot::channel();
        let deadline = self.shared.clock.instant() + self.shared.wait;
        self.shared.enter(Entry::Ask(Ask { record: Arc::clone(record), amount, deadline, reply }));
        match verdict.await {
            Ok(Verdict::Granted(grant)) => Ok(grant.take()),
            Ok(Verdict::Over(standing)) => Err(Refusal::Over(standing)),
            Ok(Verdict::InFlight) => Err(Refusal::InFlight { retry_after: COME_BACK }),
            // A writer that has ended can record nothing either.
            Ok(Verdict::Unavailable) | Err(_) if self.shared.fail_closed => Err(Refusal::Unavailable),
            Ok(Verdict::Unavailable) | Err(_) => Ok(None),
        }
    }

    /// Keeps the copy of the caps close to what other replicas do to them. Runs until dropped.
    pub async fn follow_caps(&self) {
        let changed = tokio::sync::Notify::new();
        let refresh = async {
            loop {
                changed.notified().await;
                if let Err(error) = self.shared.caps.refresh_if_changed().await {
                    tracing::warn!("caps were changed but could not be read: {error}");
                }
            }
        };
        tokio::join!(self.shared.store.listen(|_| changed.notify_one()), refresh);
    }

    /// Waits until all that has been reserved and settled so far is in the database, however long that takes.
    pub async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        self.shared.enter(Entry::Flush(reply));
        // An ended writer has flushed.
        let _ = done.await;
    }
}

impl Reservation {
    /// Where the principal stood against its fullest cap before this request; `None` without caps.
    #[must_use]
    pub fn standing(&self) -> Option<&Standing> {
        self.standing.as_deref()
    }

    /// The meter has seen this much: when it costs more than was set aside, more is set aside.
    pub fn grow(&mut self, upstream: &str, seen: &Usage) {
        let charge = self.charge(upstream, seen);
        if charge <= self.amount {
            return;
        }
        // A quarter more than was seen, so that a long answer grows it now and then and not with every frame.
        let target = charge.plus(Money::from_nano(charge.nano() / 4));
        let by = target.minus(self.amount);
        self.amount = target;
        self.shared.enter(Entry::Grow { id: self.record.id, by });
    }

    /// What `usage` costs on `upstream`.
    #[must_use]
    pub fn charge(&self, upstream: &str, usage: &Usage) -> Money {
        self.quote(upstream).map_or(Money::ZERO, |quote| quote.charge(usage))
    }

    /// What that upstream quoted. Only those that did are asked.
    fn quote(&self, upstream: &str) -> Option<&Quote> {
        self.quotes.iter().find(|quote| quote.upstream() == upstream)
    }

    /// The usage to assume when a request was sent and no word of its tokens ever came (R18): its prompt, by size.
    #[must_use]
    pub fn expected(&self) -> Usage {
        Usage { input_tokens: self.record.body_bytes.div_ceil(BYTES_PER_TOKEN), ..Usage::default() }
    }

    /// Swaps the reservation for the real charge and returns it. Takes effect exactly once, also when the process dies
    /// right after (then at the estimate).
    pub fn settle(mut self, settlement: Settlement) -> Money {
        let (record, usage) = (&self.record, &settlement.usage);
        let charge = self.charge(&settlement.upstream, usage);
        if let Some(quote) = self.quote(&settlement.upstream).filter(|_| !settlement.estimated) {
            let (prompt, answer) = quote.charge_parts(usage);
            self.shared.estimates().learn(&record.model.id, record.body_bytes, prompt, answer);
        }
        let outcome = Outcome {
            upstream: Some(settlement.upstream),
            model_sent: settlement.model_sent,
            status: Some(settlement.status),
            usage: settlement.usage,
            charge,
            estimated: settlement.estimated,
            ms: Some(settlement.ms),
            ttfb_ms: settlement.ttfb_ms,
        };
        self.end(outcome);
        charge
    }

    /// Ends it without a charge: nothing was used.
    pub fn release(mut self, status: u16, ms: u64) {
        self.end(Outcome { status: Some(status), ms: Some(ms), ..Outcome::default() });
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        self.shared.enter(Entry::Settle(Settle { record: Arc::clone(&self.record), outcome }));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.ended {
            // Forgotten by its owner (a panic): what it may have cost is charged rather than given away.
            self.end(Outcome { charge: self.amount, estimated: true, ..Outcome::default() });
        }
    }
}

impl Shared {
    fn enter(&self, entry: Entry) {
        // Fails only once the writer has ended, after everything was settled.
        let _ = self.entries.send(entry);
    }

    fn estimates(&self) -> std::sync::MutexGuard<'_, Estimates> {
        self.estimates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a request is admitted, and the name of its account.
    fn way(&self, principal: &Principal, keys: &Arc<Keys>, amount: Money) -> (Arc<str>, Way) {
        let now = self.instant();
        if !self.caps.limit(principal) {
            return (self.accounts.name(principal, now), Way::Free);
        }
        let revision = self.caps.revision();
        match self.accounts.admit(&Wanted { principal, keys, revision, amount, now }) {
            (account, Some(standing)) => (account, Way::Leased(standing)),
            (account, None) => (account, Way::Ask),
        }
    }

    fn is_fresh(&self, snapshot: &Snapshot) -> bool {
        self.clock.instant().saturating_duration_since(snapshot.read_at) <= FRESH
    }

    /// The names of the current periods, formatted once a day.
    fn keys(&self, now: Timestamp) -> Arc<Keys> {
        if let Some(keys) = self.keys.load_full().filter(|keys| keys.hold_at(now)) {
            return keys;
        }
        let keys = Arc::new(Keys::at(now));
        self.keys.store(Some(Arc::clone(&keys)));
        keys
    }

    fn without_database(&self, error: &crate::store::StoreError) -> Result<(), Refusal> {
        tracing::warn!("spend check: {error}");
        if self.fail_closed { Err(Refusal::Unavailable) } else { Ok(()) }
    }

    fn instant(&self) -> Instant {
        self.clock.instant()
    }
}

/// The account of a principal. The prefix keeps principals apart from what else will have an account.
pub(super) fn account_of(principal: &Principal) -> Arc<str> {
    format!("user:{}", principal.sub).into()
}
