//! What was revoked, as far as this replica knows: asked at every request, so it is answered from memory.
//!
//! Knows ids and times; knows nothing of why, or of where they come from. What is known stays known while the database
//! cannot be reached.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use super::table::EVERYONE;

/// The ended sessions and the marks before which everything is void.
#[derive(Debug)]
pub struct Revoked {
    known: RwLock<Known>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// Everything of the database up to here is known.
    revision: i64,
    /// When each ended, in Unix milliseconds.
    sessions: HashMap<Uuid, i64>,
    /// Unix milliseconds by `sub`; [`EVERYONE`] for all.
    marks: HashMap<String, i64>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self { known: RwLock::default(), changed: watch::Sender::new(()) }
    }
}

impl Revoked {
    /// Whether a bearer is void. `iat` is in Unix seconds, as bearers write it: in the second of a mark nobody knows which
    /// came first, so there the session decides, and without one the mark.
    pub(super) fn covers_bearer(&self, session: Option<&str>, sub: &str, iat: Option<i64>) -> bool {
        let known = self.known();
        if session.is_some_and(|id| known.has_ended(id)) {
            return true;
        }
        let Some(mark) = known.mark(sub) else { return false };
        let (mark, iat) = (mark.div_euclid(1000), iat.unwrap_or(i64::MIN));
        if session.is_some() { iat < mark } else { iat <= mark }
    }

    /// Whether a session is over that began at that time, in Unix milliseconds.
    pub(in crate::identity) fn covers_session(&self, id: &str, sub: &str, began: i64) -> bool {
        let known = self.known();
        known.has_ended(id) || known.mark(sub).is_some_and(|mark| began <= mark)
    }

    /// Returns once the session has ended or, for a caller without one, the person was revoked after `since`.
    pub async fn ended(&self, session: Option<&str>, sub: &str, since: Timestamp) {
        let mut changed = self.changed.subscribe();
        loop {
            let ended = {
                let known = self.known();
                session.is_some_and(|id| known.has_ended(id))
                    || known.mark(sub).is_some_and(|mark| mark >= since.as_millisecond())
            };
            // Without the sender, which is beside it, nothing can change any more.
            if ended || changed.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.known().revision
    }

    /// Learns of endings and marks; `revision` when everything of the database up to it is among them.
    pub(super) fn learn(&self, ended: &[(String, i64)], marks: &[(String, i64)], revision: Option<i64>) {
        if ended.is_empty() && marks.is_empty() && revision.is_none() {
            return;
        }
        {
            let mut known = self.known_mut();
            for (id, at) in ended {
                if let Ok(id) = Uuid::try_parse(id) {
                    known.sessions.insert(id, *at);
                }
            }
            for (sub, at) in marks {
                let mark = known.marks.entry(sub.clone()).or_insert(*at);
                *mark = (*mark).max(*at);
            }
            known.revision = known.revision.max(revision.unwrap_or(0));
        }
        self.changed.send_replace(());
    }

    /// Forgets what ended or was marked by then: whatever it covered has expired.
    pub(super) fn forget(&self, by: i64) {
        let mut known = self.known_mut();
        known.sessions.retain(|_, at| *at > by);
        known.marks.retain(|_, at| *at > by);
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn has_ended(&self, id: &str) -> bool {
        !self.sessions.is_empty() && Uuid::try_parse(id).is_ok_and(|id| self.sessions.contains_key(&id))
    }

    fn mark(&self, sub: &str) -> Option<i64> {
        if self.marks.is_empty() {
            return None;
        }
        self.marks.get(sub).copied().max(self.marks.get(EVERYONE).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: &str = "7f6b0f0e-8a8c-4d53-9f5e-0a4b6a1f0c11";
    const OTHER: &str = "7f6b0f0e-8a8c-4d53-9f5e-0a4b6a1f0c12";

    fn pair(name: &str, at: i64) -> (String, i64) {
        (name.to_owned(), at)
    }

    #[test]
    fn an_ended_session_is_covered_until_it_is_forgotten() {
        let revoked = Revoked::default();
        revoked.learn(&[pair(ENDED, 5000)], &[], Some(1));
        assert!(revoked.covers_bearer(Some(ENDED), "ann", Some(9)) && revoked.covers_session(ENDED, "ann", 9000));
        assert!(!revoked.covers_bearer(Some(OTHER), "ann", Some(9)) && !revoked.covers_bearer(None, "ann", Some(1)));
        revoked.forget(4999);
        assert!(revoked.covers_session(ENDED, "ann", 9000));
        revoked.forget(5000);
        assert!(!revoked.covers_session(ENDED, "ann", 9000));
    }

    #[test]
    fn a_mark_covers_what_was_issued_before_it() {
        let revoked = Revoked::default();
        revoked.learn(&[], &[pair("ann", 5500)], Some(1));
        assert!(revoked.covers_bearer(None, "ann", Some(5)) && revoked.covers_bearer(Some(OTHER), "ann", Some(4)));
        assert!(!revoked.covers_bearer(None, "ann", Some(6)), "issued after it");
        assert!(!revoked.covers_bearer(Some(OTHER), "ann", Some(5)), "a sign-in of the same second");
        assert!(revoked.covers_bearer(None, "ann", None), "nobody knows when");
        assert!(revoked.covers_session(OTHER, "ann", 5500) && !revoked.covers_session(OTHER, "ann", 5501));
        assert!(!revoked.covers_bearer(None, "bob", Some(1)));
        revoked.learn(&[], &[pair(EVERYONE, 7000)], Some(2));
        assert!(revoked.covers_bearer(None, "bob", Some(7)) && revoked.covers_bearer(None, "ann", Some(6)));
        assert_eq!(revoked.revision(), 2);
    }

    #[tokio::test]
    async fn who_waits_for_an_end_hears_of_it_and_of_no_other() {
        let revoked = Revoked::default();
        let since = Timestamp::UNIX_EPOCH;
        let mut waits = Box::pin(revoked.ended(Some(ENDED), "ann", since));
        assert!(futures_util::poll!(&mut waits).is_pending());
        revoked.learn(&[pair(OTHER, 1)], &[pair("bob", 1)], Some(1));
        assert!(futures_util::poll!(&mut waits).is_pending());
        revoked.learn(&[pair(ENDED, 1)], &[], Some(2));
        assert!(futures_util::poll!(&mut waits).is_ready());
    }
}
