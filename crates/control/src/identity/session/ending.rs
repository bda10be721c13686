//! Endings: each is counted and told to the other replicas in the transaction that ends the sessions.

use std::net::IpAddr;

use jiff::Timestamp;

use super::register::Sessions;
use super::table::{self, EVERYONE, EndedRow, TOPIC};
use crate::audit::{AdminChange, Event, record_admin_change};
use crate::identity::admin_key::WriteAccess;
use crate::store::{StoreError, Tx};

/// Which sessions.
#[derive(Debug, Clone, Copy)]
pub(in crate::identity) enum Whose<'a> {
    One(&'a str),
    Sub(&'a str),
    Everyone,
    IdpSession { issuer: &'a str, sid: &'a str, sub: Option<&'a str> },
    IdpSubject { issuer: &'a str, sub: &'a str },
    IdleSince(i64),
    BegunBy(i64),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::identity) enum Why {
    SignedOut,
    Admin,
    IdpLogout,
    Idle,
    MaxAge,
    Reuse,
    OtherPerson,
}

impl Why {
    /// The word for it in the database, the admin API and the audit.
    fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Admin => "admin",
            Self::IdpLogout => "idp_logout",
            Self::Idle => "idle",
            Self::MaxAge => "max_age",
            Self::Reuse => "reuse",
            Self::OtherPerson => "other_person",
        }
    }
}

/// Who made sessions end, for the audit.
#[derive(Debug, Clone, Copy, Default)]
pub struct By<'a> {
    /// The answer's `x-request-id`; `None` when time did it.
    pub request_id: Option<&'a str>,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
    /// `admin-key:<id>` or `oidc:<sub>`.
    pub actor: Option<&'a str>,
}

impl Sessions {
    /// Ends sessions and tells everyone; how many there were.
    pub(in crate::identity) async fn end(&self, whose: Whose<'_>, why: Why, by: By<'_>) -> Result<usize, StoreError> {
        if let Whose::One(id) = whose
            && table::state(&self.store, id).await?.is_none_or(|state| state.ended)
        {
            // Without a count: ended ones are presented again and again.
            return Ok(0);
        }
        let ending = self.begin_ending().await?;
        self.finish_ending(ending, whose, why, by).await
    }

    /// As [`Sessions::end`], for a logout token of the provider; `None` when it was obeyed before. With a subject and no
    /// session, what was issued to the subject before now is void.
    pub(in crate::identity) async fn end_by_token(
        &self,
        (token, expires_at): (&str, i64),
        whose: Whose<'_>,
        by: By<'_>,
    ) -> Result<Option<usize>, StoreError> {
        let mut ending = self.begin_ending().await?;
        if !table::keep_logout_token(&mut ending.tx, token, expires_at).await? {
            ending.tx.commit().await?;
            return Ok(None);
        }
        if let Whose::IdpSubject { sub, .. } = whose {
            ending.mark(sub).await?;
        }
        self.finish_ending(ending, whose, Why::IdpLogout, by).await.map(Some)
    }

    /// An administrator ends a session; `false` when there is none of that id.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn end_one(&self, access: &WriteAccess, id: &str, by: By<'_>) -> Result<bool, StoreError> {
        let Some(state) = table::state(&self.store, id).await? else { return Ok(false) };
        if state.ended {
            return Ok(true);
        }
        let mut ending = self.begin_ending().await?;
        ending.record(access, "session.end", id).await?;
        self.finish_ending(ending, Whose::One(id), Why::Admin, by).await.map(|_| true)
    }

    /// An administrator ends every session of a person, or of everyone (`None`), and makes void what was issued to them
    /// before now; how many sessions there were.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn revoke(&self, access: &WriteAccess, sub: Option<&str>, by: By<'_>) -> Result<usize, StoreError> {
        let mut ending = self.begin_ending().await?;
        ending.mark(sub.unwrap_or(EVERYONE)).await?;
        ending.record(access, "session.revoke", sub.unwrap_or("*")).await?;
        self.finish_ending(ending, sub.map_or(Whose::Everyone, Whose::Sub), Why::Admin, by).await
    }

    /// Puts a pseudonym in the place of a subject in sessions that have ended; gives how many there were.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn forget(&self, sub: &str, pseudonym: &str) -> Result<u64, StoreError> {
        table::forget(&self.store, sub, pseudonym).await
    }

    async fn begin_ending(&self) -> Result<Ending, StoreError> {
        let mut tx = self.store.begin().await?;
        let revision = table::bump(&mut tx).await?;
        // After the lock, so that of two endings the later one has the later time.
        Ok(Ending { tx, revision, at: self.clock.now(), marks: Vec::new() })
    }

    async fn finish_ending(
        &self,
        mut ending: Ending,
        whose: Whose<'_>,
        why: Why,
        by: By<'_>,
    ) -> Result<usize, StoreError> {
        let at = ending.at.as_millisecond();
        let ended = table::end(&mut ending.tx, at, why.as_str(), ending.revision, &whose).await?;
        ending.tx.notify(TOPIC).await?;
        ending.tx.commit().await?;
        let ids: Vec<(String, i64)> = ended.iter().map(|session| (session.id.clone(), at)).collect();
        self.revoked.learn(&ids, &ending.marks, None);
        ended.iter().for_each(|session| self.tell(session, why, by));
        Ok(ended.len())
    }

    fn tell(&self, session: &EndedRow, why: Why, by: By<'_>) {
        let client_ip = by.client_ip.map(|ip| ip.to_string());
        let event = Event::SessionEnd {
            session: &session.id,
            sub: &session.sub,
            email: session.email.as_deref(),
            reason: why.as_str(),
            actor: by.actor,
            client_ip: client_ip.as_deref(),
        };
        self.audit.emit(by.request_id, &event);
    }
}

/// An ending under way: holds the lock that makes endings follow each other.
struct Ending {
    tx: Tx,
    revision: i64,
    at: Timestamp,
    marks: Vec<(String, i64)>,
}

impl Ending {
    async fn mark(&mut self, sub: &str) -> Result<(), StoreError> {
        let at = self.at.as_millisecond();
        self.marks.push((sub.to_owned(), at));
        table::mark(&mut self.tx, sub, at, self.revision).await
    }

    async fn record(&mut self, access: &WriteAccess, action: &str, target: &str) -> Result<(), StoreError> {
        let (at, actor) = (self.at, access.actor());
        let change = AdminChange { at, actor, action, target, before: None, after: None };
        record_admin_change(&mut self.tx, &change).await
    }
}
