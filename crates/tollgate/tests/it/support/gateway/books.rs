//! What a gateway has left in its database.

use std::time::Duration;

use control::store::{Config, PostgresConfig, Row, Store as Database, StoreError};

use crate::support::database::Store;

/// The ledger as it stands.
#[derive(Debug)]
pub(crate) struct Books {
    /// One per request that was settled, in the order in which they began.
    pub(crate) usage: Vec<Usage>,
    /// Nano-dollars that the accounts say were spent today.
    pub(crate) settled: i64,
    /// Nano-dollars that are still set aside.
    pub(crate) reserved: i64,
    /// What administrators changed: who, what, and the amounts before and after.
    pub(crate) changes: Vec<String>,
    /// Every text that the sign-in keeps, on one heap.
    pub(crate) sign_in: String,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) principal: String,
    pub(crate) output_tokens: i64,
    /// In nano-dollars.
    pub(crate) charge: i64,
    pub(crate) estimated: bool,
}

impl Books {
    pub(super) async fn read(store: &Store) -> Self {
        let database = open(store).await;
        let usage = "SELECT principal, output_tokens, charge, estimated FROM usage ORDER BY started_at";
        let usage = database.fetch(usage, &[]).await.unwrap();
        let day = "SELECT CAST(COALESCE(SUM(settled), 0) AS BIGINT), CAST(COALESCE(SUM(reserved), 0) AS BIGINT) \
                   FROM account WHERE LENGTH(period) = 10";
        let day = database.fetch(day, &[]).await.unwrap();
        let grants = "SELECT code_hash, user_code, sealed FROM device_grants";
        let grants = database.fetch(grants, &[]).await.unwrap();
        let changes = "SELECT actor, action, before, after FROM admin_audit ORDER BY id";
        let changes = database.fetch(changes, &[]).await.unwrap();
        Self {
            changes: changes.iter().map(change).collect(),
            usage: usage.iter().map(|row| Usage::read(row).unwrap()).collect(),
            settled: day[0].int(0).unwrap(),
            reserved: day[0].int(1).unwrap(),
            sign_in: grants.iter().map(text_of_grant).collect(),
        }
    }

    /// Nano-dollars that all requests cost.
    pub(crate) fn charged(&self) -> i64 {
        self.usage.iter().map(|usage| usage.charge).sum()
    }
}

impl Usage {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            principal: row.text(0)?.to_owned(),
            output_tokens: row.int(1)?,
            charge: row.int(2)?,
            estimated: row.int(3)? == 1,
        })
    }
}

fn change(row: &Row) -> String {
    let amount = |column| match row.text_or_null(column).unwrap() {
        None => "-".to_owned(),
        Some(json) => {
            let amount = serde_json::from_str::<serde_json::Value>(json).unwrap()["amount"].clone();
            amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)
        }
    };
    format!("{} {} {} {}", row.text(0).unwrap(), row.text(1).unwrap(), amount(2), amount(3))
}

fn text_of_grant(row: &Row) -> String {
    (0..3).map(|column| row.text_or_null(column).unwrap().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

/// A database that no gateway has open, its tables made.
pub(crate) async fn open(store: &Store) -> Database {
    Database::open(&config(store)).await.unwrap()
}

fn config(store: &Store) -> Config {
    match store {
        Store::Sqlite(_) => Config::Sqlite { path: store.sqlite_path().unwrap() },
        Store::Postgres(url) => Config::Postgres(PostgresConfig {
            url: url.clone().into(),
            username: None,
            password: None,
            max_connections: 1,
            connect_timeout: Duration::from_secs(5),
        }),
    }
}
