//! Reports: which caps are in force for whom, and what has been spent under them.

pub mod usage;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cap::InForce;
use super::ledger::{Standing, account_of};
use super::period::Keys;
use super::{Cap, Caps, Money, Period, table};
use crate::audit;
use crate::clock::Clock;
use crate::identity::Principal;
use crate::store::{Store, StoreError};

/// Reads what the ledger has written.
#[derive(Debug, Clone)]
pub struct Report {
    store: Store,
    caps: Caps,
    clock: Arc<dyn Clock>,
}

/// Whose caps are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// These subjects, in this order, known or not.
    Named(Vec<String>),
    /// Everyone seen so far whose subject, e-mail address or name holds `q` (any letter case; empty: everyone).
    Everyone {
        /// What to look for.
        q: String,
        /// The order, and where to go on in it.
        order: Order,
        /// How many principals at most.
        limit: usize,
    },
}

/// The order of a list of principals; a cursor names the last one seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// By subject.
    Subject {
        /// The last subject seen.
        after: Option<String>,
    },
    /// Who has spent most in a period first.
    Spend {
        /// The period.
        period: Period,
        /// What the last one seen had spent, and its subject.
        after: Option<(Money, String)>,
    },
}

/// A principal's cap and spend in a period.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The principal as last seen; without e-mail address, name and groups when never seen.
    pub principal: Arc<Principal>,
    /// The period.
    pub period: Period,
    /// The cap that decides, also when it says "unlimited".
    pub cap: Option<Arc<Cap>>,
    /// Spent in the period so far.
    pub spent: Money,
}

/// A page of a report.
#[derive(Debug, Clone)]
pub struct EffectivePage {
    /// One row per principal and period.
    pub rows: Vec<Effective>,
    /// Where to go on, when there is more.
    pub next: Option<Order>,
}

/// What a principal has spent, and where it stands against each of its caps.
#[derive(Debug, Clone)]
pub struct Standings {
    /// Spent in the current [`Period`]s, shortest first.
    pub spent: [Money; 3],
    /// One for each cap in force, shortest period first.
    pub caps: Vec<Standing>,
}

impl Standings {
    /// The cap that a client is told about (contract B7): of those that are exhausted the one that resets last, else the
    /// fullest.
    #[must_use]
    pub fn described(&self) -> Option<&Standing> {
        let exhausted = self.caps.iter().filter(|standing| standing.is_exhausted());
        let fullest = || self.caps.iter().max_by(|a, b| a.compare_fullness(b));
        exhausted.max_by_key(|standing| standing.resets_at).or_else(fullest)
    }
}

impl Report {
    /// Reports from this store.
    #[must_use]
    pub fn new(store: Store, caps: Caps, clock: Arc<dyn Clock>) -> Self {
        Self { store, caps, clock }
    }

    /// The caps in force, and the spend under them, for each principal and each of `periods`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn effective(&self, whose: &Whose, periods: &[Period]) -> Result<EffectivePage, StoreError> {
        let keys = Keys::at(self.clock.now());
        let (principals, next) = match whose {
            Whose::Named(subs) => (table::named_principals(&self.store, subs).await?, None),
            Whose::Everyone { q, order, limit } => {
                let mut found = table::principals(&self.store, q, order, &keys, limit.saturating_add(1)).await?;
                let more = found.len() > *limit;
                found.truncate(*limit);
                let next = found.last().filter(|_| more).map(|(last, spent)| order.after(&last.sub, *spent));
                (found.into_iter().map(|(principal, _)| principal).collect(), next)
            }
        };
        let accounts: Vec<Arc<str>> = principals.iter().map(|principal| account_of(principal)).collect();
        let spent = table::settled(&self.store, &accounts, &keys).await?;
        let rows = principals.iter().zip(&accounts).flat_map(|(principal, account)| {
            periods.iter().map(|period| Effective {
                principal: Arc::clone(principal),
                period: *period,
                cap: self.caps.deciding(principal, *period),
                spent: spent.get(&(Arc::clone(keys.key(*period)), Arc::clone(account))).copied().unwrap_or_default(),
            })
        });
        Ok(EffectivePage { rows: rows.collect(), next })
    }

    /// What a principal has spent and where it stands against its own caps; pools are not looked at.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn standings(&self, principal: &Principal) -> Result<Standings, StoreError> {
        let now = self.clock.now();
        let (keys, account) = (Keys::at(now), account_of(principal));
        let settled = table::settled(&self.store, std::slice::from_ref(&account), &keys).await?;
        let of = |period| settled.get(&(Arc::clone(keys.key(period)), Arc::clone(&account))).copied();
        let spent = Period::ALL.map(|period| of(period).unwrap_or_default());
        let standing =
            |cap: InForce| Standing { spent: spent[cap.period as usize], resets_at: cap.period.ends(now), cap };
        Ok(Standings { spent, caps: self.caps.in_force(principal).into_iter().map(standing).collect() })
    }

    /// The latest changes of caps, newest first: those before the event of an id, `limit` at most; and whether there are
    /// more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cap_changes(
        &self,
        after: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<audit::AdminEvent>, bool), StoreError> {
        audit::admin_changes(&self.store, "spend_limit.", after, limit).await
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// When a period that is running now ends.
    #[must_use]
    pub fn period_ends(&self, period: Period) -> Timestamp {
        period.ends(self.clock.now())
    }
}

impl Order {
    fn after(&self, sub: &str, spent: Money) -> Self {
        match self {
            Self::Subject { .. } => Self::Subject { after: Some(sub.to_owned()) },
            Self::Spend { period, .. } => Self::Spend { period: *period, after: Some((spent, sub.to_owned())) },
        }
    }
}

impl Effective {
    /// The row as the admin API writes it (contract B8).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let principal = &self.principal;
        json!({
            "scope": {"type": "user", "user_id": principal.sub},
            "groups": principal.groups,
            "actor": {
                "type": "user_actor",
                "user_id": principal.sub,
                "name": principal.name,
                "email_address": principal.email,
                "deleted": false,
            },
            "amount": self.cap.as_ref().and_then(|cap| cap.cents).map(|cents| cents.to_string()),
            "currency": "USD",
            "period": self.period.as_str(),
            "source": self.cap.as_ref().map(|cap| cap.scope.to_json()),
            "spend_limit_id": self.cap.as_ref().map(|cap| &cap.id),
            "period_to_date_spend": self.spent.cents_rounded(),
        })
    }
}
