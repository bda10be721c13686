//! The register of sessions: what is signed in, whose turn it is to refresh it, and what has ended.
//!
//! Every ending is counted and told to the other replicas, which learn of it within seconds; see [`Revoked`]. Knows
//! nothing of tokens: sealed content passes through unread.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::revoked::Revoked;
use super::table::{self, EVERYONE, EndedRow, ListedRow, TOPIC};
use crate::audit::{AdminChange, AuditLog, Event, record_admin_change};
use crate::clock::{Clock, rfc3339_ms};
use crate::identity::admin_key::WriteAccess;
use crate::store::{Store, StoreError, Tx};

/// How long a generation that was used may be used again, and gets the same.
pub(in crate::identity) const GRACE: Duration = Duration::from_secs(60);
/// How long ended sessions are kept: longer than any bearer lives (`session.ttl_hours` is at most 720).
const RETENTION: Duration = Duration::from_secs(31 * 86_400);
/// How old the knowledge of other replicas' endings may get.
const POLL: Duration = Duration::from_secs(2);
/// A turn whose replica died is given to the next one then; longer than any provider may take.
const TURN: Duration = Duration::from_secs(15);
/// How often, and how many times, a taken turn is asked for again: eight seconds.
const TURN_PAUSE: Duration = Duration::from_millis(100);
const TURN_TRIES: u32 = 80;

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct Lasting {
    /// `session.idle_days`: without a refresh.
    pub idle: Duration,
    /// `session.max_days`: however they are used.
    pub max: Duration,
}

/// The register; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Store,
    clock: Arc<dyn Clock>,
    audit: AuditLog,
    lasting: Lasting,
    revoked: Arc<Revoked>,
    /// Rotations that the database does not know of yet, by session.
    unrecorded: Arc<Mutex<HashMap<String, Rotation>>>,
}

/// A session as it begins.
pub(in crate::identity) struct Begun<'a> {
    pub(in crate::identity) id: &'a str,
    pub(in crate::identity) issuer: &'a str,
    pub(in crate::identity) sub: &'a str,
    pub(in crate::identity) idp_sid: Option<&'a str>,
    pub(in crate::identity) email: Option<&'a str>,
    pub(in crate::identity) surface: Option<&'a str>,
    pub(in crate::identity) client_ip: &'a str,
    pub(in crate::identity) generation: i64,
    /// Unix milliseconds.
    pub(in crate::identity) began: i64,
}

/// Who may ask the provider for a session now.
pub(in crate::identity) enum Turn {
    /// Who asked for the turn, until then.
    Ours(Claim),
    /// Nobody: it was done, and this came of it, sealed.
    Done(String),
    /// Nobody: the generation was used too long ago.
    Reused,
    /// Nobody: the session has ended, or was never recorded.
    Ended,
    /// Another replica, which takes its time.
    Busy,
}

/// A turn, until then.
#[derive(Debug, Clone, Copy)]
pub(in crate::identity) struct Claim(i64);

/// A refresh token was swapped for its successor.
#[derive(Debug, Clone)]
pub(in crate::identity) struct Rotation {
    pub(in crate::identity) id: String,
    /// The generation that was used.
    pub(in crate::identity) used: i64,
    pub(in crate::identity) email: Option<String>,
    pub(in crate::identity) sealed: String,
    /// Unix milliseconds.
    pub(in crate::identity) at: i64,
}

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
    /// The register of that store, with all that it knows to have ended.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open(
        store: Store,
        clock: Arc<dyn Clock>,
        audit: AuditLog,
        lasting: Lasting,
    ) -> Result<Self, StoreError> {
        let (revoked, unrecorded) = (Arc::default(), Arc::default());
        let sessions = Self { store, clock, audit, lasting, revoked, unrecorded };
        sessions.catch_up().await?;
        Ok(sessions)
    }

    /// What has ended, for those who must know at once.
    #[must_use]
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Keeps this replica's knowledge close to what others end, and tells the database what it missed. Runs until dropped.
    pub async fn follow(&self) {
        let changed = tokio::sync::Notify::new();
        let listening = self.store.listen(|topic| {
            if topic.is_none_or(|topic| topic == TOPIC) {
                changed.notify_one();
            }
        });
        let reading = async {
            let mut told = false;
            loop {
                // A notification or the time, whichever comes first.
                let _ = tokio::time::timeout(POLL, changed.notified()).await;
                let failed = self.catch_up().await.err();
                if let Some(error) = failed.as_ref().filter(|_| !told) {
                    tracing::warn!("revoked sessions of other replicas cannot be read; those known stay so: {error}");
                }
                told = failed.is_some();
            }
        };
        tokio::join!(listening, reading);
    }

    /// Learns what others have ended, and records what the database was not there for.
    pub(in crate::identity) async fn catch_up(&self) -> Result<(), StoreError> {
        // The revision first: what comes between is then read twice rather than missed.
        let revision = table::revision(&self.store).await?;
        let known = self.revoked.revision();
        if revision != known {
            let ended = table::ended_since(&self.store, known).await?;
            let marks = table::marked_since(&self.store, known).await?;
            self.revoked.learn(&ended, &marks, Some(revision));
        }
        let waiting: Vec<Rotation> = self.unrecorded().values().cloned().collect();
        for rotation in waiting {
            self.record(&rotation).await?;
            let mut unrecorded = self.unrecorded();
            if unrecorded.get(&rotation.id).is_some_and(|waiting| waiting.used == rotation.used) {
                unrecorded.remove(&rotation.id);
            }
        }
        Ok(())
    }

    /// Whether a session is over that was last given tokens at `issued`; times in Unix milliseconds.
    pub(in crate::identity) fn overdue(&self, began: i64, issued: i64) -> Option<Why> {
        let now = self.now();
        if began <= now.saturating_sub(ms(self.lasting.max)) {
            return Some(Why::MaxAge);
        }
        (issued <= now.saturating_sub(ms(self.lasting.idle))).then_some(Why::Idle)
    }

    /// Enters a session.
    pub(in crate::identity) async fn begin(&self, tx: &mut Tx, session: &Begun<'_>) -> Result<(), StoreError> {
        table::insert(tx, session).await
    }

    /// Asks for the turn to refresh a session; waits while another replica has it.
    pub(in crate::identity) async fn turn(&self, id: &str, generation: i64) -> Result<Turn, StoreError> {
        for _ in 0..TURN_TRIES {
            let now = self.now();
            let until = now.saturating_add(ms(TURN));
            if table::claim(&self.store, until, id, generation, now).await? {
                return Ok(Turn::Ours(Claim(until)));
            }
            match table::state(&self.store, id).await? {
                None => return Ok(Turn::Ended),
                Some(state) if state.ended => return Ok(Turn::Ended),
                Some(state) if state.generation > generation => return self.after_use(id, generation, now).await,
                Some(_) => tokio::time::sleep(TURN_PAUSE).await,
            }
        }
        Ok(Turn::Busy)
    }

    async fn after_use(&self, id: &str, generation: i64, now: i64) -> Result<Turn, StoreError> {
        let successor = table::successor(&self.store, id, generation).await?;
        let fresh = successor.filter(|(_, used_at)| now.saturating_sub(*used_at) < ms(GRACE));
        Ok(fresh.map_or(Turn::Reused, |(sealed, _)| Turn::Done(sealed)))
    }

    /// Gives a turn back unused. When that fails it ends by itself.
    pub(in crate::identity) async fn release(&self, id: &str, claim: Claim) {
        if let Err(error) = table::release(&self.store, id, claim.0).await {
            tracing::warn!("the turn to refresh a session is not given back yet: {error}");
        }
    }

    /// Records that a refresh token was swapped; `false` when the session has ended meanwhile, or another replica swapped
    /// the same. A database that does not answer hears of it later.
    pub(in crate::identity) async fn rotated(&self, rotation: Rotation) -> bool {
        match self.record(&rotation).await {
            Ok(stands) => stands,
            Err(error) => {
                tracing::warn!("a refresh is not recorded yet: {error}");
                self.unrecorded().insert(rotation.id.clone(), rotation);
                true
            }
        }
    }

    async fn record(&self, rotation: &Rotation) -> Result<bool, StoreError> {
        let Rotation { id, used, email, sealed, at } = rotation;
        let mut tx = self.store.begin().await?;
        let stands = table::rotate(&mut tx, used.saturating_add(1), email.as_deref(), *at, id).await?;
        if stands {
            table::keep_successor(&mut tx, id, *used, sealed, *at).await?;
        }
        tx.commit().await?;
        Ok(stands)
    }

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

    /// Ends what is overdue, and removes what ended long ago; called now and then.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let now = self.now();
        let (idle, old) = (now.saturating_sub(ms(self.lasting.idle)), now.saturating_sub(ms(self.lasting.max)));
        if table::is_overdue(&self.store, idle, old).await? {
            self.end(Whose::BegunBy(old), Why::MaxAge, By::default()).await?;
            self.end(Whose::IdleSince(idle), Why::Idle, By::default()).await?;
        }
        // A sealed refresh token outlives its row no longer than it could be used: a database that is down cannot tell.
        let kept = ms(RETENTION.max(self.lasting.idle));
        let ended_by = now.saturating_sub(kept);
        self.revoked.forget(ended_by);
        table::sweep(&self.store, ended_by, now.saturating_sub(ms(GRACE)), now).await
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

    fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    fn unrecorded(&self) -> std::sync::MutexGuard<'_, HashMap<String, Rotation>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
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

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
