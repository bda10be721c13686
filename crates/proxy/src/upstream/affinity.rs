//! Affinity: which upstream holds the prompt cache of a session that is not where the configuration's order puts it.
//!
//! The order decides where a session begins. One that had to go elsewhere built its cache there, and goes back only when
//! that cache is gone (contract R30). Knows sessions by a number; what is known is kept in memory, and so in one replica.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Upstream;

/// How long a prompt cache lives after its last use, unless it was written to live an hour.
pub const CACHE_LIFE: Duration = Duration::from_secs(300);
/// How long one lives that was.
pub const LONG_CACHE_LIFE: Duration = Duration::from_secs(3600);
/// Sessions remembered in one generation; there are two, and the older one goes when the younger is full.
const GENERATION: usize = 10_000;

/// A session's prompt cache for one model; different ones are told apart by chance, not by certainty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(u64);

/// Where sessions are that left the configuration's order.
#[derive(Debug, Default)]
pub(super) struct Homes {
    hasher: RandomState,
    homes: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<CacheKey, Home>,
    old: HashMap<CacheKey, Home>,
}

#[derive(Debug, Clone)]
struct Home {
    upstream: Arc<Upstream>,
    until: Instant,
}

impl Homes {
    /// The key of what `sub` does in `session` with `model`.
    pub(super) fn key(&self, sub: &str, session: &str, model: &str) -> CacheKey {
        CacheKey(self.hasher.hash_one((sub, session, model)))
    }

    /// Where its cache is, if that is not where it would go anyway.
    pub(super) fn find(&self, key: CacheKey, now: Instant) -> Option<Arc<Upstream>> {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let home = homes.young.get(&key).or_else(|| homes.old.get(&key))?;
        if now < home.until {
            return Some(Arc::clone(&home.upstream));
        }
        homes.forget(key);
        None
    }

    /// It has its cache at `upstream` until then, and not where the order begins.
    pub(super) fn keep(&self, key: CacheKey, upstream: &Arc<Upstream>, until: Instant) {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        if homes.young.len() >= GENERATION {
            homes.old = std::mem::take(&mut homes.young);
        }
        homes.old.remove(&key);
        homes.young.insert(key, Home { upstream: Arc::clone(upstream), until });
    }

    /// It is back where the order begins.
    pub(super) fn forget(&self, key: CacheKey) {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
    }
}

impl Generations {
    fn forget(&mut self, key: CacheKey) {
        self.young.remove(&key);
        self.old.remove(&key);
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests of a rule about instants need one to start from"
)]
mod tests {
    use super::super::tests::upstream;
    use super::*;

    #[test]
    fn a_session_is_found_until_its_cache_is_gone() {
        let (homes, now, b) = (Homes::default(), Instant::now(), upstream("b"));
        let key = homes.key("alice", "s-1", "sonnet");
        assert!(homes.find(key, now).is_none());
        homes.keep(key, &b, now + CACHE_LIFE);
        assert_eq!(homes.find(key, now + CACHE_LIFE - Duration::from_millis(1)).unwrap().name(), "b");
        assert!(homes.find(key, now + CACHE_LIFE).is_none());
        assert!(homes.find(key, now).is_none(), "what has gone is forgotten");
    }

    #[test]
    fn sessions_of_the_same_name_are_kept_apart_by_person_and_model() {
        let (homes, now) = (Homes::default(), Instant::now());
        homes.keep(homes.key("alice", "s-1", "sonnet"), &upstream("b"), now + CACHE_LIFE);
        assert!(homes.find(homes.key("bob", "s-1", "sonnet"), now).is_none());
        assert!(homes.find(homes.key("alice", "s-1", "haiku"), now).is_none());
    }

    #[test]
    fn only_so_many_sessions_are_remembered_and_the_latest_are_among_them() {
        let (homes, now, b) = (Homes::default(), Instant::now(), upstream("b"));
        let keys: Vec<_> = (0..3 * GENERATION).map(|number| homes.key("alice", &number.to_string(), "m")).collect();
        for key in &keys {
            homes.keep(*key, &b, now + CACHE_LIFE);
        }
        assert!(homes.find(keys[0], now).is_none());
        assert!(keys[keys.len() - GENERATION..].iter().all(|key| homes.find(*key, now).is_some()));
        let held = homes.homes.lock().unwrap();
        assert!(held.young.len() + held.old.len() <= 2 * GENERATION);
    }
}
