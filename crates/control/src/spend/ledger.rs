//! The ledger: money is set aside before a call and swapped for the real charge after it, exactly once.
//!
//! One writer per replica decides and records in batches: what arrives while a transaction is under way goes into the
//! next one, so a row is locked once per batch and not once per request. The database is the only place where an
//! account's total is decided, so replicas need not know each other.

pub(in crate::spend) mod account;
pub(in crate::spend) mod batch;
mod figures;
mod knowledge;
pub(in crate::spend) mod lease;
mod local;
mod reservation;
mod work;
mod writer;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use wire::messages::Unbounded;

pub use self::account::Standing;
pub use self::figures::{Blocked, Figures};
pub use self::reservation::{Reservation, Settlement};
pub use self::writer::Writer;

use self::batch::{Aside, Ask, Entry, Granted, Record, Verdict};
use self::figures::Board;
use self::local::Accounts;
use super::estimate::Estimates;
use super::period::Keys;
use super::{Caps, Config, Money, Overshoot, Prices, Quote, Size};
use crate::clock::Clock;
use crate::identity::Principal;
use crate::policy::permit::Permit;
use crate::store::Store;

/// A snapshot that says "over" is asked again when it is older than this.
const FRESH: Duration = Duration::from_secs(1);
/// When to come back after a request did not fit beside others.
const COME_BACK: Duration = Duration::from_secs(1);

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
    overshoot: Overshoot,
    fail_closed: bool,
    wait: Duration,
    entries: mpsc::UnboundedSender<Entry>,
    estimates: Mutex<Estimates>,
    accounts: Accounts,
    board: Board,
    keys: ArcSwapOption<Keys>,
}

/// A request that wants to be admitted.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The request's id, unique for ever: reservation, usage row and audit line share it.
    pub id: Uuid,
    /// Who pays.
    pub principal: Arc<Principal>,
    /// What it says of its size.
    pub size: Size,
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
    /// It may cost more than is left under a cap at all.
    TooDear {
        /// Where the principal stands against it.
        standing: Box<Standing>,
        /// What the request costs at the most.
        bound: Money,
    },
    /// What it costs has no bound, and no cap may be passed.
    Unbounded(Unbounded),
    /// The ledger cannot be read and `fail_closed_on_error` is on, or what was spent meanwhile fills the memory kept for it.
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
            overshoot: config.overshoot,
            fail_closed: config.fail_closed || config.overshoot == Overshoot::None,
            wait: config.wait,
            entries,
            estimates: Mutex::default(),
            accounts: Accounts::default(),
            board: Board::default(),
            keys: ArcSwapOption::empty(),
        });
        (Self { shared: Arc::clone(&shared) }, Writer::new(shared, inbox))
    }

    /// Whether no cap may be passed: then [`Size::reach`] is needed.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.shared.overshoot == Overshoot::None
    }

    /// What the ledger has to say about itself.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.board.figures(self.shared.instant())
    }

    /// Whether the principal is known to be over a cap, asked before the body is read. Answers from a snapshot when that
    /// suffices; `Ok` is no promise that [`Ledger::reserve`] will say yes.
    ///
    /// # Errors
    /// [`Refusal::Over`] or [`Refusal::Unavailable`].
    pub async fn check(&self, principal: &Principal) -> Result<(), Refusal> {
        let shared = &self.shared;
        shared.counted(shared.know_groups(principal))?;
        let (now, instant) = (shared.clock.now(), shared.instant());
        let (keys, revision) = (shared.keys(now), shared.caps.revision());
        if !shared.caps.limit(principal) || shared.accounts.is_leased(principal, &keys, revision, instant) {
            return Ok(());
        }
        match shared.known_over(principal, &keys) {
            None => Ok(()),
            Some((standing, read_at)) if instant.saturating_duration_since(read_at) <= FRESH => {
                shared.counted(Err(Refusal::Over(Box::new(standing))))
            }
            Some(_) => self.check_now(principal).await,
        }
    }

    /// Like [`Ledger::check`], but asks the database when the snapshot does not suffice: used before a request is
    /// answered with an error of its body, so that a blocked caller always hears of the block first (contract B1).
    ///
    /// # Errors
    /// As [`Ledger::check`].
    pub async fn check_now(&self, principal: &Principal) -> Result<(), Refusal> {
        let shared = &self.shared;
        if !shared.caps.limit(principal) {
            return Ok(());
        }
        let keys = shared.keys(shared.clock.now());
        let verdict = match shared.read(principal, &keys).await {
            Ok(()) => {
                shared.known_over(principal, &keys).map_or(Ok(()), |(over, _)| Err(Refusal::Over(Box::new(over))))
            }
            Err(unreachable) => unreachable,
        };
        shared.counted(verdict)
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
        let reserved = self.try_reserve(permit, admission).await;
        self.shared.counted(reserved)
    }

    async fn try_reserve(&self, permit: &Permit, admission: Admission) -> Result<Reservation, Refusal> {
        let shared = &self.shared;
        if shared.board.full.load(Ordering::Relaxed) {
            return Err(Refusal::Unavailable);
        }
        shared.know_groups(&admission.principal)?;
        let is_limited = shared.caps.limit(&admission.principal);
        let is_bounded = is_limited && shared.overshoot == Overshoot::None;
        let amount = shared.amount(permit.model(), &admission, is_bounded)?;
        let now = shared.clock.now();
        let keys = shared.keys(now);
        let (account, way) = shared.way(&admission.principal, is_limited, &keys, amount);
        let record = Arc::new(Record {
            id: admission.id,
            account,
            principal: admission.principal,
            model: Arc::clone(permit.model()),
            origin: admission.origin,
            body_bytes: admission.size.body_bytes,
            is_bounded,
            started_at: now,
            keys,
        });
        let (standing, leased) = match way {
            Way::Ask => {
                let granted = self.ask(&record, amount).await?;
                return Ok(Reservation::granted(Arc::clone(shared), record, admission.quotes, amount, granted));
            }
            // Nothing to decide: recorded behind, for whoever sets a cap meanwhile and for a crash.
            Way::Free => (None, false),
            Way::Leased(standing) => (standing, true),
        };
        shared.enter(Entry::Admit { aside: Aside { record: Arc::clone(&record), amount, pool: None }, leased });
        Ok(Reservation::new(Arc::clone(shared), record, admission.quotes, amount, standing))
    }

    async fn ask(&self, record: &Arc<Record>, amount: Money) -> Result<Granted, Refusal> {
        let shared = &self.shared;
        if shared.board.down.load(Ordering::Relaxed) {
            return shared.ungranted(record, amount);
        }
        let (reply, verdict) = oneshot::channel();
        let deadline = shared.instant() + shared.wait;
        shared.enter(Entry::Ask(Ask { record: Arc::clone(record), amount, deadline, reply }));
        match verdict.await {
            Ok(Verdict::Granted(grant)) => Ok(grant.take().unwrap_or_default()),
            Ok(Verdict::Over(standing)) => Err(Refusal::Over(standing)),
            Ok(Verdict::TooDear(standing)) => Err(Refusal::TooDear { standing, bound: amount }),
            Ok(Verdict::InFlight) => Err(Refusal::InFlight { retry_after: COME_BACK }),
            Ok(Verdict::Unavailable(doubt)) => {
                let granted = shared.ungranted(record, amount)?;
                doubt.take();
                Ok(granted)
            }
            // A writer that has ended can record nothing either.
            Err(_) => shared.ungranted(record, amount),
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

/// The account of a principal. The prefix keeps principals apart from what else will have an account.
pub(super) fn account_of(principal: &Principal) -> Arc<str> {
    format!("user:{}", principal.sub).into()
}
