//! The table of administrative changes, written in the transaction of the change itself.

use jiff::Timestamp;
use serde_json::Value;

use crate::store::{StoreError, Tx};

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
