//! What an account holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::lease::INSERT_LEASES;
use super::reservation::INSERT_RESERVATIONS;
use super::{AccountKey, RowWriter, Rows};
use crate::spend::ledger::account::{Balance, Snapshot};
use crate::spend::period::Keys;
use crate::spend::{Money, Period};
use crate::store::{Row, Statement, Store, StoreError, Tx};

/// Ordered, so that every replica locks in the same order and none waits for one that waits for it.
const LOCK_ACCOUNTS: &str = "
    SELECT account.period, account.id, account.settled, account.reserved
    FROM json_each($1) AS e CROSS JOIN account
    WHERE account.period = e.value->>0 AND account.id = e.value->>1
    ORDER BY account.period, account.id";

/// Takes the rows for the rest of the transaction; those that do not exist are left out.
pub(in crate::spend) async fn lock_accounts(
    tx: &mut Tx,
    rows: &BTreeSet<AccountKey>,
) -> Result<HashMap<AccountKey, Balance>, StoreError> {
    let rows = Rows::of(rows.iter(), write_key);
    let rows = tx.fetch_for_update(LOCK_ACCOUNTS, &rows.param()).await?;
    read_rows(&rows)
}

fn write_key(row: &mut RowWriter<'_>, (period, account): &AccountKey) {
    row.text(period);
    row.text(account);
}

const CREATE_ACCOUNTS: &str = "
    INSERT INTO account (period, id, settled, reserved)
    SELECT e.value->>0, e.value->>1, 0, 0 FROM json_each($1) AS e WHERE true
    ON CONFLICT (period, id) DO NOTHING";

/// Creates rows without spend; one that exists is left alone.
pub(in crate::spend) async fn create_accounts(
    tx: &mut Tx,
    rows: impl Iterator<Item = &AccountKey>,
) -> Result<(), StoreError> {
    let rows = Rows::of(rows, write_key);
    tx.execute(CREATE_ACCOUNTS, &rows.param()).await.map(|_| ())
}

macro_rules! change_accounts {
    () => {
        "INSERT INTO account (period, id, settled, reserved)
    SELECT e.value->>0, e.value->>1, CAST(e.value->>2 AS BIGINT), CAST(e.value->>3 AS BIGINT)
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (period, id) DO UPDATE
    SET settled = account.settled + excluded.settled, reserved = account.reserved + excluded.reserved"
    };
}
const CHANGE_ACCOUNTS: &str = change_accounts!();
const CHANGE_AND_READ_ACCOUNTS: &str = concat!(change_accounts!(), " RETURNING period, id, settled, reserved");

fn rows_of_deltas(deltas: &BTreeMap<AccountKey, Balance>) -> Rows {
    Rows::of(deltas.iter(), |row, (key, delta)| {
        write_key(row, key);
        row.int(delta.settled.nano());
        row.int(delta.reserved.nano());
    })
}

/// Adds to accounts (creating the missing ones), and gives them as they are then.
pub(in crate::spend) async fn change_accounts(
    tx: &mut Tx,
    deltas: &BTreeMap<AccountKey, Balance>,
) -> Result<HashMap<AccountKey, Balance>, StoreError> {
    let rows = rows_of_deltas(deltas);
    read_rows(&tx.fetch(CHANGE_AND_READ_ACCOUNTS, &rows.param()).await?)
}

fn read_rows(rows: &[Row]) -> Result<HashMap<AccountKey, Balance>, StoreError> {
    let read = |row: &Row| {
        let balance = Balance { settled: Money::from_nano(row.int(2)?), reserved: Money::from_nano(row.int(3)?) };
        Ok(((row.text(0)?.into(), row.text(1)?.into()), balance))
    };
    rows.iter().map(read).collect()
}

/// Inserts new reservations and leases, adds to accounts (creating the missing ones), and commits.
pub(in crate::spend) async fn finish(
    tx: Tx,
    reservations: Rows,
    leases: Rows,
    deltas: &BTreeMap<AccountKey, Balance>,
) -> Result<(), StoreError> {
    let rows =
        [(INSERT_RESERVATIONS, reservations), (INSERT_LEASES, leases), (CHANGE_ACCOUNTS, rows_of_deltas(deltas))];
    let params = rows.iter().filter_map(|(sql, rows)| Some((*sql, rows.param_unless_empty()?))).collect::<Vec<_>>();
    let statements: Vec<Statement<'_>> = params.iter().map(|(sql, params)| (*sql, &params[..])).collect();
    tx.finish(&statements).await
}

const READ_ACCOUNT: &str = "SELECT period, settled, reserved FROM account WHERE id = $1 AND period IN ($2, $3, $4)";

pub(in crate::spend) async fn read_account(
    store: &Store,
    account: &str,
    keys: &Arc<Keys>,
    read_at: Instant,
) -> Result<Snapshot, StoreError> {
    let [day, week, month] = Period::ALL.map(|period| keys.key(period));
    let rows = store.fetch(READ_ACCOUNT, &[account.into(), day.into(), week.into(), month.into()]).await?;
    let mut balances = [Balance::default(); 3];
    for row in &rows {
        let key = row.text(0)?;
        let balance = Balance { settled: Money::from_nano(row.int(1)?), reserved: Money::from_nano(row.int(2)?) };
        if let Some(period) = Period::ALL.into_iter().find(|period| **keys.key(*period) == *key) {
            balances[period as usize] = balance;
        }
    }
    Ok(Snapshot { keys: Arc::clone(keys), balances, read_at })
}
