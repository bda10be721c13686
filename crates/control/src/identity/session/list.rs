//! The register as administrators see it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::register::Sessions;
use super::table::{self, ListedRow};
use crate::clock::rfc3339_ms;
use crate::store::StoreError;

/// Where a page of sessions starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// At the oldest.
    Start,
    /// After the session of this id.
    After(String),
    /// Before the session of this id.
    Before(String),
}

/// Which sessions a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this person's.
    pub sub: Option<String>,
    /// Only those that have not ended, or only those that have.
    pub active: Option<bool>,
}

/// Some sessions in order of creation.
#[derive(Debug)]
pub struct Page {
    /// The sessions.
    pub sessions: Vec<Listed>,
    /// Whether there are more in the direction asked for.
    pub has_more: bool,
}

/// A session as administrators see it.
#[derive(Debug)]
pub struct Listed {
    /// The id, as the bearer's `sid` says it.
    pub id: String,
    json: Value,
}

impl Listed {
    /// The session as the admin API shows it.
    #[must_use]
    pub fn to_json(&self) -> &Value {
        &self.json
    }

    fn read(row: ListedRow) -> Result<Self, StoreError> {
        let time = |at: i64| {
            let at = Timestamp::from_millisecond(at);
            at.map(rfc3339_ms).map_err(|_| StoreError::inconsistent(format!("session {}: a time", row.id)))
        };
        let json = json!({
            "type": "session",
            "id": row.id,
            "user_id": row.sub,
            "email_address": row.email,
            "issuer": row.issuer,
            "surface": row.surface,
            "client_ip": row.client_ip,
            "created_at": time(row.created_at)?,
            "last_refreshed_at": time(row.refreshed_at)?,
            "ended_at": row.ended_at.map(time).transpose()?,
            "end_reason": row.why,
        });
        Ok(Self { id: row.id, json })
    }
}

impl Sessions {
    /// A page of at most `limit` sessions; `None` when the id to start from is unknown.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn page(&self, from: &From, filter: &Filter, limit: usize) -> Result<Option<Page>, StoreError> {
        // One more than asked for tells whether there is more.
        let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let sub = filter.sub.as_deref().unwrap_or_default();
        let Some(mut rows) = table::page(&self.store, from, sub, filter.active, one_more).await? else {
            return Ok(None);
        };
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        if matches!(from, From::Before(_)) {
            rows.reverse();
        }
        let sessions = rows.into_iter().map(Listed::read).collect::<Result<_, _>>()?;
        Ok(Some(Page { sessions, has_more }))
    }

    /// How many have not ended.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count(&self) -> Result<u64, StoreError> {
        table::count(&self.store).await
    }
}
