//! What old rows, forgotten people and a proof of the books need of the tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::account::finish;
use super::{AccountKey, Rows};
use crate::spend::ledger::account::Balance;
use crate::spend::upkeep::Difference;
use crate::spend::{Money, Period};
use crate::store::{Row, Store, StoreError, Tx};

/// Rows to a statement, so that none holds up the ledger.
const BATCH: u64 = 2_000;

const SWEEP_USAGE: &str = "DELETE FROM usage WHERE id IN
    (SELECT id FROM usage WHERE started_at < $1 ORDER BY started_at LIMIT 2000)";
const SWEEP_PRINCIPALS: &str = "DELETE FROM principal WHERE sub IN
    (SELECT sub FROM principal WHERE seen_at < $1 LIMIT 2000)";
/// The names of periods of one kind are as long as each other, and sort as the periods do. What is in flight stays.
const SWEEP_ACCOUNTS: &str = "DELETE FROM account WHERE (period, id) IN
    (SELECT period, id FROM account WHERE reserved = 0 AND
        ((LENGTH(period) = 10 AND period < $1) OR (LENGTH(period) = 8 AND period < $2)
         OR (LENGTH(period) = 7 AND period < $3)) LIMIT 2000)";

pub(in crate::spend) async fn sweep_usage(store: &Store, before: Timestamp) -> Result<u64, StoreError> {
    sweep(store, SWEEP_USAGE, &[before.as_millisecond().into()]).await
}

pub(in crate::spend) async fn sweep_principals(store: &Store, before: Timestamp) -> Result<u64, StoreError> {
    sweep(store, SWEEP_PRINCIPALS, &[before.as_millisecond().into()]).await
}

pub(in crate::spend) async fn sweep_accounts(store: &Store, oldest: &[String; 3]) -> Result<u64, StoreError> {
    let [day, week, month] = oldest;
    sweep(store, SWEEP_ACCOUNTS, &[day.into(), week.into(), month.into()]).await
}

async fn sweep(store: &Store, sql: &str, params: &[crate::store::Param<'_>]) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let batch = store.execute(sql, params).await?;
        removed += batch;
        if batch < BATCH {
            return Ok(removed);
        }
    }
}

/// Rows count against what the counter holds; what is left is the difference.
const RESERVED: &str = "SELECT x.id, x.period, CAST(SUM(x.amount) AS BIGINT) FROM (
            SELECT id, period, reserved AS amount FROM account WHERE reserved <> 0
            UNION ALL SELECT account, day, -amount FROM reservation
            UNION ALL SELECT account, week, -amount FROM reservation
            UNION ALL SELECT account, month, -amount FROM reservation
            UNION ALL SELECT pool, month, -amount FROM reservation WHERE pool IS NOT NULL
            UNION ALL SELECT account, day, -amount FROM lease
            UNION ALL SELECT account, week, -amount FROM lease
            UNION ALL SELECT account, month, -amount FROM lease
        ) AS x GROUP BY x.id, x.period HAVING SUM(x.amount) <> 0 ORDER BY x.id, x.period";

pub(in crate::spend) async fn reserved_differences(store: &Store) -> Result<Vec<Difference>, StoreError> {
    let rows = store.fetch(RESERVED, &[]).await?;
    let read = |row: &Row| difference(row, "reserved", row.text(1)?);
    rows.iter().map(read).collect()
}

macro_rules! settled_difference {
    ($column:literal, $pools:literal) => {
        concat!(
            "SELECT x.id, CAST(SUM(x.amount) AS BIGINT) FROM (
                SELECT id, settled AS amount FROM account WHERE period = $1
                UNION ALL SELECT account, -charge FROM usage WHERE ",
            $column,
            " = $1 AND started_at >= $2 AND started_at < $3",
            $pools,
            ") AS x GROUP BY x.id HAVING SUM(x.amount) <> 0 ORDER BY x.id"
        )
    };
}
const SETTLED_DAY: &str = settled_difference!("day", "");
const SETTLED_WEEK: &str = settled_difference!("week", "");
const SETTLED_MONTH: &str = settled_difference!(
    "month",
    " UNION ALL SELECT pool, -charge FROM usage WHERE month = $1 AND started_at >= $2 AND started_at < $3 \
     AND pool IS NOT NULL"
);

/// Of the period that `at` lies in.
pub(in crate::spend) async fn settled_differences(
    store: &Store,
    period: Period,
    at: Timestamp,
) -> Result<Vec<Difference>, StoreError> {
    let sql = match period {
        Period::Daily => SETTLED_DAY,
        Period::Weekly => SETTLED_WEEK,
        Period::Monthly => SETTLED_MONTH,
    };
    let key = period.key(at);
    let (starts, ends) = (period.starts(at).as_millisecond(), period.ends(at).as_millisecond());
    let rows = store.fetch(sql, &[(&key).into(), starts.into(), ends.into()]).await?;
    rows.iter().map(|row| difference_of(row, "settled", &key, 1)).collect()
}

fn difference(row: &Row, counter: &'static str, period: &str) -> Result<Difference, StoreError> {
    difference_of(row, counter, period, 2)
}

fn difference_of(row: &Row, counter: &'static str, period: &str, amount: usize) -> Result<Difference, StoreError> {
    let excess = Money::from_nano(row.int(amount)?);
    Ok(Difference { account: row.text(0)?.to_owned(), period: period.to_owned(), counter, excess })
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
        if (rows.len() as u64) < BATCH {
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
