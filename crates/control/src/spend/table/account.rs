//! What an account holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::reservation::INSERT_RESERVATIONS;
use super::{AccountKey, RowWriter, Rows};
use crate::spend::ledger::account::{Balance, Snapshot};
use crate::spend::period::Keys;
use crate::spend::{Money, Period};
use crate::store::{Statement, Store, StoreError, Tx};

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
    rows.iter()
        .map(|row| {
            let settled = Money::from_nano(row.int(2)?);
            let reserved = Money::from_nano(row.int(3)?);
            Ok(((row.text(0)?.into(), row.text(1)?.into()), Balance { settled, reserved }))
        })
        .collect()
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

const CHANGE_ACCOUNTS: &str = "
    INSERT INTO account (period, id, settled, reserved)
    SELECT e.value->>0, e.value->>1, CAST(e.value->>2 AS BIGINT), CAST(e.value->>3 AS BIGINT)
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (period, id) DO UPDATE
    SET settled = account.settled + excluded.settled, reserved = account.reserved + excluded.reserved";

fn rows_of_deltas(deltas: &BTreeMap<AccountKey, Balance>) -> Rows {
    Rows::of(deltas.iter(), |row, (key, delta)| {
        write_key(row, key);
        row.int(delta.settled.nano());
        row.int(delta.reserved.nano());
    })
}

/// Inserts new reservations, adds to accounts (creating the missing ones), and commits.
pub(in crate::spend) async fn finish(
    tx: Tx,
    reservations: Rows,
    deltas: &BTreeMap<AccountKey, Balance>,
) -> Result<(), StoreError> {
    let changes = rows_of_deltas(deltas);
    let (reservations, changes) = (reservations.param_unless_empty(), changes.param_unless_empty());
    let insert = reservations.as_ref().map(|rows| (INSERT_RESERVATIONS, &rows[..]));
    let change = changes.as_ref().map(|rows| (CHANGE_ACCOUNTS, &rows[..]));
    let statements: Vec<Statement<'_>> = insert.into_iter().chain(change).collect();
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
