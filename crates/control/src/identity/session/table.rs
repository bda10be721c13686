//! Tables `session`, `session_successor`, `not_before` and `logout_token`, and the row `session` of `revision`.

use crate::store::{Param, Row, Store, StoreError, Tx};

use super::ending::Whose;
use super::list::From;
use super::register::{Begun, Rotation};

/// The topic under which replicas tell each other of endings, and the name of their count.
pub(super) const TOPIC: &str = "session";
/// The `sub` of a mark that covers everyone; nobody's own is empty.
pub(super) const EVERYONE: &str = "";

const INSERT: &str = "INSERT INTO session
        (id, issuer, sub, idp_sid, email, surface, client_ip, generation, created_at, refreshed_at, groups)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// One replica at a time asks the provider for a session.
const CLAIM: &str = "UPDATE session SET claimed_until = $1
    WHERE id = $2 AND ended_at IS NULL AND generation <= $3 AND (claimed_until IS NULL OR claimed_until <= $4)";

const RELEASE: &str = "UPDATE session SET claimed_until = NULL WHERE id = $1 AND claimed_until = $2";

const STATE: &str = "SELECT generation, ended_at FROM session WHERE id = $1";

const SUCCESSOR: &str = "SELECT sealed, used_at FROM session_successor WHERE session = $1 AND generation = $2";

const ROTATE: &str = "UPDATE session SET generation = $1, email = $2, refreshed_at = $3, claimed_until = NULL,
        groups = COALESCE($4, groups)
    WHERE id = $5 AND ended_at IS NULL AND generation < $1";

const GROUPS: &str = "SELECT groups FROM session WHERE id = $1";

const KEEP_SUCCESSOR: &str = "INSERT INTO session_successor (session, generation, sealed, used_at)
    VALUES ($1, $2, $3, $4) ON CONFLICT (session, generation) DO NOTHING";

/// Its row lock makes one ending follow the other, so that who has read a revision has missed nothing below it.
const BUMP: &str = "INSERT INTO revision (name, value) VALUES ('session', 1)
    ON CONFLICT (name) DO UPDATE SET value = revision.value + 1 RETURNING value";

const REVISION: &str = "SELECT value FROM revision WHERE name = 'session'";

const MARK: &str = "INSERT INTO not_before (sub, at, revision) VALUES ($1, $2, $3)
    ON CONFLICT (sub) DO UPDATE SET at = excluded.at, revision = excluded.revision";

const ENDED_SINCE: &str = "SELECT id, ended_at FROM session WHERE ended_revision > $1";
const MARKED_SINCE: &str = "SELECT sub, at FROM not_before WHERE revision > $1";

macro_rules! end_where {
    ($condition:literal) => {
        concat!(
            "UPDATE session SET ended_at = $1, why = $2, ended_revision = $3 WHERE ended_at IS NULL AND ",
            $condition,
            " RETURNING id, sub, email"
        )
    };
}
const END_ONE: &str = end_where!("id = $4");
const END_OF_SUB: &str = end_where!("sub = $4");
const END_ALL: &str = end_where!("1 = 1");
const END_OF_IDP_SID: &str = end_where!("issuer = $4 AND idp_sid = $5 AND ($6 = '' OR sub = $6)");
const END_OF_IDP_SUB: &str = end_where!("issuer = $4 AND sub = $5");
const END_IDLE: &str = end_where!("refreshed_at <= $4");
const END_OLD: &str = end_where!("created_at <= $4");

const IS_OVERDUE: &str = "SELECT id FROM session WHERE ended_at IS NULL AND refreshed_at <= $1
    UNION ALL SELECT id FROM session WHERE ended_at IS NULL AND created_at <= $2 LIMIT 1";

const SWEEP_ENDED: &str = "DELETE FROM session WHERE id IN (SELECT id FROM session WHERE ended_at <= $1 LIMIT 2000)";
const SWEEP_SUCCESSORS: &str = "DELETE FROM session_successor WHERE (session, generation) IN
    (SELECT session, generation FROM session_successor WHERE used_at <= $1 LIMIT 2000)";
const SWEEP_MARKS: &str = "DELETE FROM not_before WHERE sub IN (SELECT sub FROM not_before WHERE at <= $1 LIMIT 2000)";
const SWEEP_LOGOUT_TOKENS: &str =
    "DELETE FROM logout_token WHERE id IN (SELECT id FROM logout_token WHERE expires_at <= $1 LIMIT 2000)";

const KEEP_LOGOUT_TOKEN: &str = "INSERT INTO logout_token (id, expires_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";

macro_rules! page {
    ($position:literal, $order:literal) => {
        concat!(
            "SELECT id, issuer, sub, email, surface, client_ip, created_at, refreshed_at, ended_at, why FROM session
             WHERE position ",
            $position,
            " $1 AND ($2 = '' OR sub = $2) AND ($3 = '' OR ($3 = 'active') = (ended_at IS NULL))
             ORDER BY position ",
            $order,
            " LIMIT $4"
        )
    };
}
const PAGE_AFTER: &str = page!(">", "ASC");
const PAGE_BEFORE: &str = page!("<", "DESC");
const POSITION: &str = "SELECT position FROM session WHERE id = $1";

/// Where a session stands.
pub(super) struct State {
    pub(super) generation: i64,
    pub(super) ended: bool,
}

/// A session that has just been ended.
pub(super) struct EndedRow {
    pub(super) id: String,
    pub(super) sub: String,
    pub(super) email: Option<String>,
}

/// A session as administrators see it; times in Unix milliseconds.
pub(super) struct ListedRow {
    pub(super) id: String,
    pub(super) issuer: String,
    pub(super) sub: String,
    pub(super) email: Option<String>,
    pub(super) surface: Option<String>,
    pub(super) client_ip: String,
    pub(super) created_at: i64,
    pub(super) refreshed_at: i64,
    pub(super) ended_at: Option<i64>,
    pub(super) why: Option<String>,
}

pub(super) async fn insert(tx: &mut Tx, session: &Begun<'_>) -> Result<(), StoreError> {
    let params = [
        session.id.into(),
        session.issuer.into(),
        session.sub.into(),
        session.idp_sid.into(),
        session.email.into(),
        session.surface.into(),
        session.client_ip.into(),
        session.generation.into(),
        session.began.into(),
        session.began.into(),
        session.groups.into(),
    ];
    tx.execute(INSERT, &params).await.map(|_| ())
}

pub(super) async fn claim(store: &Store, until: i64, id: &str, generation: i64, now: i64) -> Result<bool, StoreError> {
    Ok(store.execute(CLAIM, &[until.into(), id.into(), generation.into(), now.into()]).await? == 1)
}

pub(super) async fn release(store: &Store, id: &str, until: i64) -> Result<(), StoreError> {
    store.execute(RELEASE, &[id.into(), until.into()]).await.map(|_| ())
}

pub(super) async fn state(store: &Store, id: &str) -> Result<Option<State>, StoreError> {
    let row = store.fetch_optional(STATE, &[id.into()]).await?;
    row.map(|row| Ok(State { generation: row.int(0)?, ended: row.int_or_null(1)?.is_some() })).transpose()
}

/// What the use of that generation gave, and when.
pub(super) async fn successor(store: &Store, id: &str, generation: i64) -> Result<Option<(String, i64)>, StoreError> {
    let row = store.fetch_optional(SUCCESSOR, &[id.into(), generation.into()]).await?;
    row.map(|row| Ok((row.text(0)?.to_owned(), row.int(1)?))).transpose()
}

/// Whether the session was there to be rotated, neither ended nor further on.
pub(super) async fn rotate(tx: &mut Tx, rotation: &Rotation) -> Result<bool, StoreError> {
    let Rotation { id, used, email, groups, at, .. } = rotation;
    let params = [
        Param::from(used.saturating_add(1)),
        email.as_deref().into(),
        (*at).into(),
        groups.as_deref().into(),
        id.as_str().into(),
    ];
    Ok(tx.execute(ROTATE, &params).await? == 1)
}

/// All groups of the session's person, where they were too many for a bearer.
pub(super) async fn groups(store: &Store, id: &str) -> Result<Option<String>, StoreError> {
    let row = store.fetch_optional(GROUPS, &[id.into()]).await?;
    row.map_or(Ok(None), |row| Ok(row.text_or_null(0)?.map(str::to_owned)))
}

pub(super) async fn keep_successor(
    tx: &mut Tx,
    id: &str,
    generation: i64,
    sealed: &str,
    at: i64,
) -> Result<(), StoreError> {
    let params = [id.into(), generation.into(), sealed.into(), at.into()];
    tx.execute(KEEP_SUCCESSOR, &params).await.map(|_| ())
}

/// Counts an ending; comes first in its transaction.
pub(super) async fn bump(tx: &mut Tx) -> Result<i64, StoreError> {
    let row = tx.fetch_optional(BUMP, &[]).await?;
    row.ok_or_else(|| StoreError::inconsistent("revision: an upsert returned no row"))?.int(0)
}

pub(super) async fn revision(store: &Store) -> Result<i64, StoreError> {
    store.fetch_optional(REVISION, &[]).await?.map_or(Ok(0), |row| row.int(0))
}

pub(super) async fn mark(tx: &mut Tx, sub: &str, at: i64, revision: i64) -> Result<(), StoreError> {
    tx.execute(MARK, &[sub.into(), at.into(), revision.into()]).await.map(|_| ())
}

/// Ids of sessions that ended after that revision, and when.
pub(super) async fn ended_since(store: &Store, revision: i64) -> Result<Vec<(String, i64)>, StoreError> {
    pairs(&store.fetch(ENDED_SINCE, &[revision.into()]).await?)
}

/// Marks set after that revision: whose, and when.
pub(super) async fn marked_since(store: &Store, revision: i64) -> Result<Vec<(String, i64)>, StoreError> {
    pairs(&store.fetch(MARKED_SINCE, &[revision.into()]).await?)
}

fn pairs(rows: &[Row]) -> Result<Vec<(String, i64)>, StoreError> {
    rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.int(1)?))).collect()
}

pub(super) async fn end(
    tx: &mut Tx,
    at: i64,
    why: &str,
    revision: i64,
    whose: &Whose<'_>,
) -> Result<Vec<EndedRow>, StoreError> {
    let mut params: Vec<Param<'_>> = vec![at.into(), why.into(), revision.into()];
    let sql = match whose {
        Whose::One(id) => {
            params.push((*id).into());
            END_ONE
        }
        Whose::Sub(sub) => {
            params.push((*sub).into());
            END_OF_SUB
        }
        Whose::Everyone => END_ALL,
        Whose::IdpSession { issuer, sid, sub } => {
            params.extend([Param::from(*issuer), Param::from(*sid), Param::from(sub.unwrap_or_default())]);
            END_OF_IDP_SID
        }
        Whose::IdpSubject { issuer, sub } => {
            params.extend([Param::from(*issuer), Param::from(*sub)]);
            END_OF_IDP_SUB
        }
        Whose::IdleSince(at) => {
            params.push((*at).into());
            END_IDLE
        }
        Whose::BegunBy(at) => {
            params.push((*at).into());
            END_OLD
        }
    };
    let read = |row: &Row| {
        Ok(EndedRow {
            id: row.text(0)?.to_owned(),
            sub: row.text(1)?.to_owned(),
            email: row.text_or_null(2)?.map(str::to_owned),
        })
    };
    tx.fetch(sql, &params).await?.iter().map(read).collect()
}

pub(super) async fn is_overdue(store: &Store, refreshed_by: i64, begun_by: i64) -> Result<bool, StoreError> {
    Ok(store.fetch_optional(IS_OVERDUE, &[refreshed_by.into(), begun_by.into()]).await?.is_some())
}

/// Removes what ended by then, marks set by then, successors used by `used_by` and logout tokens expired by `now`.
pub(super) async fn sweep(store: &Store, ended_by: i64, used_by: i64, now: i64) -> Result<u64, StoreError> {
    let mut removed = 0;
    for (sql, by) in
        [(SWEEP_ENDED, ended_by), (SWEEP_MARKS, ended_by), (SWEEP_SUCCESSORS, used_by), (SWEEP_LOGOUT_TOKENS, now)]
    {
        removed += store.execute_in_portions(sql, &[by.into()]).await?;
    }
    Ok(removed)
}

const FORGET: &str = "UPDATE session
    SET sub = $1, email = NULL, idp_sid = NULL, client_ip = '', groups = NULL WHERE sub = $2 AND ended_at IS NOT NULL";

/// Puts a pseudonym in the place of a subject in ended sessions.
pub(super) async fn forget(store: &Store, sub: &str, pseudonym: &str) -> Result<u64, StoreError> {
    store.execute(FORGET, &[pseudonym.into(), sub.into()]).await
}

/// Whether the token was not obeyed before.
pub(super) async fn keep_logout_token(tx: &mut Tx, id: &str, expires_at: i64) -> Result<bool, StoreError> {
    Ok(tx.execute(KEEP_LOGOUT_TOKEN, &[id.into(), expires_at.into()]).await? == 1)
}

/// At most `limit` rows in order of creation; `None` when the id to start from is unknown.
pub(super) async fn page(
    store: &Store,
    from: &From,
    sub: &str,
    active: Option<bool>,
    limit: i64,
) -> Result<Option<Vec<ListedRow>>, StoreError> {
    let (sql, start) = match from {
        From::Start => (PAGE_AFTER, Some(i64::MIN)),
        From::After(id) => (PAGE_AFTER, position(store, id).await?),
        From::Before(id) => (PAGE_BEFORE, position(store, id).await?),
    };
    let Some(start) = start else { return Ok(None) };
    let active = match active {
        None => "",
        Some(true) => "active",
        Some(false) => "ended",
    };
    let rows = store.fetch(sql, &[start.into(), sub.into(), active.into(), limit.into()]).await?;
    rows.iter().map(listed).collect::<Result<_, _>>().map(Some)
}

async fn position(store: &Store, id: &str) -> Result<Option<i64>, StoreError> {
    store.fetch_optional(POSITION, &[id.into()]).await?.map(|row| row.int(0)).transpose()
}

fn listed(row: &Row) -> Result<ListedRow, StoreError> {
    let optional = |column| Ok::<_, StoreError>(row.text_or_null(column)?.map(str::to_owned));
    Ok(ListedRow {
        id: row.text(0)?.to_owned(),
        issuer: row.text(1)?.to_owned(),
        sub: row.text(2)?.to_owned(),
        email: optional(3)?,
        surface: optional(4)?,
        client_ip: row.text(5)?.to_owned(),
        created_at: row.int(6)?,
        refreshed_at: row.int(7)?,
        ended_at: row.int_or_null(8)?,
        why: optional(9)?,
    })
}

const COUNT: &str = "SELECT COUNT(*) FROM session WHERE ended_at IS NULL";

/// How many have not ended.
pub(super) async fn count(store: &Store) -> Result<u64, StoreError> {
    let row = store.fetch_optional(COUNT, &[]).await?;
    let count = row.map_or(Ok(0), |row| row.int(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}
