//! PostgreSQL through a pool of pipelining connections.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use futures_util::future::{poll_fn, try_join, try_join_all, try_join3};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use super::row::Value;
use super::tls::Tls;
use super::{Commit, Param, PostgresConfig, Row, STATEMENT_BUDGET, Statement, StoreError, migrate};

/// Attempts to reach the database at boot, and the pause between them.
const BOOT_ATTEMPTS: u32 = 3;
const BOOT_PAUSE: Duration = Duration::from_secs(2);
/// Pause before a lost LISTEN connection is opened again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// A pool of connections.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    pool: Pool,
    server: Arc<Server>,
}

/// How to open a connection outside the pool.
#[derive(Debug)]
struct Server {
    config: Config,
    tls: Tls,
}

/// An open transaction on a connection of its own.
#[derive(Debug)]
pub(super) struct PostgresTx {
    // `None` only once committed.
    client: Option<Box<Object>>,
    /// What begins it; sent with the first statement.
    begin: Option<&'static str>,
}

impl Postgres {
    pub(super) async fn open(settings: &PostgresConfig) -> Result<Self, StoreError> {
        let postgres = Self::attach(settings)?;
        let Server { config, tls } = &*postgres.server;
        let mut migrator = reach(config, tls, settings.connect_timeout).await?;
        migrate::postgres(&mut migrator).await?;
        Ok(postgres)
    }

    /// Connects when something is first asked.
    pub(super) fn attach(settings: &PostgresConfig) -> Result<Self, StoreError> {
        let (url, tls) = Tls::from_url(settings.url.expose_secret())?;
        let mut config: Config = url.parse().map_err(|error| {
            StoreError::unreachable(format!("store.postgres_url cannot be understood: {}", cause(&error)))
        })?;
        if let Some(username) = &settings.username {
            config.user(username);
        }
        if let Some(password) = &settings.password {
            config.password(password.expose_secret());
        }
        config.ssl_mode(tls.mode()).connect_timeout(settings.connect_timeout).application_name("tollgate");
        let manager = match &tls {
            Tls::Off => Manager::from_config(config.clone(), NoTls, recycling()),
            Tls::On { connector, .. } => Manager::from_config(config.clone(), connector.clone(), recycling()),
        };
        let pool = Pool::builder(manager)
            .max_size(settings.max_connections)
            // Not as start-up options: PgBouncer refuses those.
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move {
                    let prepare = "SET search_path TO tollgate; SET statement_timeout = 2000; \
                         SET idle_in_transaction_session_timeout = 10000";
                    client.batch_execute(prepare).await.map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(StoreError::unreachable)?;
        Ok(Self { pool, server: Arc::new(Server { config, tls }) })
    }

    pub(super) async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        execute(&self.client().await?, sql, params).await
    }

    pub(super) async fn fetch(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        fetch(&self.client().await?, sql, params).await
    }

    pub(super) async fn begin(&self, commit: Commit) -> Result<PostgresTx, StoreError> {
        let client = self.client().await?;
        let begin = match commit {
            Commit::Durable => "BEGIN",
            // One round trip for both.
            Commit::Lazy => "BEGIN; SET LOCAL synchronous_commit TO off",
            Commit::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(PostgresTx { client: Some(Box::new(client)), begin: Some(begin) })
    }

    /// Calls `on_change` with every topic that a replica notifies, and with `None` after each (re)connection, when
    /// anything may have been missed. Runs until dropped.
    pub(super) async fn listen(&self, on_change: impl Fn(Option<&str>)) {
        loop {
            // What ends it is an outage, which the statements of the rooms report.
            let _ = self.listen_once(&on_change).await;
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    }

    async fn listen_once(&self, on_change: &impl Fn(Option<&str>)) -> Result<(), StoreError> {
        let Server { config, tls } = &*self.server;
        match tls {
            Tls::Off => {
                let (client, connection) = config.connect(NoTls).await.map_err(|e| unreachable(&e))?;
                follow(client, connection, on_change).await
            }
            Tls::On { connector, .. } => {
                let (client, connection) = config.connect(connector.clone()).await.map_err(|e| unreachable(&e))?;
                follow(client, connection, on_change).await
            }
        }
    }

    async fn client(&self) -> Result<Object, StoreError> {
        // Around all of it: the pool's own timeouts leave out the statements that prepare a new connection.
        match timeout(STATEMENT_BUDGET, self.pool.get()).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(deadpool_postgres::PoolError::Backend(error))) => Err(unreachable(&error)),
            Ok(Err(other)) => Err(StoreError::unreachable(other)),
            Err(_) => Err(StoreError::timed_out()),
        }
    }
}

impl PostgresTx {
    pub(super) async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        let begin = self.begin.take();
        let client = self.open()?;
        within_budget(async {
            let statement = client.prepare_cached(sql).await?;
            let params = bind(params);
            // Polled in this order, and so sent in this order, without waiting in between.
            let (_, touched) = try_join(begun(client, begin), client.execute(&statement, &params)).await?;
            Ok(touched)
        })
        .await
    }

    pub(super) async fn fetch(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        Ok(self.fetch_all(&[(sql, params)]).await?.pop().unwrap_or_default())
    }

    pub(super) async fn fetch_all(&mut self, statements: &[Statement<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        let begin = self.begin.take();
        let client = self.open()?;
        let answers = within_budget(async {
            let prepared = prepare(client, statements).await?;
            let queries = try_join_all(prepared.iter().map(|(statement, params)| client.query(statement, params)));
            let (_, answers) = try_join(begun(client, begin), queries).await?;
            Ok(answers)
        })
        .await?;
        answers.iter().map(|rows| rows.iter().map(read).collect()).collect()
    }

    pub(super) async fn finish(mut self, statements: &[Statement<'_>]) -> Result<(), StoreError> {
        let begin = self.begin.take();
        let client = self.open()?;
        within_budget(async {
            let prepared = prepare(client, statements).await?;
            let queries = try_join_all(prepared.iter().map(|(statement, params)| client.execute(statement, params)));
            // A commit after a failure is a rollback: the failure is what is returned.
            try_join3(begun(client, begin), queries, client.batch_execute("COMMIT")).await
        })
        .await?;
        self.client = None;
        Ok(())
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.finish(&[]).await
    }

    fn open(&self) -> Result<&Object, StoreError> {
        self.client.as_deref().ok_or_else(|| StoreError::refused("the transaction has ended"))
    }
}

impl Drop for PostgresTx {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Closing the connection rolls back without waiting for a database that may not answer; the pool opens a
            // new one. Rollbacks are rare here.
            drop(Object::take(*client));
        }
    }
}

fn recycling() -> ManagerConfig {
    // Fast: a broken connection is noticed by its own task; a ping per checkout would double every round trip.
    ManagerConfig { recycling_method: RecyclingMethod::Fast }
}

async fn reach(config: &Config, tls: &Tls, budget: Duration) -> Result<Client, StoreError> {
    let mut attempt = 1;
    loop {
        match connect(config, tls, budget).await {
            Ok(client) => return Ok(client),
            Err(error) if attempt < BOOT_ATTEMPTS => {
                tracing::warn!("attempt {attempt} of {BOOT_ATTEMPTS}: {error}");
                attempt += 1;
                tokio::time::sleep(BOOT_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn connect(config: &Config, tls: &Tls, budget: Duration) -> Result<Client, StoreError> {
    let attempt = async {
        match tls {
            Tls::Off => {
                let (client, connection) = config.connect(NoTls).await?;
                drive(connection);
                Ok(client)
            }
            Tls::On { connector, .. } => {
                let (client, connection) = config.connect(connector.clone()).await?;
                drive(connection);
                Ok(client)
            }
        }
    };
    match timeout(budget, attempt).await {
        Ok(answer) => answer.map_err(|error: tokio_postgres::Error| unreachable(&error)),
        Err(_) => Err(StoreError::timed_out()),
    }
}

#[expect(clippy::disallowed_methods, reason = "ends by itself when the migration's client is dropped")]
fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    tokio::spawn(async move {
        let _ = connection.await;
    });
}

async fn follow<S, T>(
    client: Client,
    mut connection: tokio_postgres::Connection<S, T>,
    on_change: &impl Fn(Option<&str>),
) -> Result<(), StoreError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let messages = async {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message.map_err(|e| unreachable(&e))? {
                on_change(Some(notification.payload()));
            }
        }
        Ok(())
    };
    let subscribe = async {
        client.batch_execute("LISTEN tollgate").await.map_err(|e| unreachable(&e))?;
        on_change(None);
        // The client must outlive the subscription, or the connection ends.
        std::future::pending::<Result<(), StoreError>>().await
    };
    tokio::select! {
        ended = messages => ended,
        ended = subscribe => ended,
    }
}

/// Sends what begins a transaction, if it has not begun.
async fn begun(client: &Object, begin: Option<&str>) -> Result<(), tokio_postgres::Error> {
    match begin {
        Some(begin) => client.batch_execute(begin).await,
        None => Ok(()),
    }
}

type Prepared<'a> = (tokio_postgres::Statement, Vec<&'a (dyn ToSql + Sync)>);

async fn prepare<'a>(
    client: &Object,
    statements: &'a [Statement<'a>],
) -> Result<Vec<Prepared<'a>>, tokio_postgres::Error> {
    let mut prepared = Vec::with_capacity(statements.len());
    for (sql, params) in statements {
        prepared.push((client.prepare_cached(sql).await?, bind(params)));
    }
    Ok(prepared)
}

async fn execute(client: &Object, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
    within_budget(async {
        let statement = client.prepare_cached(sql).await?;
        client.execute(&statement, &bind(params)).await
    })
    .await
}

async fn fetch(client: &Object, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
    let rows = within_budget(async {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, &bind(params)).await
    })
    .await?;
    rows.iter().map(read).collect()
}

fn bind<'a>(params: &'a [Param<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

fn read(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let value = |column| row.try_get(column).map_err(|error| StoreError::inconsistent(cause(&error)));
    (0..row.len()).map(value).collect::<Result<_, _>>().map(Row)
}

async fn within_budget<T>(statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
    match timeout(STATEMENT_BUDGET, statement).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match error.as_db_error() {
            // `statement_timeout`, and a server that is on its way down.
            Some(db) if db.code().code() == "57014" => StoreError::timed_out(),
            Some(db) if db.code().code().starts_with("57P") => StoreError::unreachable(db.message()),
            Some(db) => StoreError::refused(format!("{} (SQLSTATE {})", db.message(), db.code().code())),
            None => unreachable(&error),
        }),
        Err(_) => Err(StoreError::timed_out()),
    }
}

fn unreachable(error: &tokio_postgres::Error) -> StoreError {
    StoreError::unreachable(cause(error))
}

/// The error with its cause: `tokio_postgres` keeps the telling part in the source.
fn cause(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) => match *ty {
                Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
                _ => value.to_sql(ty, out),
            },
            Self::Text(value) => value.to_sql(ty, out),
            Self::Blob(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match *ty {
            Type::INT8 => Self::Int(i64::from_sql(ty, raw)?),
            Type::INT4 => Self::Int(i64::from(i32::from_sql(ty, raw)?)),
            Type::BYTEA => Self::Blob(raw.to_vec()),
            _ => Self::Text(<&str>::from_sql(ty, raw)?.to_owned()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::INT8 | Type::INT4 | Type::BYTEA) || <&str as FromSql<'_>>::accepts(ty)
    }
}
