//! The accounts that one transaction is about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::identity::Principal;
use crate::spend::ledger::account::{Balance, Snapshot};
use crate::spend::ledger::batch::{Aside, Ask, Record};
use crate::spend::ledger::lease::{Held, LeaseKey};
use crate::spend::period::Keys;
use crate::spend::table::{self, AccountKey};
use crate::spend::{Money, Period, PoolInForce};
use crate::store::{StoreError, Tx};

/// Changes to accounts, in the order in which their rows are locked - the same in every replica.
pub(super) type Deltas = BTreeMap<AccountKey, Balance>;

/// The rows that something is to be decided about.
pub(super) fn wanted(asks: &[Ask], pools: &[Vec<PoolInForce>], leases: &HashMap<LeaseKey, Held>) -> Vec<AccountKey> {
    let of_leases = leases.iter().map(|(key, held)| (&held.keys, &key.0));
    let of_asks = asks.iter().map(|ask| (&ask.record.keys, &ask.record.account));
    let own = of_asks.chain(of_leases);
    let own = own.flat_map(|(keys, account)| Period::ALL.map(|period| account_key(keys, period, account)));
    let months = asks.iter().zip(pools).flat_map(|(ask, pools)| {
        pools.iter().map(|pool| account_key(&ask.record.keys, Period::Monthly, &pool.account))
    });
    own.chain(months).collect()
}

/// The rows that a transaction is about.
#[derive(Debug, Default)]
pub(super) struct Balances {
    pub(super) rows: HashMap<AccountKey, Balance>,
}

impl Balances {
    /// The rows that are changed or wanted, as they stand once the changes are made; nobody else can change them until the
    /// transaction ends. None when nothing is to be decided: then the changes are made at the end.
    pub(super) async fn read(
        tx: &mut Tx,
        deltas: &mut Deltas,
        wanted: &[AccountKey],
        nobody_asks: bool,
    ) -> Result<Self, StoreError> {
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        if !nobody_asks {
            return Ok(Self { rows: lock(tx, deltas, wanted).await? });
        }
        for key in wanted {
            deltas.entry(key.clone()).or_default();
        }
        // As a rule nothing is left to change after that: one statement instead of two.
        Ok(Self { rows: table::change_accounts(tx, &std::mem::take(deltas)).await? })
    }

    pub(super) fn snapshot(&self, account: &Arc<str>, keys: &Arc<Keys>, read_at: Instant) -> Snapshot {
        let balance = |period| self.rows.get(&account_key(keys, period, account)).copied();
        let balances = Period::ALL.map(|period| balance(period).unwrap_or_default());
        Snapshot { keys: Arc::clone(keys), balances, read_at }
    }

    pub(super) fn pool(&self, pool: &PoolInForce, keys: &Keys) -> Balance {
        self.rows.get(&account_key(keys, Period::Monthly, &pool.account)).copied().unwrap_or_default()
    }

    pub(super) fn reserve(&mut self, aside: &Aside) {
        for key in account_keys(&aside.record, aside.pool.as_ref()) {
            let balance = self.rows.entry(key).or_default();
            balance.reserved = balance.reserved.plus(aside.amount);
        }
    }

    pub(super) fn pools(&self, asks: &[Ask], pools: &[Vec<PoolInForce>]) -> Vec<(Arc<str>, Arc<str>, Money)> {
        let of_ask = |(ask, pools): (&Ask, &Vec<PoolInForce>)| {
            let keys = Arc::clone(&ask.record.keys);
            let month = Arc::clone(keys.key(Period::Monthly));
            let of_pool =
                |pool: &PoolInForce| (Arc::clone(&pool.account), Arc::clone(&month), self.pool(pool, &keys).settled);
            pools.iter().map(of_pool).collect::<Vec<_>>()
        };
        asks.iter().zip(pools).flat_map(of_ask).collect()
    }

    pub(super) fn snapshots(&self, asks: &[Ask], read_at: Instant) -> Vec<(Arc<Principal>, Snapshot)> {
        let accounts: HashMap<&str, &Record> = asks.iter().map(|ask| (&*ask.record.account, &*ask.record)).collect();
        let snapshot = |record: &Record| self.snapshot(&record.account, &record.keys, read_at);
        accounts.into_values().map(|record| (Arc::clone(&record.principal), snapshot(record))).collect()
    }
}

async fn lock(tx: &mut Tx, deltas: &Deltas, asked: &[AccountKey]) -> Result<HashMap<AccountKey, Balance>, StoreError> {
    let wanted: BTreeSet<AccountKey> = deltas.keys().chain(asked).cloned().collect();
    let mut rows = table::lock_accounts(tx, &wanted).await?;
    if rows.len() < wanted.len() {
        // The first spend of a period. Whoever else creates the row meanwhile, it is there then.
        let missing = wanted.iter().filter(|key| !rows.contains_key(*key));
        table::create_accounts(tx, missing).await?;
        rows = table::lock_accounts(tx, &wanted).await?;
    }
    for (key, delta) in deltas {
        rows.entry(key.clone()).or_default().add(*delta);
    }
    Ok(rows)
}

/// The rows that count a request: its payer's by period, and its pool's by month.
pub(super) fn account_keys<'a>(
    record: &'a Record,
    pool: Option<&'a Arc<str>>,
) -> impl Iterator<Item = AccountKey> + 'a {
    let own = Period::ALL.into_iter().map(|period| account_key(&record.keys, period, &record.account));
    own.chain(pool.map(|pool| account_key(&record.keys, Period::Monthly, pool)))
}

/// The key of an account's row.
pub(super) fn account_key(keys: &Keys, period: Period, account: &Arc<str>) -> AccountKey {
    (Arc::clone(keys.key(period)), Arc::clone(account))
}
