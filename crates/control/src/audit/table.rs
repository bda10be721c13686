//! The table of administrative changes, written in the transaction of the change itself.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock::rfc3339_ms;
use crate::store::{Row, Store, StoreError, Tx};

/// What an administrator changed.
#[derive(Debug, Clone)]
pub struct AdminChange<'a> {
    /// When.
    pub at: Timestamp,
    /// `admin-key:<id>` or `oidc:<sub>`.
    pub actor: &'a str,
    /// `spend_limit.upsert`, `spend_limit.delete`, `session.end` or `session.revoke`.
    pub action: &'a str,
    /// Id of what was changed.
    pub target: &'a str,
    /// What it was; `None` when it did not exist.
    pub before: Option<Value>,
    /// What it is; `None` when it no longer exists.
    pub after: Option<Value>,
}

const RECORD: &str =
    "INSERT INTO admin_audit (at, actor, action, target, before, after) VALUES ($1, $2, $3, $4, $5, $6)";

/// Records a change; it stands if and only if the transaction does.
///
/// # Errors
/// When the database does not take it.
pub async fn record_admin_change(tx: &mut Tx, change: &AdminChange<'_>) -> Result<(), StoreError> {
    let before = change.before.as_ref().map(Value::to_string);
    let after = change.after.as_ref().map(Value::to_string);
    let params = [
        change.at.as_millisecond().into(),
        change.actor.into(),
        change.action.into(),
        change.target.into(),
        before.as_ref().into(),
        after.as_ref().into(),
    ];
    tx.execute(RECORD, &params).await.map(|_| ())
}

/// What stands in the table of one change.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminEvent {
    /// Counts up; a later change has a greater one.
    pub id: i64,
    at: Timestamp,
    actor: String,
    action: String,
    target: String,
    before: Option<Value>,
    after: Option<Value>,
    reason: Option<String>,
}

impl AdminEvent {
    /// The event as the admin API writes it (contract B8).
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "type": "audit_event",
            "id": self.id.to_string(),
            "created_at": rfc3339_ms(self.at),
            "actor": self.actor,
            "action": self.action,
            "target_id": self.target,
            "before": self.before,
            "after": self.after,
            "reason": self.reason,
        })
    }
}

/// `$2` is what the action begins with.
const PAGE: &str = "SELECT id, at, actor, action, target, before, after, reason FROM admin_audit
    WHERE id < $1 AND SUBSTR(action, 1, LENGTH($2)) = $2 ORDER BY id DESC LIMIT $3";

/// The latest changes, newest first, whose action begins with `kind`: those older than `after`, `limit` at most; and
/// whether there are more.
///
/// # Errors
/// When the database does not answer, or holds a row that cannot be.
pub async fn admin_changes(
    store: &Store,
    kind: &str,
    after: Option<i64>,
    limit: usize,
) -> Result<(Vec<AdminEvent>, bool), StoreError> {
    let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let params = [after.unwrap_or(i64::MAX).into(), kind.into(), one_more.into()];
    let rows = store.fetch(PAGE, &params).await?;
    let mut events: Vec<AdminEvent> = rows.iter().map(read).collect::<Result<_, _>>()?;
    let has_more = events.len() > limit;
    events.truncate(limit);
    Ok((events, has_more))
}

const SWEEP: &str =
    "DELETE FROM admin_audit WHERE id IN (SELECT id FROM admin_audit WHERE at < $1 ORDER BY id LIMIT 2000)";

/// Removes changes older than `before`; gives how many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep_admin_changes(store: &Store, before: Timestamp) -> Result<u64, StoreError> {
    store.execute_in_portions(SWEEP, &[before.as_millisecond().into()]).await
}

const RENAME_TARGET: &str = "UPDATE admin_audit SET target = $1 WHERE target = $2";
const RENAME_ACTOR: &str = "UPDATE admin_audit SET actor = $1 WHERE actor = $2";
/// The states are as `serde_json` writes them: without spaces, so that a member is one piece of text.
const RENAME_STATES: &str = "UPDATE admin_audit SET before = REPLACE(before, $1, $2), after = REPLACE(after, $1, $2)
    WHERE before <> REPLACE(before, $1, $2) OR after <> REPLACE(after, $1, $2)";

/// Puts a pseudonym in the place of a subject that changes were about, or were made by.
///
/// # Errors
/// When the database does not take it.
pub async fn rename_in_admin_changes(tx: &mut Tx, sub: &str, pseudonym: &str) -> Result<(), StoreError> {
    tx.execute(RENAME_TARGET, &[pseudonym.into(), sub.into()]).await?;
    let [old, new] = [sub, pseudonym].map(|sub| format!("oidc:{sub}"));
    tx.execute(RENAME_ACTOR, &[(&new).into(), (&old).into()]).await?;
    let [old, new] = [sub, pseudonym].map(|sub| format!("\"user_id\":{}", Value::from(sub)));
    tx.execute(RENAME_STATES, &[(&old).into(), (&new).into()]).await.map(|_| ())
}

fn read(row: &Row) -> Result<AdminEvent, StoreError> {
    let id = row.int(0)?;
    let wrong = |column: &str| StoreError::inconsistent(format!("admin_audit.{column} of {id}"));
    let state = |column: usize| {
        let text = row.text_or_null(column)?;
        text.map(|text| serde_json::from_str(text).map_err(|_| wrong("before or after"))).transpose()
    };
    Ok(AdminEvent {
        id,
        at: Timestamp::from_millisecond(row.int(1)?).map_err(|_| wrong("at"))?,
        actor: row.text(2)?.to_owned(),
        action: row.text(3)?.to_owned(),
        target: row.text(4)?.to_owned(),
        before: state(5)?,
        after: state(6)?,
        reason: row.text_or_null(7)?.map(str::to_owned),
    })
}
