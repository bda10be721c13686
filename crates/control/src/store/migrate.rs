//! Migrations: the same numbers on both databases, applied at boot, by one process at a time.

use refinery::{Migration, Runner};
use tokio_postgres::Client;

use super::StoreError;

/// Advisory lock of our own, so that a reference server migrating the same database is not held up.
const MIGRATION_LOCK: i64 = 7_015_462_011;

/// `(number, name, PostgreSQL text, SQLite text)`.
type Step = (i32, &'static str, &'static str, &'static str);

macro_rules! steps {
    ($(($number:literal, $file:literal)),* $(,)?) => {
        &[$((
            $number,
            $file,
            include_str!(concat!("../../migrations/postgres/", $file, ".sql")),
            include_str!(concat!("../../migrations/sqlite/", $file, ".sql")),
        )),*]
    };
}

const STEPS: &[Step] = steps![
    (1, "0001_identity_create"),
    (2, "0002_spend_create"),
    (3, "0003_session_create"),
    (4, "0004_lease_create"),
    (5, "0005_pool_create"),
    (7, "0007_usage_fold"),
];

/// Applies what is missing.
pub(super) async fn postgres(client: &mut Client) -> Result<(), StoreError> {
    tracing::info!("waiting for migration lock (pg_locks shows who holds it: advisory lock {MIGRATION_LOCK})");
    client
        .execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(|error| StoreError::refused(format!("migration lock: {error}")))?;
    prepare_schema(client).await?;
    let report =
        runner(|step| step.2)?.run_async(client).await.map_err(|error| StoreError::refused(explain(&error)))?;
    for applied in report.applied_migrations() {
        tracing::info!("migration {} applied", applied.version());
    }
    // The lock belongs to the connection; it goes with it in any case.
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(|error| StoreError::refused(format!("migration lock: {error}")))?;
    Ok(())
}

async fn prepare_schema(client: &Client) -> Result<(), StoreError> {
    let refused = |error: tokio_postgres::Error| {
        let detail = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
        StoreError::refused(format!("schema \"tollgate\": {detail}"))
    };
    // Asked first: a role that may not create schemas can still use one that was created for it.
    let known =
        client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = 'tollgate'", &[]).await.map_err(refused)?;
    if known.is_none() {
        client.batch_execute("CREATE SCHEMA tollgate").await.map_err(refused)?;
    }
    client.batch_execute("SET search_path TO tollgate").await.map_err(refused)
}

/// Applies what is missing.
pub(super) fn sqlite(connection: &mut rusqlite::Connection) -> Result<(), StoreError> {
    let report = runner(|step| step.3)?.run(connection).map_err(|error| StoreError::refused(explain(&error)))?;
    for applied in report.applied_migrations() {
        tracing::info!("migration {} applied", applied.version());
    }
    Ok(())
}

fn runner(text: impl Fn(&Step) -> &'static str) -> Result<Runner, StoreError> {
    let migrations: Result<Vec<_>, _> = STEPS
        .iter()
        .map(|step| {
            let name = step.1.split_once('_').map_or(step.1, |(_, name)| name);
            Migration::unapplied(&format!("V{}__{name}", step.0), text(step))
        })
        .collect();
    Ok(Runner::new(&migrations.map_err(|error| StoreError::refused(explain(&error)))?))
}

fn explain(error: &refinery::Error) -> String {
    let mut text = format!("migration: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::STEPS;

    #[test]
    fn both_databases_have_the_same_migrations_and_every_file_is_applied() {
        let listed: Vec<String> = STEPS.iter().map(|step| format!("{}.sql", step.1)).collect();
        for database in ["postgres", "sqlite"] {
            let folder = format!("{}/migrations/{database}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(files, listed, "{database}");
        }
        assert!(STEPS.is_sorted_by(|earlier, later| earlier.0 < later.0));
        for step in STEPS {
            assert!(step.1.starts_with(&format!("{:04}_", step.0)));
        }
    }
}
