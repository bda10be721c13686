//! Store: one database, PostgreSQL or SQLite, behind one small interface.
//!
//! Knows drivers, transactions and migrations; knows no table. Rooms keep their SQL in their own `table.rs`, one text for
//! both databases: columns are BIGINT (times in Unix milliseconds, booleans as 0 and 1), TEXT (JSON too) and BYTEA/BLOB.

pub mod error;
mod migrate;
mod postgres;
mod row;
mod sqlite;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub use error::StoreError;
pub use row::{Param, Row};

/// Which database, and how to reach it.
#[derive(Debug, Clone)]
pub enum Config {
    /// `store.postgres_url` and its companions.
    Postgres(PostgresConfig),
    /// `store.sqlite_path`, or the default beside the configuration file.
    Sqlite {
        /// The database file; created with mode 0600 when absent.
        path: PathBuf,
    },
}

/// How to reach PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://` or `postgresql://` URL, possibly with credentials.
    pub url: SecretString,
    /// Overrides the URL's user.
    pub username: Option<String>,
    /// Overrides the URL's password.
    pub password: Option<SecretString>,
    /// Pool size; at least 1.
    pub max_connections: usize,
    /// How long one connection attempt may take.
    pub connect_timeout: Duration,
}

/// A handle on the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Inner,
}

#[derive(Debug, Clone)]
enum Inner {
    Postgres(postgres::Postgres),
    Sqlite(sqlite::Sqlite),
}

/// An open transaction; dropped without [`Tx::commit`] it is rolled back.
#[derive(Debug)]
pub struct Tx {
    inner: TxInner,
}

#[derive(Debug)]
enum TxInner {
    Postgres(postgres::PostgresTx),
    Sqlite(sqlite::SqliteTx),
}

/// A statement with its parameters, for those that are sent together.
pub type Statement<'a> = (&'a str, &'a [Param<'a>]);

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    Durable,
    Lazy,
    /// There is nothing to commit: it only reads, and sees the database as it was when it began.
    Snapshot,
}

/// No statement, and no wait for a connection, takes longer than this.
pub const STATEMENT_BUDGET: Duration = Duration::from_secs(2);

/// How many rows one statement of [`Store::execute_in_portions`] touches at the most.
pub const PORTION: u64 = 2000;

impl Store {
    /// Connects (three attempts, two seconds apart, for PostgreSQL), takes the file lock (SQLite) and migrates.
    ///
    /// # Errors
    /// When the database cannot be reached or opened, is held by another process, or a migration fails.
    pub async fn open(config: &Config) -> Result<Self, StoreError> {
        let inner = match config {
            Config::Postgres(config) => Inner::Postgres(postgres::Postgres::open(config).await?),
            Config::Sqlite { path } => Inner::Sqlite(sqlite::Sqlite::open(path).await?),
        };
        Ok(Self { inner })
    }

    /// Connects to a database that a gateway has set up, to look at it: no second attempt, no file is made, and nothing is
    /// migrated.
    ///
    /// # Errors
    /// When the database cannot be reached or opened, or is held by another process.
    pub async fn attach(config: &Config) -> Result<Self, StoreError> {
        let inner = match config {
            Config::Postgres(config) => Inner::Postgres(postgres::Postgres::attach(config)?),
            Config::Sqlite { path } if !path.exists() => {
                return Err(StoreError::unreachable(format!("{} does not exist yet", path.display())));
            }
            Config::Sqlite { path } => Inner::Sqlite(sqlite::Sqlite::attach(path).await?),
        };
        Ok(Self { inner })
    }

    /// Runs one statement by itself and returns how many rows it touched.
    ///
    /// # Errors
    /// When the statement fails or the two-second budget is over.
    pub async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        match &self.inner {
            Inner::Postgres(postgres) => postgres.execute(sql, params).await,
            Inner::Sqlite(sqlite) => sqlite.execute(sql, params).await,
        }
    }

    /// Repeats a statement that touches at most [`PORTION`] rows (its text says so) until there are no more, and returns how
    /// many it touched in all: however many have gathered, none of them takes long.
    ///
    /// # Errors
    /// As [`Store::execute`]; what was done until then stays done.
    pub async fn execute_in_portions(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        let mut touched = 0;
        loop {
            let portion = self.execute(sql, params).await?;
            touched += portion;
            if portion < PORTION {
                return Ok(touched);
            }
        }
    }

    /// Runs one statement by itself and returns its rows.
    ///
    /// # Errors
    /// When the statement fails or the two-second budget is over.
    pub async fn fetch(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        match &self.inner {
            Inner::Postgres(postgres) => postgres.fetch(sql, params).await,
            Inner::Sqlite(sqlite) => sqlite.fetch(sql, params).await,
        }
    }

    /// Like [`Store::fetch`], for a statement that gives at most one row.
    ///
    /// # Errors
    /// When the statement fails or the two-second budget is over.
    pub async fn fetch_optional(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(sql, params).await?.into_iter().next())
    }

    /// Begins a transaction (`BEGIN IMMEDIATE` on SQLite, where it excludes every other statement until it ends).
    ///
    /// # Errors
    /// When no connection can be had within the budget.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        self.begin_with(Commit::Durable).await
    }

    /// As [`Store::begin`], for a transaction whose commit everyone sees at once, but which a crash of the database's
    /// machine may undo until a later durable transaction is committed.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub async fn begin_lazily(&self) -> Result<Tx, StoreError> {
        self.begin_with(Commit::Lazy).await
    }

    /// Begins a transaction that only reads: all its statements see the database as it was at the first of them, whatever is
    /// committed meanwhile.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub async fn begin_snapshot(&self) -> Result<Tx, StoreError> {
        self.begin_with(Commit::Snapshot).await
    }

    async fn begin_with(&self, commit: Commit) -> Result<Tx, StoreError> {
        let inner = match &self.inner {
            Inner::Postgres(postgres) => TxInner::Postgres(postgres.begin(commit).await?),
            Inner::Sqlite(sqlite) => TxInner::Sqlite(sqlite.begin(commit).await?),
        };
        Ok(Tx { inner })
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it gives none within `budget`.
    pub async fn ping(&self, budget: Duration) -> Result<(), StoreError> {
        match tokio::time::timeout(budget, self.fetch("SELECT 1", &[])).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(StoreError::timed_out()),
        }
    }

    /// Calls `on_change` with the topic of every [`Tx::notify`] that another replica commits, and with `None` whenever some
    /// may have been missed (after each connection). Runs until dropped; without replicas there is nothing to hear.
    pub async fn listen(&self, on_change: impl Fn(Option<&str>)) {
        match &self.inner {
            Inner::Postgres(postgres) => postgres.listen(on_change).await,
            Inner::Sqlite(_) => std::future::pending().await,
        }
    }

    /// Whether the embedded database serves, which no other process can share.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self.inner, Inner::Sqlite(_))
    }
}

impl Tx {
    /// Runs a statement and returns how many rows it touched.
    ///
    /// # Errors
    /// When the statement fails or the two-second budget is over; the transaction must then be dropped.
    pub async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        match &mut self.inner {
            TxInner::Postgres(tx) => tx.execute(sql, params).await,
            TxInner::Sqlite(tx) => tx.execute(sql, params).await,
        }
    }

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn fetch(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        match &mut self.inner {
            TxInner::Postgres(tx) => tx.fetch(sql, params).await,
            TxInner::Sqlite(tx) => tx.fetch(sql, params).await,
        }
    }

    /// Like [`Tx::fetch`], for a statement that gives at most one row.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn fetch_optional(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(sql, params).await?.into_iter().next())
    }

    /// Runs statements that do not depend on each other's answers, in their order and one round trip, and returns the rows of
    /// each.
    ///
    /// # Errors
    /// As [`Tx::execute`], for the first that fails.
    pub async fn fetch_all(&mut self, statements: &[Statement<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        match &mut self.inner {
            TxInner::Postgres(tx) => tx.fetch_all(statements).await,
            TxInner::Sqlite(tx) => tx.fetch_all(statements).await,
        }
    }

    /// Runs statements whose answers nobody asks for, and commits, in one round trip.
    ///
    /// # Errors
    /// As [`Tx::commit`]; when a statement fails, nothing is committed.
    pub async fn finish(self, statements: &[Statement<'_>]) -> Result<(), StoreError> {
        match self.inner {
            TxInner::Postgres(tx) => tx.finish(statements).await,
            TxInner::Sqlite(tx) => tx.finish(statements).await,
        }
    }

    /// As [`Tx::fetch`], for a `SELECT` whose rows nobody else may change until this transaction ends.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn fetch_for_update(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        match &mut self.inner {
            TxInner::Postgres(tx) => tx.fetch(&format!("{sql} FOR UPDATE"), params).await,
            // A transaction has the whole database to itself.
            TxInner::Sqlite(tx) => tx.fetch(sql, params).await,
        }
    }

    /// Tells every replica about a change of `topic`, once this transaction is committed.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub async fn notify(&mut self, topic: &str) -> Result<(), StoreError> {
        match &mut self.inner {
            TxInner::Postgres(tx) => {
                tx.fetch("SELECT CAST(pg_notify('tollgate', $1) AS TEXT)", &[topic.into()]).await.map(|_| ())
            }
            // The embedded database has one process, which knows what it did.
            TxInner::Sqlite(_) => Ok(()),
        }
    }

    /// Makes it so.
    ///
    /// # Errors
    /// When the database refuses, or does not answer: then nobody knows whether it is so.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.inner {
            TxInner::Postgres(tx) => tx.commit().await,
            TxInner::Sqlite(tx) => tx.commit().await,
        }
    }
}
