//! Slices of accounts' headroom that replicas admit from.

use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{AccountKey, RowWriter, Rows};
use crate::spend::Money;
use crate::spend::ledger::account::Balance;
use crate::spend::ledger::lease::LeaseKey;
use crate::spend::period::Keys;
use crate::store::{Param, Statement, Store, StoreError, Tx};

const TAKE_LEASES: &str = "
    DELETE FROM lease WHERE replica = $1 AND (account, day) IN
        (SELECT e.value->>0, e.value->>1 FROM json_each($2) AS e)
    RETURNING account, day, amount";

/// Takes away the rows of some of a replica's leases and gives what they held: the last word on what they are, whatever was
/// heard of earlier transactions.
pub(in crate::spend) async fn take_leases<'a>(
    tx: &mut Tx,
    replica: &str,
    keys: impl Iterator<Item = &'a LeaseKey>,
) -> Result<HashMap<LeaseKey, Money>, StoreError> {
    let rows = Rows::of(keys, |row, (account, day)| {
        row.text(account);
        row.text(day);
    });
    let taken = tx.fetch(TAKE_LEASES, &[replica.into(), rows.param()[0]]).await?;
    taken.iter().map(|row| Ok(((row.text(0)?.into(), row.text(1)?.into()), Money::from_nano(row.int(2)?)))).collect()
}

pub(super) const INSERT_LEASES: &str = "
    INSERT INTO lease (replica, account, day, week, month, amount, expires_at)
    SELECT e.value->>0, e.value->>1, e.value->>2, e.value->>3, e.value->>4, CAST(e.value->>5 AS BIGINT),
           CAST(e.value->>6 AS BIGINT)
    FROM json_each($1) AS e WHERE true";

/// One lease, for [`super::finish`].
pub(in crate::spend) fn write_lease(
    row: &mut RowWriter<'_>,
    replica: &str,
    account: &str,
    keys: &Keys,
    amount: Money,
    expires_at: Timestamp,
) {
    row.text(replica);
    row.text(account);
    row.periods(keys);
    row.int(amount.nano());
    row.int(expires_at.as_millisecond());
}

const RENEW_LEASES: &str = "UPDATE lease SET expires_at = $1 WHERE replica = $2";

/// Gives how many there were.
pub(in crate::spend) async fn renew_leases(store: &Store, replica: &str, until: Timestamp) -> Result<u64, StoreError> {
    store.execute(RENEW_LEASES, &[until.as_millisecond().into(), replica.into()]).await
}

/// `$2` is the replica that asks: it gives its own back when it wants.
const DELETE_EXPIRED: &str = "
    DELETE FROM lease WHERE (replica, account, day) IN
        (SELECT replica, account, day FROM lease WHERE expires_at < $1 AND replica <> $2 LIMIT 500)
    RETURNING account, day, week, month, amount";

/// Gives back to their accounts what dead replicas held and had not used, as far as anyone knows: at most
/// [`super::reservation::PORTION`] of it.
pub(super) async fn release_expired(
    tx: &mut Tx,
    before: Timestamp,
    replica: &str,
    deltas: &mut BTreeMap<AccountKey, Balance>,
) -> Result<usize, StoreError> {
    let params: [Param<'_>; 2] = [before.as_millisecond().into(), replica.into()];
    let expired = tx.fetch(DELETE_EXPIRED, &params).await?;
    for row in &expired {
        let account: Arc<str> = row.text(0)?.into();
        let amount = Money::from_nano(row.int(4)?);
        for column in 1..4 {
            let delta = deltas.entry((row.text(column)?.into(), Arc::clone(&account))).or_default();
            delta.reserved = delta.reserved.minus(amount);
        }
    }
    Ok(expired.len())
}

/// Do nothing, but wait as the ledger's transactions would for tables that somebody has locked.
const PROBES: [&str; 4] = [
    "DELETE FROM reservation WHERE 1 = 0",
    "DELETE FROM usage WHERE 1 = 0",
    "DELETE FROM account WHERE 1 = 0",
    "DELETE FROM lease WHERE 1 = 0",
];

/// Whether the ledger's tables can be written.
pub(in crate::spend) async fn probe(store: &Store) -> Result<(), StoreError> {
    let tx = store.begin().await?;
    tx.finish(&PROBES.map(|sql| -> Statement<'_> { (sql, &[]) })).await
}
