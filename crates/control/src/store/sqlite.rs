//! The embedded database: SQLite on one thread of its own, which is also what serialises its transactions.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, TransactionBehavior};
use tokio::sync::oneshot;

use super::row::Value;
use super::{Commit, Param, Row, STATEMENT_BUDGET, Statement, StoreError, migrate};

/// A handle on the database thread.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    jobs: Sender<Job>,
}

/// An open transaction: while it lives the thread serves nobody else.
#[derive(Debug)]
pub(super) struct SqliteTx {
    statements: Sender<InTx>,
}

/// A statement in SQLite's words, with its parameters.
struct Prepared {
    sql: String,
    params: Vec<Value>,
}

struct Task {
    statement: Prepared,
    reply: oneshot::Sender<Result<Answer, StoreError>>,
}

struct Answer {
    rows: Vec<Row>,
    changed: u64,
}

enum Job {
    Run(Task),
    Begin(Commit, Receiver<InTx>, oneshot::Sender<Result<(), StoreError>>),
}

enum InTx {
    Run(Task),
    RunAll(Vec<Prepared>, oneshot::Sender<Result<Vec<Answer>, StoreError>>),
    Finish(Vec<Prepared>, oneshot::Sender<Result<(), StoreError>>),
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::begin_with(path, |path| {
            let mut connection = open(path)?;
            migrate::sqlite(&mut connection)?;
            Ok(connection)
        })
        .await
    }

    pub(super) async fn attach(path: &Path) -> Result<Self, StoreError> {
        Self::begin_with(path, open).await
    }

    async fn begin_with(path: &Path, open: fn(&Path) -> Result<Connection, StoreError>) -> Result<Self, StoreError> {
        let (jobs, inbox) = channel();
        let (opened, ready) = oneshot::channel();
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("sqlite".to_owned())
            .spawn(move || match open(&path) {
                Ok(connection) => {
                    if opened.send(Ok(())).is_ok() {
                        serve(connection, &inbox);
                    }
                }
                // The receiver is gone only when the boot was given up.
                Err(error) => drop(opened.send(Err(error))),
            })
            .map_err(StoreError::unreachable)?;
        ready.await.map_err(|_| gone())??;
        Ok(Self { jobs })
    }

    pub(super) async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        Ok(self.run(sql, params).await?.changed)
    }

    pub(super) async fn fetch(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        Ok(self.run(sql, params).await?.rows)
    }

    async fn run(&self, sql: &str, params: &[Param<'_>]) -> Result<Answer, StoreError> {
        let (statement, answer) = statement(sql, params);
        self.jobs.send(Job::Run(statement)).map_err(|_| gone())?;
        within_budget(answer).await
    }

    pub(super) async fn begin(&self, commit: Commit) -> Result<SqliteTx, StoreError> {
        let (statements, inbox) = channel();
        let (reply, begun) = oneshot::channel();
        self.jobs.send(Job::Begin(commit, inbox, reply)).map_err(|_| gone())?;
        within_budget(begun).await?;
        Ok(SqliteTx { statements })
    }
}

impl SqliteTx {
    pub(super) async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        Ok(self.run(sql, params).await?.changed)
    }

    pub(super) async fn fetch(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        Ok(self.run(sql, params).await?.rows)
    }

    async fn run(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Answer, StoreError> {
        let (statement, answer) = statement(sql, params);
        self.statements.send(InTx::Run(statement)).map_err(|_| gone())?;
        within_budget(answer).await
    }

    pub(super) async fn fetch_all(&mut self, statements: &[Statement<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        let (reply, answers) = oneshot::channel();
        self.statements.send(InTx::RunAll(prepare_all(statements), reply)).map_err(|_| gone())?;
        Ok(within_budget(answers).await?.into_iter().map(|answer| answer.rows).collect())
    }

    pub(super) async fn finish(self, statements: &[Statement<'_>]) -> Result<(), StoreError> {
        let (reply, committed) = oneshot::channel();
        self.statements.send(InTx::Finish(prepare_all(statements), reply)).map_err(|_| gone())?;
        within_budget(committed).await
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.finish(&[]).await
    }
}

fn prepare_all(statements: &[Statement<'_>]) -> Vec<Prepared> {
    statements.iter().map(|(sql, params)| prepare(sql, params)).collect()
}

fn prepare(sql: &str, params: &[Param<'_>]) -> Prepared {
    // PostgreSQL numbers `$2` two, SQLite whatever comes second; `?2` is two on both sides of that.
    Prepared { sql: sql.replace('$', "?"), params: params.iter().map(|param| Value::from(*param)).collect() }
}

fn statement(sql: &str, params: &[Param<'_>]) -> (Task, oneshot::Receiver<Result<Answer, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    (Task { statement: prepare(sql, params), reply }, answer)
}

async fn within_budget<T>(answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_BUDGET, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(gone()),
        Err(_) => Err(StoreError::timed_out()),
    }
}

fn gone() -> StoreError {
    StoreError::unreachable("the database thread has ended")
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let shown = path.display();
    // Created by us first: SQLite would give it the umask's mode, and sign-in secrets (sealed) and spend live in it.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::unreachable(format!("{shown}: {error}")))?;
    let connection = Connection::open(path).map_err(|error| StoreError::unreachable(format!("{shown}: {error}")))?;
    let prepare = || -> rusqlite::Result<()> {
        connection.busy_timeout(Duration::from_millis(500))?;
        // Exclusive: two gateways on one file would each believe that they alone decide what fits under a cap.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.execute_batch("BEGIN IMMEDIATE; COMMIT")
    };
    prepare().map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => StoreError::unreachable(
            format!("{shown} is in use by another process; stop it, or set store.sqlite_path to another file"),
        ),
        Some(rusqlite::ErrorCode::NotADatabase) => {
            StoreError::unreachable(format!("{shown} is not a SQLite database; set store.sqlite_path to another file"))
        }
        _ => StoreError::unreachable(format!("{shown}: {error}")),
    })?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

fn serve(mut connection: Connection, inbox: &Receiver<Job>) {
    while let Ok(job) = inbox.recv() {
        match job {
            Job::Run(task) => run(&connection, task),
            Job::Begin(Commit::Durable | Commit::Snapshot, statements, begun) => {
                transaction(&mut connection, &statements, begun);
            }
            Job::Begin(Commit::Lazy, statements, begun) => {
                // The commit is in the log, which is written to disk with the next durable one. A pragma fails only on
                // a connection that is lost anyway.
                let _ = connection.pragma_update(None, "synchronous", "NORMAL");
                transaction(&mut connection, &statements, begun);
                let _ = connection.pragma_update(None, "synchronous", "FULL");
            }
        }
    }
}

fn transaction(
    connection: &mut Connection,
    statements: &Receiver<InTx>,
    begun: oneshot::Sender<Result<(), StoreError>>,
) {
    let tx = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(tx) => tx,
        Err(error) => return drop(begun.send(Err(refused(&error)))),
    };
    if begun.send(Ok(())).is_err() {
        return;
    }
    // Ends when the owner drops its handle: the transaction is then rolled back by its own drop.
    while let Ok(step) = statements.recv() {
        match step {
            InTx::Run(task) => run(&tx, task),
            InTx::RunAll(statements, reply) => {
                let answers = statements.iter().map(|statement| answer(&tx, statement)).collect::<Result<_, _>>();
                drop(reply.send(answers.map_err(|error| refused(&error))));
            }
            InTx::Finish(statements, reply) => {
                let all = statements.iter().try_for_each(|statement| answer(&tx, statement).map(|_| ()));
                return drop(reply.send(all.and_then(|()| tx.commit()).map_err(|error| refused(&error))));
            }
        }
    }
}

fn run(connection: &Connection, task: Task) {
    // A caller that has given up must not have its statement run behind its back.
    if task.reply.is_closed() {
        return;
    }
    let answer = answer(connection, &task.statement).map_err(|error| refused(&error));
    drop(task.reply.send(answer));
}

fn answer(connection: &Connection, statement: &Prepared) -> rusqlite::Result<Answer> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    let columns = prepared.column_count();
    let params = rusqlite::params_from_iter(&statement.params);
    if columns == 0 {
        let changed = prepared.execute(params)?;
        return Ok(Answer { rows: Vec::new(), changed: u64::try_from(changed).unwrap_or(u64::MAX) });
    }
    let mut found = prepared.query(params)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let values = (0..columns).map(|column| row.get_ref(column).map(Value::from)).collect::<Result<_, _>>()?;
        rows.push(Row(values));
    }
    let changed = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    Ok(Answer { rows, changed })
}

fn refused(error: &rusqlite::Error) -> StoreError {
    StoreError::refused(error)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            // No column of ours is a REAL; one that appears is read as the wrong type and named there.
            ValueRef::Null | ValueRef::Real(_) => Self::Null,
            ValueRef::Integer(value) => Self::Int(value),
            ValueRef::Text(value) => Self::Text(String::from_utf8_lossy(value).into_owned()),
            ValueRef::Blob(value) => Self::Blob(value.to_vec()),
        }
    }
}
