//! Table `device_grants`. Every change checks the state it changes in the same statement, so two replicas cannot both
//! succeed.

use crate::store::{Param, Row, Store, StoreError, Tx};

const INSERT: &str =
    "INSERT INTO device_grants (code_hash, user_code, flow, state, surface, client_ip, created_at, expires_at)
    VALUES ($1, $2, $3, 'pending', $4, $5, $6, $7) ON CONFLICT (user_code) DO NOTHING";

const FIND_BY_USER_CODE: &str = "SELECT code_hash, flow, surface, client_ip, created_at FROM device_grants
    WHERE user_code = $1 AND state = 'pending' AND expires_at > $2";

const FIND: &str = "SELECT code_hash, flow, surface, client_ip, created_at FROM device_grants
    WHERE code_hash = $1 AND state = 'pending' AND expires_at > $2";

const APPROVE: &str = "UPDATE device_grants SET state = 'approved', sealed = $1
    WHERE code_hash = $2 AND state = 'pending' AND expires_at > $3";

const DENY: &str = "UPDATE device_grants SET state = 'denied'
    WHERE code_hash = $1 AND state = 'pending' AND expires_at > $2";

/// A decided grant is told once: whoever deletes the row has it.
const REDEEM: &str = "DELETE FROM device_grants WHERE code_hash = $1 AND state <> 'pending' AND expires_at > $2
    RETURNING sealed";

const POLL: &str = "UPDATE device_grants SET polled_at = $1
    WHERE code_hash = $2 AND state = 'pending' AND expires_at > $1 AND (polled_at IS NULL OR polled_at <= $3)";

const STATE: &str = "SELECT state FROM device_grants WHERE code_hash = $1 AND expires_at > $2";

const SWEEP: &str = "DELETE FROM device_grants WHERE code_hash IN
    (SELECT code_hash FROM device_grants WHERE expires_at <= $1 LIMIT 2000)";

/// A grant as it is first written.
pub(super) struct NewGrant<'a> {
    pub(super) code_hash: &'a str,
    pub(super) user_code: &'a str,
    pub(super) flow: &'a str,
    pub(super) surface: Option<&'a str>,
    pub(super) client_ip: &'a str,
    pub(super) created_at: i64,
    pub(super) expires_at: i64,
}

/// A pending grant as it is read.
pub(super) struct PendingRow {
    pub(super) code_hash: String,
    pub(super) flow: String,
    pub(super) surface: Option<String>,
    pub(super) client_ip: String,
    pub(super) created_at: i64,
}

/// Whether the row was written; not when another grant has that user code.
pub(super) async fn insert(store: &Store, grant: &NewGrant<'_>) -> Result<bool, StoreError> {
    let params = [
        Param::from(grant.code_hash),
        Param::from(grant.user_code),
        Param::from(grant.flow),
        Param::from(grant.surface),
        Param::from(grant.client_ip),
        Param::from(grant.created_at),
        Param::from(grant.expires_at),
    ];
    Ok(store.execute(INSERT, &params).await? == 1)
}

pub(super) async fn find_by_user_code(store: &Store, code: &str, now: i64) -> Result<Option<PendingRow>, StoreError> {
    let row = store.fetch_optional(FIND_BY_USER_CODE, &[code.into(), now.into()]).await?;
    row.as_ref().map(pending).transpose()
}

pub(super) async fn find(store: &Store, code_hash: &str, now: i64) -> Result<Option<PendingRow>, StoreError> {
    let row = store.fetch_optional(FIND, &[code_hash.into(), now.into()]).await?;
    row.as_ref().map(pending).transpose()
}

fn pending(row: &Row) -> Result<PendingRow, StoreError> {
    Ok(PendingRow {
        code_hash: row.text(0)?.to_owned(),
        flow: row.text(1)?.to_owned(),
        surface: row.text_or_null(2)?.map(str::to_owned),
        client_ip: row.text(3)?.to_owned(),
        created_at: row.int(4)?,
    })
}

/// Whether the grant was still pending.
pub(super) async fn approve(store: &Store, sealed: &str, code_hash: &str, now: i64) -> Result<bool, StoreError> {
    Ok(store.execute(APPROVE, &[sealed.into(), code_hash.into(), now.into()]).await? == 1)
}

/// Whether the grant was still pending.
pub(super) async fn deny(store: &Store, code_hash: &str, now: i64) -> Result<bool, StoreError> {
    Ok(store.execute(DENY, &[code_hash.into(), now.into()]).await? == 1)
}

/// A decided grant's content; inside, `None` when it was denied.
pub(super) async fn redeem(tx: &mut Tx, code_hash: &str, now: i64) -> Result<Option<Option<String>>, StoreError> {
    let row = tx.fetch_optional(REDEEM, &[code_hash.into(), now.into()]).await?;
    row.map(|row| Ok(row.text_or_null(0)?.map(str::to_owned))).transpose()
}

/// Whether a pending grant was polled, and not since `last_poll`.
pub(super) async fn poll(store: &Store, now: i64, code_hash: &str, last_poll: i64) -> Result<bool, StoreError> {
    Ok(store.execute(POLL, &[now.into(), code_hash.into(), last_poll.into()]).await? == 1)
}

/// Whether the grant is decided; `None` when there is none.
pub(super) async fn is_decided(store: &Store, code_hash: &str, now: i64) -> Result<Option<bool>, StoreError> {
    let row = store.fetch_optional(STATE, &[code_hash.into(), now.into()]).await?;
    row.map(|row| Ok(row.text(0)? != "pending")).transpose()
}

pub(super) async fn sweep(store: &Store, now: i64) -> Result<u64, StoreError> {
    store.execute_in_portions(SWEEP, &[now.into()]).await
}
