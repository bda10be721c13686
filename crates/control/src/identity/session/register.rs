//! The register of sessions: what is signed in, whose turn it is to refresh it, and what has ended.
//!
//! What other replicas end is learnt within seconds; see [`Revoked`]. Knows nothing of tokens: sealed content passes
//! through unread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Authenticated;
use super::ending::{By, Whose, Why};
use super::groups::Groups;
use super::revoked::Revoked;
use super::table::{self, TOPIC};
use crate::audit::AuditLog;
use crate::clock::Clock;
use crate::identity::Principal;
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
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) audit: AuditLog,
    lasting: Lasting,
    pub(super) revoked: Arc<Revoked>,
    /// Rotations that the database does not know of yet, by session.
    unrecorded: Arc<Mutex<HashMap<String, Rotation>>>,
    groups: Arc<Groups>,
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
    /// All groups, as JSON, when there are more than a bearer can carry.
    pub(in crate::identity) groups: Option<&'a str>,
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
    /// All groups, as JSON; `None`: as before, or nobody asks for them.
    pub(in crate::identity) groups: Option<String>,
    pub(in crate::identity) sealed: String,
    /// Unix milliseconds.
    pub(in crate::identity) at: i64,
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
        let groups = Arc::new(Groups::new(store.clone(), Arc::clone(&clock)));
        let sessions = Self { store, clock, audit, lasting, revoked, unrecorded, groups };
        sessions.catch_up().await?;
        Ok(sessions)
    }

    /// What has ended, for those who must know at once.
    #[must_use]
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// Whom a bearer speaks of, with all groups, be they more than a bearer can carry. Asks the database once per session and
    /// list.
    pub async fn complete(&self, bearer: Authenticated) -> Arc<Principal> {
        match bearer.all_groups {
            None => Arc::new(bearer.principal),
            Some(digest) => self.groups.complete(bearer.principal, digest).await,
        }
    }

    /// The list of groups of that digest, if a session's row has it.
    pub(in crate::identity) async fn groups_of(&self, id: &str, digest: &str) -> Option<Vec<String>> {
        self.groups.list(id, digest).await
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
        let mut tx = self.store.begin().await?;
        let stands = table::rotate(&mut tx, rotation).await?;
        if stands {
            let Rotation { id, used, sealed, at, .. } = rotation;
            table::keep_successor(&mut tx, id, *used, sealed, *at).await?;
        }
        tx.commit().await?;
        Ok(stands)
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

    fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    fn unrecorded(&self) -> std::sync::MutexGuard<'_, HashMap<String, Rotation>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
