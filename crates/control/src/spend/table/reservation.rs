//! What is in flight, and what a dead replica left there.

use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

use super::account::finish;
use super::fold::mark_late;
use super::lease::release_expired;
use super::{AccountKey, RowWriter, Rows, id, ids};
use crate::spend::Money;
use crate::spend::ledger::account::Balance;
use crate::spend::ledger::batch::Aside;
use crate::store::{Row, Store, StoreError, Tx};

pub(super) const INSERT_RESERVATIONS: &str = "
    INSERT INTO reservation
        (id, account, day, week, month, amount, replica, expires_at, started_at, principal, groups, model, session_id,
         agent_id, parent_agent_id, billing_group, model_asked, pool)
    SELECT e.value->>0, e.value->>1, e.value->>2, e.value->>3, e.value->>4, CAST(e.value->>5 AS BIGINT),
           e.value->>6, CAST(e.value->>7 AS BIGINT), CAST(e.value->>8 AS BIGINT), e.value->>9, e.value->>10,
           e.value->>11, e.value->>12, e.value->>13, e.value->>14, e.value->>15, e.value->>16,
           e.value->>17
    FROM json_each($1) AS e WHERE true
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

pub(in crate::spend) fn write_reservation(
    row: &mut RowWriter<'_>,
    aside: &Aside,
    replica: &str,
    expires_at: Timestamp,
) {
    let Aside { record, amount, pool } = aside;
    row.id(record.id);
    row.text(&record.account);
    row.periods(&record.keys);
    row.int(amount.nano());
    row.text(replica);
    row.int(expires_at.as_millisecond());
    row.int(record.started_at.as_millisecond());
    row.text(&record.principal.sub);
    row.groups(&record.principal);
    row.text(&record.model.id);
    row.origin(&record.origin);
    row.text_or_null(pool.as_deref());
}

/// Gives the ids that were not there before.
pub(in crate::spend) async fn insert_reservations(tx: &mut Tx, rows: &Rows) -> Result<HashSet<Uuid>, StoreError> {
    ids(&tx.fetch(INSERT_RESERVATIONS, &rows.param()).await?)
}

/// A reservation that was found in the table.
#[derive(Debug)]
pub(in crate::spend) struct Found {
    pub(in crate::spend) id: Uuid,
    pub(in crate::spend) amount: Money,
    account: Arc<str>,
    keys: [Arc<str>; 3],
    pool: Option<Arc<str>>,
}

impl Found {
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: id(row.text(0)?)?,
            account: row.text(1)?.into(),
            keys: [row.text(2)?.into(), row.text(3)?.into(), row.text(4)?.into()],
            amount: Money::from_nano(row.int(5)?),
            pool: row.text_or_null(6)?.map(Arc::from),
        })
    }

    /// The rows that count it: its payer's, and its pool's of the month.
    pub(super) fn account_keys(&self) -> impl Iterator<Item = AccountKey> {
        let own = self.keys.iter().map(|key| (Arc::clone(key), Arc::clone(&self.account)));
        let [_, _, month] = &self.keys;
        own.chain(self.pool.iter().map(|pool| (Arc::clone(month), Arc::clone(pool))))
    }

    /// Counts `reserved` more in its accounts.
    pub(in crate::spend) fn add_to(&self, deltas: &mut BTreeMap<AccountKey, Balance>, reserved: Money) {
        for key in self.account_keys() {
            let delta = deltas.entry(key).or_default();
            delta.reserved = delta.reserved.plus(reserved);
        }
    }
}

pub(super) const DELETE_RESERVATIONS: &str = "
    DELETE FROM reservation WHERE id IN (SELECT e.value->>0 FROM json_each($1) AS e)
    RETURNING id, account, day, week, month, amount, pool";

pub(in crate::spend) async fn delete_reservations(tx: &mut Tx, ids: &Rows) -> Result<Vec<Found>, StoreError> {
    tx.fetch(DELETE_RESERVATIONS, &ids.param()).await?.iter().map(Found::read).collect()
}

const AMOUNTS: &str = "SELECT id, amount FROM reservation WHERE id IN (SELECT e.value->>0 FROM json_each($1) AS e)";
const GROW_RESERVATIONS: &str = "
    UPDATE reservation SET amount = CAST(e.value->>1 AS BIGINT)
    FROM json_each($1) AS e WHERE reservation.id = e.value->>0 AND reservation.amount < CAST(e.value->>1 AS BIGINT)
    RETURNING reservation.id, reservation.account, reservation.day, reservation.week, reservation.month,
              reservation.amount, reservation.pool";

/// Sets amounts that are larger than those of the rows, and gives what has grown, and by how much. Only their own replica
/// changes rows; another may take them away, and what is gone does not grow.
pub(in crate::spend) async fn grow_reservations(
    tx: &mut Tx,
    amounts: &HashMap<Uuid, Money>,
) -> Result<Vec<(Found, Money)>, StoreError> {
    let rows = Rows::of(amounts.iter(), |row, (id, amount)| {
        row.id(*id);
        row.int(amount.nano());
    });
    let rows = rows.param();
    let mut answers = tx.fetch_all(&[(AMOUNTS, &rows), (GROW_RESERVATIONS, &rows)]).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let read = |row: &Row| Ok((id(row.text(0)?)?, Money::from_nano(row.int(1)?)));
    let before = next().iter().map(read).collect::<Result<HashMap<Uuid, Money>, StoreError>>()?;
    let by = |grown: Found| {
        let before = before.get(&grown.id).copied().unwrap_or(grown.amount);
        let by = grown.amount.minus(before);
        (grown, by)
    };
    next().iter().map(|row| Found::read(row).map(by)).collect()
}

const RENEW: &str = "UPDATE reservation SET expires_at = $1 WHERE replica = $2";

pub(in crate::spend) async fn renew_reservations(
    store: &Store,
    replica: &str,
    until: Timestamp,
) -> Result<u64, StoreError> {
    store.execute(RENEW, &[until.as_millisecond().into(), replica.into()]).await
}

/// `$2` is a replica whose reservations are alive whatever their expiry says: the one that asks.
const EXPIRED: &str =
    "SELECT id, started_at FROM reservation WHERE expires_at < $1 AND replica <> $2 ORDER BY id LIMIT 500";
/// That many, so that none of many statements takes long.
pub(super) const PORTION: usize = 500;

/// Settles at its estimate what no living replica will settle. The usage row says so, and the real charge replaces it if
/// it still comes.
const SETTLE_EXPIRED: &str = "
    INSERT INTO usage
        (id, started_at, principal, groups, session_id, agent_id, parent_agent_id, billing_group, model_asked, model,
         input_tokens, output_tokens, cache_read, cache_write_5m, cache_write_1h, web_searches, fast, charge, estimated,
         account, day, week, month, pool)
    SELECT id, started_at, principal, groups, session_id, agent_id, parent_agent_id, billing_group, model_asked, model,
           0, 0, 0, 0, 0, 0, 0, amount, 1, account, day, week, month, pool
    FROM reservation WHERE id IN (SELECT e.value->>0 FROM json_each($1) AS e)
    ON CONFLICT (id) DO NOTHING
    RETURNING id";

/// What dead replicas left.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::spend) struct Swept {
    /// Reservations that were settled at their estimates.
    pub(in crate::spend) settled: usize,
    /// Leases that were given back.
    pub(in crate::spend) released: usize,
    /// There may be more.
    pub(in crate::spend) more: bool,
}

fn began(expired: &[Row]) -> Result<Vec<Timestamp>, StoreError> {
    let read = |row: &Row| {
        let at = Timestamp::from_millisecond(row.int(1)?);
        at.map_err(|_| StoreError::inconsistent("reservation.started_at".to_owned()))
    };
    expired.iter().map(read).collect()
}

/// Settles expired reservations at their estimates, and gives expired leases back: a portion of them.
pub(in crate::spend) async fn sweep_expired(
    store: &Store,
    before: Timestamp,
    replica: &str,
) -> Result<Swept, StoreError> {
    let expired = store.fetch(EXPIRED, &[before.as_millisecond().into(), replica.into()]).await?;
    let rows = Rows::of_ids(ids(&expired)?.into_iter());
    let mut tx = store.begin().await?;
    let mut deltas = BTreeMap::new();
    let mut swept = Swept::default();
    if !expired.is_empty() {
        let new = ids(&tx.fetch(SETTLE_EXPIRED, &rows.param()).await?)?;
        // Only what this transaction takes away is counted: another replica may be sweeping too.
        for ended in delete_reservations(&mut tx, &rows).await? {
            ended.add_to(&mut deltas, Money::ZERO.minus(ended.amount));
            if new.contains(&ended.id) {
                for key in ended.account_keys() {
                    let delta = deltas.entry(key).or_default();
                    delta.settled = delta.settled.plus(ended.amount);
                }
                swept.settled += 1;
            }
        }
        // After the rows that a settlement may hold while it waits for what this holds.
        mark_late(&mut tx, before, began(&expired)?.into_iter()).await?;
    }
    swept.released = release_expired(&mut tx, before, replica, &mut deltas).await?;
    swept.more = expired.len() == PORTION || swept.released == PORTION;
    finish(tx, Rows::none(), Rows::none(), &deltas).await?;
    Ok(swept)
}
