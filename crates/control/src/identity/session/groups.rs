//! The groups of people who are in too many for a bearer: the session's row keeps the whole list, the bearer names it by its
//! digest, and this keeps it in memory, so that no request but the first asks the database.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;

use super::{hex, table};
use crate::clock::Clock;
use crate::identity::Principal;
use crate::store::Store;

/// How long a list is kept that is the one that the bearer names, in milliseconds.
const KEPT: i64 = 3_600_000;
/// And one that is not, or could not be had: the right one may come any moment.
const KEPT_INSTEAD: i64 = 5000;
/// All lists together, in bytes; beyond it they are read anew.
const MOST: usize = 64 * 1024 * 1024;
/// What a group costs beside its letters.
const OVERHEAD: usize = 32;

/// Whole lists of groups, by session.
pub(super) struct Groups {
    store: Store,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By session and digest: an older bearer of the same session may be in use beside a newer one.
    lists: HashMap<(String, String), Entry>,
    bytes: usize,
}

struct Entry {
    /// As the bearer says, with all groups.
    principal: Arc<Principal>,
    /// Unix milliseconds.
    until: i64,
    bytes: usize,
}

/// What names a list, as it stands in a session's row.
pub(in crate::identity) fn digest_of(list: &str) -> String {
    hex(&digest::digest(&digest::SHA256, list.as_bytes()).as_ref()[..8])
}

impl Groups {
    pub(super) fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, known: Mutex::default() }
    }

    /// The principal with all groups. While the database does not answer, those of the bearer, among which are all that the
    /// configuration names.
    pub(super) async fn complete(&self, principal: Principal, digest: String) -> Arc<Principal> {
        let Some(session) = principal.session.clone() else { return Arc::new(principal) };
        let key = (session, digest);
        let now = self.clock.now().as_millisecond();
        if let Some(known) = self.known().find(&key, now) {
            return same_but_groups(known, principal);
        }
        let (list, kept, groups_unread) = match table::groups(&self.store, &key.0).await {
            Ok(list) => {
                let kept =
                    if list.as_deref().is_some_and(|list| digest_of(list) == key.1) { KEPT } else { KEPT_INSTEAD };
                (list, kept, false)
            }
            Err(error) => {
                tracing::warn!("the groups of a session cannot be read; those in its bearer are used: {error}");
                (None, KEPT_INSTEAD, true)
            }
        };
        let groups = list.and_then(|list| serde_json::from_str(&list).ok()).unwrap_or_else(|| principal.groups.clone());
        let principal = Arc::new(Principal { groups, groups_unread, ..principal });
        self.known().keep(key, Arc::clone(&principal), now, now.saturating_add(kept));
        principal
    }

    /// The list of that digest, if the session's row has it.
    pub(super) async fn list(&self, session: &str, digest: &str) -> Option<Vec<String>> {
        let list = table::groups(&self.store, session).await.ok().flatten();
        serde_json::from_str(&list.filter(|list| digest_of(list) == digest)?).ok()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Groups")
    }
}

impl Known {
    fn find(&self, key: &(String, String), now: i64) -> Option<Arc<Principal>> {
        let entry = self.lists.get(key).filter(|entry| now < entry.until)?;
        Some(Arc::clone(&entry.principal))
    }

    fn keep(&mut self, key: (String, String), principal: Arc<Principal>, now: i64, until: i64) {
        let bytes = principal.groups.iter().map(|group| group.len() + OVERHEAD).sum();
        if self.bytes.saturating_add(bytes) > MOST {
            self.lists.retain(|_, entry| now < entry.until);
            self.bytes = self.lists.values().map(|entry| entry.bytes).sum();
        }
        if self.bytes.saturating_add(bytes) > MOST {
            *self = Self::default();
        }
        let before = self.lists.insert(key, Entry { principal, until, bytes });
        self.bytes = self.bytes + bytes - before.map_or(0, |entry| entry.bytes);
    }
}

/// The known one, unless the bearer says something else of the person: copying thousands of groups is not for every request.
fn same_but_groups(known: Arc<Principal>, principal: Principal) -> Arc<Principal> {
    let is_same = known.sub == principal.sub
        && known.email == principal.email
        && known.name == principal.name
        && known.billing_group_tag == principal.billing_group_tag;
    if is_same {
        return known;
    }
    Arc::new(Principal { groups: known.groups.clone(), groups_unread: known.groups_unread, ..principal })
}
