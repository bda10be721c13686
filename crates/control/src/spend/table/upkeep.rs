//! What old rows and forgotten people need of the tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::account::finish;
use super::{AccountKey, Rows};
use crate::spend::Money;
use crate::spend::ledger::account::Balance;
use crate::store::{PORTION, Store, StoreError, Tx};

const SWEEP_USAGE: &str = "DELETE FROM usage WHERE id IN
    (SELECT id FROM usage WHERE started_at < $1 ORDER BY started_at LIMIT 2000)";
const SWEEP_PRINCIPALS: &str = "DELETE FROM principal WHERE sub IN
    (SELECT sub FROM principal WHERE seen_at < $1 LIMIT 2000)";
/// The names of periods of one kind are as long as each other, and sort as the periods do. What is in flight stays.
const SWEEP_ACCOUNTS: &str = "DELETE FROM account WHERE (period, id) IN
    (SELECT period, id FROM account WHERE period < $1 AND LENGTH(period) = $2 AND reserved = 0 LIMIT 2000)";

pub(in crate::spend) async fn sweep_usage(store: &Store, before: Timestamp) -> Result<u64, StoreError> {
    store.execute_in_portions(SWEEP_USAGE, &[before.as_millisecond().into()]).await
}

pub(in crate::spend) async fn sweep_principals(store: &Store, before: Timestamp) -> Result<u64, StoreError> {
    store.execute_in_portions(SWEEP_PRINCIPALS, &[before.as_millisecond().into()]).await
}

/// Of periods of one kind, those before `oldest`.
pub(in crate::spend) async fn sweep_accounts(store: &Store, oldest: &str) -> Result<u64, StoreError> {
    let length = i64::try_from(oldest.len()).unwrap_or(i64::MAX);
    store.execute_in_portions(SWEEP_ACCOUNTS, &[oldest.into(), length.into()]).await
}

/// The periods that a row counted in go with it, so that counters stay the sums of their rows.
const RENAME_USAGE: &str = "UPDATE usage
    SET principal = $1, account = $2, groups = '[]', session_id = NULL, agent_id = NULL, parent_agent_id = NULL
    WHERE id IN (SELECT id FROM usage WHERE principal = $3 LIMIT 2000)
    RETURNING day, week, month, charge";

/// Puts a pseudonym in the place of a subject in all usage rows; gives how many there were.
pub(in crate::spend) async fn rename_usage(store: &Store, sub: &str, pseudonym: &str) -> Result<usize, StoreError> {
    let (old, new): (Arc<str>, Arc<str>) = (format!("user:{sub}").into(), format!("user:{pseudonym}").into());
    let mut renamed = 0;
    loop {
        let mut tx = store.begin().await?;
        let rows = tx.fetch(RENAME_USAGE, &[pseudonym.into(), (&new).into(), sub.into()]).await?;
        let mut deltas: BTreeMap<AccountKey, Balance> = BTreeMap::new();
        for row in &rows {
            let charge = Money::from_nano(row.int(3)?);
            for period in 0..3 {
                let period: Arc<str> = row.text(period)?.into();
                let to = deltas.entry((Arc::clone(&period), Arc::clone(&new))).or_default();
                to.settled = to.settled.plus(charge);
                let from = deltas.entry((period, Arc::clone(&old))).or_default();
                from.settled = from.settled.minus(charge);
            }
        }
        let none = || Rows::of_ids(std::iter::empty());
        finish(tx, none(), none(), &deltas).await?;
        renamed += rows.len();
        if (rows.len() as u64) < PORTION {
            return Ok(renamed);
        }
    }
}

const MOVE_ACCOUNTS: &str = "INSERT INTO account (period, id, settled, reserved)
    SELECT period, $1, settled, 0 FROM account WHERE id = $2 AND settled <> 0
    ON CONFLICT (period, id) DO UPDATE SET settled = account.settled + excluded.settled";
const EMPTY_ACCOUNTS: &str = "UPDATE account SET settled = 0 WHERE id = $1 AND reserved <> 0";
const DELETE_ACCOUNTS: &str = "DELETE FROM account WHERE id = $1 AND reserved = 0";

/// What is left of a person's counters, older than any usage row, goes the same way; gives how many rows that were.
pub(in crate::spend) async fn rename_accounts(tx: &mut Tx, sub: &str, pseudonym: &str) -> Result<u64, StoreError> {
    let (old, new) = (format!("user:{sub}"), format!("user:{pseudonym}"));
    tx.execute(MOVE_ACCOUNTS, &[(&new).into(), (&old).into()]).await?;
    tx.execute(EMPTY_ACCOUNTS, &[(&old).into()]).await?;
    tx.execute(DELETE_ACCOUNTS, &[(&old).into()]).await
}

/// Whether there was one.
pub(in crate::spend) async fn forget_principal(tx: &mut Tx, sub: &str) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM principal WHERE sub = $1", &[sub.into()]).await? > 0)
}
