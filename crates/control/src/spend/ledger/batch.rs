//! What the ledger is told, and what of it goes into its next transaction.

use std::collections::HashMap;
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
use crate::spend::Money;
use crate::spend::period::Keys;

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
    /// It spends and needs no leave: nobody limits it, or its amount is out of a lease.
    Admit { record: Arc<Record>, amount: Money, leased: bool },
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
    pub(super) admits: HashMap<Uuid, (Arc<Record>, Money)>,
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
        let admits = self.admits.into_iter().map(|admit| Self { admits: HashMap::from([admit]), ..Self::default() });
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
        let admits = self.admits.keys().map(|id| format!("reservation {id}"));
        settles.chain(grows).chain(admits).collect::<Vec<_>>().join(", ")
    }

    /// Takes an entry that needs no answer.
    pub(super) fn admit(&mut self, record: Arc<Record>, amount: Money) {
        self.admits.insert(record.id, (record, amount));
    }

    pub(super) fn grow(&mut self, id: Uuid, by: Money) {
        // Not yet recorded: then it is recorded at its new size.
        if let Some((_, amount)) = self.admits.get_mut(&id) {
            *amount = amount.plus(by);
        } else {
            let grown = self.grows.entry(id).or_default();
            *grown = grown.plus(by);
        }
    }

    pub(super) fn settle(&mut self, settle: Settle) {
        // What is over before it was recorded needs no reservation any more.
        self.grows.remove(&settle.record.id);
        self.admits.remove(&settle.record.id);
        self.settles.push(settle);
    }
}
