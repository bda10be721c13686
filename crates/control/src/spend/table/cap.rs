//! Caps, and the count of their changes.

use jiff::Timestamp;

use crate::spend::Period;
use crate::spend::cap::{Cap, From, Scope};
use crate::spend::pool::Pool;
use crate::store::{Row, Store, StoreError, Tx};

const BUMP: &str = "INSERT INTO revision (name, value) VALUES ($1, 1)
    ON CONFLICT (name) DO UPDATE SET value = revision.value + 1";
pub(super) const REVISION: &str = "SELECT value FROM revision WHERE name = $1";

pub(in crate::spend) async fn bump_revision(tx: &mut Tx, name: &str) -> Result<(), StoreError> {
    tx.execute(BUMP, &[name.into()]).await.map(|_| ())
}

pub(in crate::spend) async fn revision_in(tx: &mut Tx, name: &str) -> Result<i64, StoreError> {
    tx.fetch_optional(REVISION, &[name.into()]).await?.map_or(Ok(0), |row| row.int(0))
}

pub(in crate::spend) async fn revision(store: &Store, name: &str) -> Result<i64, StoreError> {
    store.fetch_optional(REVISION, &[name.into()]).await?.map_or(Ok(0), |row| row.int(0))
}

macro_rules! cap_columns {
    () => {
        "id, scope_type, scope_id, period, cents, created_at, updated_at, pool_cents, pool_paused"
    };
}

const ALL_CAPS: &str = concat!("SELECT ", cap_columns!(), " FROM spend_limit");
const CAP: &str = concat!("SELECT ", cap_columns!(), " FROM spend_limit WHERE id = $1");
const CAP_BY_TARGET: &str =
    concat!("SELECT ", cap_columns!(), " FROM spend_limit WHERE scope_type = $1 AND scope_id = $2 AND period = $3");
const DELETE_CAP: &str = concat!("DELETE FROM spend_limit WHERE id = $1 RETURNING ", cap_columns!());
const DELETE_CAPS_OF: &str =
    concat!("DELETE FROM spend_limit WHERE scope_type = 'user' AND scope_id = $1 RETURNING ", cap_columns!());
const RENAME_CREATOR: &str = "UPDATE spend_limit SET created_by = $1 WHERE created_by = $2";
const PUT_CAP: &str = "
    INSERT INTO spend_limit
        (id, scope_type, scope_id, period, cents, created_at, updated_at, created_by, pool_cents, pool_paused)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (scope_type, scope_id, period) DO UPDATE
    SET cents = excluded.cents, updated_at = excluded.updated_at, pool_cents = excluded.pool_cents,
        pool_paused = excluded.pool_paused";
const POSITION: &str = "SELECT position FROM spend_limit WHERE id = $1";
/// `$2` is a scope type, or empty for all.
const CAPS_AFTER: &str = concat!(
    "SELECT ",
    cap_columns!(),
    " FROM spend_limit WHERE position > $1 AND ($2 = '' OR scope_type = $2) ORDER BY position LIMIT $3"
);
const CAPS_BEFORE: &str = concat!(
    "SELECT ",
    cap_columns!(),
    " FROM spend_limit WHERE position < $1 AND ($2 = '' OR scope_type = $2) ORDER BY position DESC LIMIT $3"
);

fn read_cap(row: &Row) -> Result<Cap, StoreError> {
    let id = row.text(0)?;
    let wrong = |column: &str| StoreError::inconsistent(format!("spend_limit.{column} of {id}"));
    let at = |column: usize| -> Result<Timestamp, StoreError> {
        Timestamp::from_millisecond(row.int(column)?).map_err(|_| wrong("created_at or updated_at"))
    };
    let pool = |cents| Ok(Pool { cents, paused: row.int(8)? != 0 });
    Ok(Cap {
        id: id.to_owned(),
        scope: Scope::from_columns(row.text(1)?, row.text(2)?).ok_or_else(|| wrong("scope_type"))?,
        period: Period::parse(row.text(3)?).ok_or_else(|| wrong("period"))?,
        cents: row.int_or_null(4)?,
        pool: row.int_or_null(7)?.map(pool).transpose()?,
        created_at: at(5)?,
        updated_at: at(6)?,
    })
}

pub(in crate::spend) async fn all_caps(tx: &mut Tx) -> Result<Vec<Cap>, StoreError> {
    tx.fetch(ALL_CAPS, &[]).await?.iter().map(read_cap).collect()
}

pub(in crate::spend) async fn find_cap(store: &Store, id: &str) -> Result<Option<Cap>, StoreError> {
    store.fetch_optional(CAP, &[id.into()]).await?.as_ref().map(read_cap).transpose()
}

pub(in crate::spend) async fn find_cap_by_target(
    tx: &mut Tx,
    scope: &Scope,
    period: Period,
) -> Result<Option<Cap>, StoreError> {
    let params = [scope.kind().into(), scope.id().into(), period.as_str().into()];
    tx.fetch_optional(CAP_BY_TARGET, &params).await?.as_ref().map(read_cap).transpose()
}

pub(in crate::spend) async fn put_cap(tx: &mut Tx, cap: &Cap, actor: &str) -> Result<(), StoreError> {
    let params = [
        (&cap.id).into(),
        cap.scope.kind().into(),
        cap.scope.id().into(),
        cap.period.as_str().into(),
        cap.cents.into(),
        cap.created_at.as_millisecond().into(),
        cap.updated_at.as_millisecond().into(),
        actor.into(),
        cap.pool.map(|pool| pool.cents).into(),
        cap.pool.map(|pool| i64::from(pool.paused)).into(),
    ];
    tx.execute(PUT_CAP, &params).await.map(|_| ())
}

pub(in crate::spend) async fn delete_cap(tx: &mut Tx, id: &str) -> Result<Option<Cap>, StoreError> {
    tx.fetch_optional(DELETE_CAP, &[id.into()]).await?.as_ref().map(read_cap).transpose()
}

/// Gives what the person had of their own.
pub(in crate::spend) async fn delete_caps_of(tx: &mut Tx, sub: &str) -> Result<Vec<Cap>, StoreError> {
    tx.fetch(DELETE_CAPS_OF, &[sub.into()]).await?.iter().map(read_cap).collect()
}

/// In what the person, as an administrator, has set for others.
pub(in crate::spend) async fn rename_creator(tx: &mut Tx, sub: &str, pseudonym: &str) -> Result<(), StoreError> {
    let [old, new] = [sub, pseudonym].map(|sub| format!("oidc:{sub}"));
    tx.execute(RENAME_CREATOR, &[(&new).into(), (&old).into()]).await.map(|_| ())
}

/// The caps, and whether there are more.
pub(in crate::spend) async fn page_of_caps(
    store: &Store,
    from: &From,
    limit: usize,
    scope_kind: Option<&str>,
) -> Result<Option<(Vec<Cap>, bool)>, StoreError> {
    let (sql, start) = match from {
        From::Start => (CAPS_AFTER, Some(i64::MIN)),
        From::After(id) => (CAPS_AFTER, position(store, id).await?),
        From::Before(id) => (CAPS_BEFORE, position(store, id).await?),
    };
    let Some(start) = start else { return Ok(None) };
    // One more than asked for tells whether there is more.
    let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let params = [start.into(), scope_kind.unwrap_or("").into(), one_more.into()];
    let rows = store.fetch(sql, &params).await?;
    let mut caps: Vec<Cap> = rows.iter().map(read_cap).collect::<Result<_, _>>()?;
    let has_more = caps.len() > limit;
    caps.truncate(limit);
    if matches!(from, From::Before(_)) {
        caps.reverse();
    }
    Ok(Some((caps, has_more)))
}

async fn position(store: &Store, id: &str) -> Result<Option<i64>, StoreError> {
    store.fetch_optional(POSITION, &[id.into()]).await?.map(|row| row.int(0)).transpose()
}
