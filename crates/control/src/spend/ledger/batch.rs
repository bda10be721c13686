//! What the ledger is told, and what of it goes into its next transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use wire::catalog::Model;
use wire::usage::Usage;

use super::Origin;
use super::account::Standing;
use crate::identity::Principal;
use crate::spend::period::Keys;
use crate::spend::{Money, Split};

/// What the ledger knows of a request from its admission on.
#[derive(Debug)]
pub(in crate::spend) struct Record {
    pub(in crate::spend) id: Uuid,
    pub(in crate::spend) account: Arc<str>,
    pub(in crate::spend) principal: Arc<Principal>,
    pub(in crate::spend) model: Arc<Model>,
    pub(in crate::spend) origin: Origin,
    pub(in crate::spend) body_bytes: u64,
    /// What is set aside for it is the most that it can cost.
    pub(in crate::spend) is_bounded: bool,
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
    pub(in crate::spend) split: Split,
    pub(in crate::spend) estimated: bool,
    pub(in crate::spend) ms: Option<u64>,
    pub(in crate::spend) ttfb_ms: Option<u64>,
}

/// Money that a request has set aside.
#[derive(Debug)]
pub(in crate::spend) struct Aside {
    pub(in crate::spend) record: Arc<Record>,
    pub(in crate::spend) amount: Money,
    /// The account of the pool that is charged too.
    pub(in crate::spend) pool: Option<Arc<str>>,
}

#[derive(Debug)]
pub(in crate::spend) struct Settle {
    pub(in crate::spend) record: Arc<Record>,
    /// The account of the pool that is charged too.
    pub(in crate::spend) pool: Option<Arc<str>>,
    pub(in crate::spend) outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) record: Arc<Record>,
    pub(super) amount: Money,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Verdict>,
}

/// An answer on its way to a caller, who ends the reservation that there is or may be. One that is never taken - the caller went
/// away before it heard - is given back: nothing was sent, nothing is owed, and nobody else would end it.
#[derive(Debug)]
pub(super) struct Promise<T> {
    given: Option<(Uuid, T)>,
    entries: mpsc::UnboundedSender<Entry>,
}

impl<T> Promise<T> {
    pub(super) fn new(id: Uuid, given: T, entries: mpsc::UnboundedSender<Entry>) -> Self {
        Self { given: Some((id, given)), entries }
    }

    /// Hands it to the caller.
    pub(super) fn take(mut self) -> Option<T> {
        self.given.take().map(|(_, given)| given)
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some((id, _)) = self.given.take() {
            // Fails only once the writer has ended, after everything was settled.
            let _ = self.entries.send(Entry::Withdraw(id));
        }
    }
}

/// What a yes says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) standing: Option<Standing>,
    /// The account of the pool that is charged too.
    pub(super) pool: Option<Arc<str>>,
}

/// What is answered to an ask.
#[derive(Debug)]
pub(super) enum Verdict {
    Granted(Promise<Granted>),
    Over(Box<Standing>),
    TooDear(Box<Standing>),
    InFlight,
    /// Nobody could decide, and whether it was granted before the database was lost is not known.
    Unavailable(Promise<()>),
}

/// What is decided about an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Granted(Granted),
    Over(Box<Standing>),
    /// It fits under the cap at no time.
    TooDear(Box<Standing>),
    InFlight,
}

#[derive(Debug)]
pub(super) enum Entry {
    /// May it spend? Answered once the answer is in the database.
    Ask(Ask),
    /// It spends and needs no leave: nobody limits it, its amount is out of a lease, or nobody could be asked.
    Admit { aside: Aside, leased: bool },
    /// It has cost more than was set aside: so much it is now.
    Grow { id: Uuid, to: Money },
    /// It has ended.
    Settle(Settle),
    /// It was never made.
    Withdraw(Uuid),
    /// The database did not answer somebody.
    Lost,
    /// Answered once everything before it is in the database.
    Flush(oneshot::Sender<()>),
}

/// What one transaction takes on. Kept until it is committed, so that a failed one can be tried again whole: every
/// statement of it gives the same result when an earlier attempt was committed unseen.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) settles: Vec<Settle>,
    pub(super) withdrawn: HashSet<Uuid>,
    /// What is to be set aside now, of those in the database.
    pub(super) grows: HashMap<Uuid, Money>,
    pub(super) admits: HashMap<Uuid, Aside>,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.settles.len() + self.withdrawn.len() + self.grows.len() + self.admits.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch in batches of one entry each.
    pub(super) fn split(self) -> Vec<Self> {
        let settles = self.settles.into_iter().map(|settle| Self { settles: vec![settle], ..Self::default() });
        let withdrawn = self.withdrawn.into_iter().map(|id| Self { withdrawn: HashSet::from([id]), ..Self::default() });
        let grows = self.grows.into_iter().map(|grow| Self { grows: HashMap::from([grow]), ..Self::default() });
        let admits = self.admits.into_iter().map(|admit| Self { admits: HashMap::from([admit]), ..Self::default() });
        settles.chain(withdrawn).chain(grows).chain(admits).collect()
    }

    /// What has ended or begun, in money: what the accounts do not know of yet.
    pub(super) fn spend(&self) -> Money {
        self.settles.iter().fold(Money::ZERO, |sum, settle| sum.plus(settle.outcome.charge))
    }

    /// Takes over as much of another batch as fits into `most` entries.
    pub(super) fn draw(&mut self, from: &mut Self, most: usize) {
        let room = |batch: &Self| most.saturating_sub(batch.len());
        let settles = from.settles.len().saturating_sub(room(self));
        self.settles.extend(from.settles.drain(settles..));
        let withdrawn: Vec<Uuid> = from.withdrawn.iter().copied().take(room(self)).collect();
        self.withdrawn.extend(withdrawn.into_iter().filter(|id| from.withdrawn.remove(id)));
        let admits: Vec<Uuid> = from.admits.keys().copied().take(room(self)).collect();
        self.admits.extend(admits.into_iter().filter_map(|id| from.admits.remove_entry(&id)));
        let grows: Vec<Uuid> = from.grows.keys().copied().take(room(self)).collect();
        self.grows.extend(grows.into_iter().filter_map(|id| from.grows.remove_entry(&id)));
    }

    /// A request has ended: what is still to be recorded of its beginning is of no interest.
    pub(super) fn forget(&mut self, id: &Uuid) {
        self.grows.remove(id);
        self.admits.remove(id);
    }

    /// Takes on what another batch holds.
    pub(super) fn join(&mut self, other: Self) {
        self.settles.extend(other.settles);
        self.withdrawn.extend(other.withdrawn);
        self.admits.extend(other.admits);
        for (id, to) in other.grows {
            self.grow(id, to);
        }
    }

    /// The ids it is about, for the log.
    pub(super) fn describe(&self) -> String {
        let settles = self.settles.iter().map(|settle| format!("settlement {}", settle.record.id));
        let withdrawn = self.withdrawn.iter().map(|id| format!("withdrawal of {id}"));
        let grows = self.grows.keys().map(|id| format!("growth of {id}"));
        let admits = self.admits.keys().map(|id| format!("reservation {id}"));
        settles.chain(withdrawn).chain(grows).chain(admits).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn admit(&mut self, aside: Aside) {
        self.admits.insert(aside.record.id, aside);
    }

    pub(super) fn grow(&mut self, id: Uuid, to: Money) {
        // Not yet recorded: then it is recorded at its new size.
        let amount = match self.admits.get_mut(&id) {
            Some(aside) => &mut aside.amount,
            None => self.grows.entry(id).or_default(),
        };
        *amount = to.max(*amount);
    }

    pub(super) fn settle(&mut self, settle: Settle) {
        // What is over before it was recorded needs no reservation any more.
        self.forget(&settle.record.id);
        self.settles.push(settle);
    }

    pub(super) fn withdraw(&mut self, id: Uuid) {
        self.forget(&id);
        self.withdrawn.insert(id);
    }
}
