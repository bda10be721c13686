//! Caps: how much a target may spend in a period, and which of them are in force for whom.

mod copy;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::{Value, json};

use self::copy::Copy;
use super::period::Keys;
use super::pool::{self, Pool, PoolChange, PoolFault, PoolInForce};
use super::{GroupMode, Money, Period, table};
use crate::audit;
use crate::clock::{Clock, rfc3339_ms};
use crate::identity::Principal;
use crate::identity::admin_key::WriteAccess;
use crate::store::{Store, StoreError, Tx};

/// The topic that replicas are told about.
pub(super) const TOPIC: &str = "caps";

/// What a cap is set on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everyone, each by themselves.
    Organization,
    /// Every member of a group, each by themselves.
    Group(String),
    /// One person.
    User(String),
}

/// A cap as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// `spl_` and 32 hex digits.
    pub id: String,
    /// What it is set on.
    pub scope: Scope,
    /// Over which time.
    pub period: Period,
    /// Whole US cents; `None`: unlimited.
    pub cents: Option<i64>,
    /// The budget that the members of the group share; only on a group's monthly cap.
    pub pool: Option<Pool>,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was last set.
    pub updated_at: Timestamp,
}

/// A cap in force for a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Over which time.
    pub period: Period,
    /// In whole US cents, as set.
    pub cents: i64,
    /// Where it comes from.
    pub source: Scope,
    /// It is a pool: the group's members spend it together.
    pub shared: bool,
    /// Its id.
    pub id: String,
}

/// What a cap is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// On what.
    pub scope: Scope,
    /// Over which time.
    pub period: Period,
    /// Whole US cents; `None`: unlimited.
    pub cents: Option<i64>,
    /// What is to become of the pool; `None`: it stays as it is.
    pub pool: Option<PoolChange>,
}

/// Why a cap is not set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// Its pool cannot be.
    #[error(transparent)]
    Pool(#[from] PoolFault),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A cap, and what was spent this month from its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The cap.
    pub cap: Cap,
    /// Nothing without a pool.
    pub pool_spent: Money,
}

/// One page of a list of caps.
#[derive(Debug, Clone)]
pub struct Page {
    /// In the order of their creation.
    pub caps: Vec<Listed>,
    /// Whether more follow in the direction asked for.
    pub has_more: bool,
}

/// Which part of the list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Its beginning.
    Start,
    /// What follows the cap of this id.
    After(String),
    /// What stands directly before the cap of this id.
    Before(String),
}

/// All caps: the table, and a copy of it in memory that every request reads.
#[derive(Debug, Clone)]
pub struct Caps {
    store: Store,
    clock: Arc<dyn Clock>,
    group_mode: GroupMode,
    copy: Arc<ArcSwap<Copy>>,
}

impl Scope {
    /// The wire's `scope.type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Group(_) => "rbac_group",
            Self::User(_) => "user",
        }
    }

    /// The user's or group's id; empty for the organisation.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Organization => "",
            Self::Group(id) | Self::User(id) => id,
        }
    }

    pub(super) fn from_columns(kind: &str, id: &str) -> Option<Self> {
        match kind {
            "organization" => Some(Self::Organization),
            "rbac_group" => Some(Self::Group(id.to_owned())),
            "user" => Some(Self::User(id.to_owned())),
            _ => None,
        }
    }

    /// The scope as the admin API writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Organization => json!({"type": "organization"}),
            Self::Group(id) => json!({"type": "rbac_group", "rbac_group_id": id}),
            Self::User(id) => json!({"type": "user", "user_id": id}),
        }
    }
}

impl Listed {
    /// The cap as the admin API writes it, with what was spent from its pool.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = self.cap.to_json();
        json["type"] = "spend_limit".into();
        if self.cap.pool.is_some() {
            json["pooled_budget"]["currency"] = "USD".into();
            json["pooled_budget"]["period_to_date_spend"] = self.pool_spent.cents_rounded().into();
        }
        json
    }
}

impl Cap {
    /// The cap as its audit keeps it (contract B8), which is as far as administrators decide it: amounts are whole cents
    /// as text.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "id": self.id,
            "created_at": rfc3339_ms(self.created_at),
            "updated_at": rfc3339_ms(self.updated_at),
            "scope": self.scope.to_json(),
            "amount": self.cents.map(|cents| cents.to_string()),
            "currency": "USD",
            "period": self.period.as_str(),
        });
        if self.scope.may_have_pool(self.period) {
            json["pooled_budget"] = self.pool.map_or(Value::Null, Pool::to_json);
        }
        json
    }
}

impl InForce {
    /// The cap as an amount; one beyond the ledger's range is the range's end.
    #[must_use]
    pub const fn limit(&self) -> Money {
        Money::from_cents(self.cents)
    }
}

impl Caps {
    /// Reads all caps.
    ///
    /// # Errors
    /// When the database does not answer, or holds a cap that cannot be.
    pub async fn load(store: Store, clock: Arc<dyn Clock>, group_mode: GroupMode) -> Result<Self, StoreError> {
        let caps = Self { store, clock, group_mode, copy: Arc::default() };
        caps.refresh().await?;
        Ok(caps)
    }

    /// The caps in force for a principal, at most one a period: its own, else that of its groups, else the organisation's
    /// (contract B7).
    #[must_use]
    pub fn in_force(&self, principal: &Principal) -> Vec<InForce> {
        let copy = self.copy.load();
        Period::ALL.into_iter().filter_map(|period| copy.in_force(principal, period, self.group_mode)).collect()
    }

    /// Whether any cap or pool is in force for a principal.
    pub(super) fn limit(&self, principal: &Principal) -> bool {
        let copy = self.copy.load();
        let limits = |period| copy.deciding(principal, period, self.group_mode).is_some_and(|cap| cap.cents.is_some());
        Period::ALL.into_iter().any(limits) || copy.has_pool(principal)
    }

    /// Whether any is set on a group.
    pub(super) fn name_groups(&self) -> bool {
        !self.copy.load().groups.is_empty()
    }

    /// Which state of the table is known.
    pub(super) fn revision(&self) -> i64 {
        self.copy.load().revision
    }

    /// The pools of a principal's groups, in the order in which a request asks them for money; paused ones are not among
    /// them (contract B7).
    #[must_use]
    pub fn pools(&self, principal: &Principal) -> Vec<PoolInForce> {
        let copy = self.copy.load();
        let monthly = |group: &String| copy.groups.get(group)?[Period::Monthly as usize].as_deref();
        pool::in_order(principal.groups.iter().filter_map(monthly).filter_map(PoolInForce::of).collect())
    }

    /// The cap that decides for a principal in a period, also when it says "unlimited".
    #[must_use]
    pub fn deciding(&self, principal: &Principal, period: Period) -> Option<Arc<Cap>> {
        self.copy.load().deciding(principal, period, self.group_mode)
    }

    /// Sets a cap and returns it, and what it was; the change is in the audit table, or nothing has changed.
    ///
    /// # Errors
    /// When its pool cannot be, or the database does not take it.
    pub async fn set(&self, access: &WriteAccess, wanted: &Setting) -> Result<(Listed, Option<Cap>), SetError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        // First, so that two changes at once follow each other and each sees what the other left.
        table::bump_revision(&mut tx, TOPIC).await?;
        let before = table::find_cap_by_target(&mut tx, &wanted.scope, wanted.period).await?;
        let old_pool = before.as_ref().and_then(|before| before.pool);
        let pool = match wanted.pool {
            Some(change) => change.apply(old_pool, wanted.cents)?,
            None => old_pool.map(|pool| pool.stands_beside(wanted.cents)).transpose()?,
        };
        let cap = Cap {
            id: before.as_ref().map_or_else(new_id, |before| before.id.clone()),
            scope: wanted.scope.clone(),
            period: wanted.period,
            cents: wanted.cents,
            pool,
            created_at: before.as_ref().map_or(now, |before| before.created_at),
            updated_at: now,
        };
        table::put_cap(&mut tx, &cap, access.actor()).await?;
        self.finish(tx, access, "spend_limit.upsert", before.as_ref(), Some(&cap)).await?;
        let mut listed = self.listed(vec![cap]).await?;
        // One in, one out.
        let listed = listed.pop().ok_or_else(|| StoreError::inconsistent("spend_limit".to_owned()))?;
        Ok((listed, before))
    }

    /// Deletes a cap and returns what it was; `None` when there is none of this id.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn delete(&self, access: &WriteAccess, id: &str) -> Result<Option<Cap>, StoreError> {
        let mut tx = self.store.begin().await?;
        table::bump_revision(&mut tx, TOPIC).await?;
        let Some(before) = table::delete_cap(&mut tx, id).await? else { return Ok(None) };
        self.finish(tx, access, "spend_limit.delete", Some(&before), None).await?;
        Ok(Some(before))
    }

    async fn finish(
        &self,
        mut tx: Tx,
        access: &WriteAccess,
        action: &str,
        before: Option<&Cap>,
        after: Option<&Cap>,
    ) -> Result<(), StoreError> {
        let change = audit::AdminChange {
            at: self.clock.now(),
            actor: access.actor(),
            action,
            target: after.or(before).map_or("", |cap| &cap.id),
            before: before.map(Cap::to_json),
            after: after.map(Cap::to_json),
        };
        audit::record_admin_change(&mut tx, &change).await?;
        tx.notify(TOPIC).await?;
        tx.commit().await?;
        // The change stands whether or not it can be read back now; the next batch or poll reads it again.
        if let Err(error) = self.refresh().await {
            tracing::warn!("caps were changed but could not be read again yet: {error}");
        }
        Ok(())
    }

    /// The cap of this id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find(&self, id: &str) -> Result<Option<Listed>, StoreError> {
        let found = table::find_cap(&self.store, id).await?;
        Ok(self.listed(found.into_iter().collect()).await?.pop())
    }

    /// A page of at most `limit` caps; `None` when the id to start from is unknown.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn page(&self, from: &From, limit: usize, scope_kind: Option<&str>) -> Result<Option<Page>, StoreError> {
        let found = table::page_of_caps(&self.store, from, limit, scope_kind).await?;
        let Some((caps, has_more)) = found else { return Ok(None) };
        Ok(Some(Page { caps: self.listed(caps).await?, has_more }))
    }

    /// The caps in their order, each with what was spent from its pool.
    async fn listed(&self, caps: Vec<Cap>) -> Result<Vec<Listed>, StoreError> {
        let account = |cap: &Cap| match &cap.scope {
            Scope::Group(group) if cap.pool.is_some() => Some(pool::account_of(group)),
            _ => None,
        };
        let accounts: Vec<Arc<str>> = caps.iter().filter_map(account).collect();
        let keys = Keys::at(self.clock.now());
        let spent =
            if accounts.is_empty() { HashMap::new() } else { table::settled(&self.store, &accounts, &keys).await? };
        let month = keys.key(Period::Monthly);
        let of = |cap: &Cap| Some(*spent.get(&(Arc::clone(month), account(cap)?))?);
        Ok(caps.into_iter().map(|cap| Listed { pool_spent: of(&cap).unwrap_or_default(), cap }).collect())
    }

    /// Reads everything again.
    ///
    /// # Errors
    /// As [`Caps::load`].
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        self.refresh_in(&mut tx).await?;
        tx.commit().await
    }

    /// Reads everything again if another replica has changed something since.
    ///
    /// # Errors
    /// As [`Caps::load`].
    pub async fn refresh_if_changed(&self) -> Result<(), StoreError> {
        let revision = table::revision(&self.store, TOPIC).await?;
        if revision == self.copy.load().revision { Ok(()) } else { self.refresh().await }
    }

    /// Reads everything again, inside the transaction that is about to decide, unless the copy is of this revision.
    pub(super) async fn refresh_in_unless(&self, tx: &mut Tx, revision: i64) -> Result<(), StoreError> {
        if revision == self.copy.load().revision { Ok(()) } else { self.refresh_in(tx).await }
    }

    async fn refresh_in(&self, tx: &mut Tx) -> Result<(), StoreError> {
        // The revision first: a change that comes between is then read twice rather than missed.
        let mut copy = Copy { revision: table::revision_in(tx, TOPIC).await?, ..Copy::default() };
        for cap in table::all_caps(tx).await? {
            let slot = cap.period as usize;
            let target = match &cap.scope {
                Scope::Organization => &mut copy.organization,
                Scope::Group(group) => copy.groups.entry(group.clone()).or_default(),
                Scope::User(user) => copy.users.entry(user.clone()).or_default(),
            };
            target[slot] = Some(Arc::new(cap));
        }
        self.copy.store(Arc::new(copy));
        Ok(())
    }
}

fn new_id() -> String {
    format!("spl_{}", uuid::Uuid::new_v4().simple())
}
