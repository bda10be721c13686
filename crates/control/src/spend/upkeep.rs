//! Upkeep of what the ledger leaves behind: old rows go, a person's name goes when asked, and the books can be proved.
//!
//! Knows the tables of spend; knows nothing of sessions, which end before somebody is erased.

mod proof;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, ToSpan as _};
use serde_json::json;

pub use self::proof::{Difference, Proof};

use super::report::usage::Width;
use super::{Period, cap, table};
use crate::audit;
use crate::clock::Clock;
use crate::identity::admin_key::WriteAccess;
use crate::store::{Store, StoreError, Tx};

/// How long rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// `admin.usage_retention_days`.
    pub usage_days: u16,
    /// `admin.spend_retention_months`.
    pub spend_months: u16,
    /// `admin.identity_retention_days`.
    pub identity_days: u16,
    /// `admin.audit_retention_days`.
    pub audit_days: u16,
}

impl Default for Retention {
    fn default() -> Self {
        Self { usage_days: 90, spend_months: 13, identity_days: 90, audit_days: 365 }
    }
}

/// Keeps the tables of spend; cheap to clone.
#[derive(Debug, Clone)]
pub struct Upkeep {
    store: Store,
    clock: Arc<dyn Clock>,
    retention: Retention,
}

/// Somebody who is no longer known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// What stands in the place of the subject.
    pub pseudonym: String,
    /// How many usage rows keep it.
    pub usage_rows: usize,
    /// How many limits the person had of their own; they are gone.
    pub caps: usize,
    /// Whether anything was known of the person.
    pub was_known: bool,
}

impl Upkeep {
    /// Keeps this store's tables.
    #[must_use]
    pub fn new(store: Store, clock: Arc<dyn Clock>, retention: Retention) -> Self {
        Self { store, clock, retention }
    }

    /// Removes what is older than its retention; gives how many rows that were.
    ///
    /// # Errors
    /// When the database does not answer; what was removed until then stays removed.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let before = |days: u16| now - SignedDuration::from_hours(24 * i64::from(days));
        let usage = self.oldest_usage(now);
        table::sweep_hours(&self.store, usage).await?;
        let mut removed = table::sweep_usage(&self.store, usage).await?;
        removed += table::sweep_principals(&self.store, before(self.retention.identity_days)).await?;
        for oldest in self.oldest_periods(now) {
            removed += table::sweep_accounts(&self.store, &oldest).await?;
        }
        removed += audit::sweep_admin_changes(&self.store, before(self.retention.audit_days)).await?;
        Ok(removed)
    }

    /// The beginning of the oldest hour whose usage rows are kept: hours go whole.
    fn oldest_usage(&self, now: Timestamp) -> Timestamp {
        Width::Hour.start(now - SignedDuration::from_hours(24 * i64::from(self.retention.usage_days)))
    }

    /// Adds up the usage rows of one hour that has been over for a while, or to which some came since; gives whether there
    /// may be another. A failure changes nothing but that reports go on reading those rows one by one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn fold_hour(&self) -> Result<bool, StoreError> {
        table::fold_hour(&self.store, self.clock.now()).await
    }

    /// The names of the oldest periods whose counters are kept.
    fn oldest_periods(&self, now: Timestamp) -> [String; 3] {
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        let oldest = today.checked_sub(i32::from(self.retention.spend_months).months()).unwrap_or(today);
        let oldest = oldest.to_zoned(jiff::tz::TimeZone::UTC).map_or(now, |zoned| zoned.timestamp());
        Period::ALL.map(|period| period.key(oldest))
    }

    /// Forgets who somebody is: the name, the address and the limits set on the person go; usage rows, totals and the audit of
    /// those limits, and of what the person did as an administrator, stay under a pseudonym that nothing leads back from.
    /// Requests still in flight leave rows of their own when they end; erasing again takes those too.
    ///
    /// # Errors
    /// When the database does not take it; doing it again finishes what was begun, under another pseudonym.
    pub async fn erase(&self, access: &WriteAccess, sub: &str) -> Result<Erased, StoreError> {
        let pseudonym = format!("erased-{}", uuid::Uuid::new_v4().simple());
        let usage_rows = table::rename_usage(&self.store, sub, &pseudonym).await?;
        let mut tx = self.store.begin().await?;
        table::rename_hours(&mut tx, sub, &pseudonym).await?;
        let accounts = table::rename_accounts(&mut tx, sub, &pseudonym).await?;
        let known = table::forget_principal(&mut tx, sub).await?;
        let caps = self.delete_caps(&mut tx, access, sub, &pseudonym).await?;
        let change = audit::AdminChange {
            at: self.clock.now(),
            actor: access.actor(),
            action: "principal.erase",
            // The subject would be what was to be forgotten.
            target: &pseudonym,
            before: None,
            after: Some(json!({ "usage_rows": usage_rows, "spend_limits": caps })),
        };
        audit::record_admin_change(&mut tx, &change).await?;
        // Last: somebody who erases themselves has just been written down.
        audit::rename_in_admin_changes(&mut tx, sub, &pseudonym).await?;
        tx.commit().await?;
        let was_known = known || accounts > 0 || usage_rows > 0 || caps > 0;
        Ok(Erased { was_known, pseudonym, usage_rows, caps })
    }

    /// Limits of nobody are of no use; their end is in their audit as that of any other.
    async fn delete_caps(
        &self,
        tx: &mut Tx,
        access: &WriteAccess,
        sub: &str,
        pseudonym: &str,
    ) -> Result<usize, StoreError> {
        table::bump_revision(tx, cap::TOPIC).await?;
        let caps = table::delete_caps_of(tx, sub).await?;
        for cap in &caps {
            let change = audit::AdminChange {
                at: self.clock.now(),
                actor: access.actor(),
                action: "spend_limit.delete",
                target: &cap.id,
                before: Some(cap.to_json()),
                after: None,
            };
            audit::record_admin_change(tx, &change).await?;
        }
        table::rename_creator(tx, sub, pseudonym).await?;
        tx.notify(cap::TOPIC).await?;
        Ok(caps.len())
    }
}
