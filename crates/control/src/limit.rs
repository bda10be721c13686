//! Rate-limit counters, shared by replicas: so many hits in a window that its first hit opens.
//!
//! Knows names of buckets; knows nothing of what is limited.

mod table;

use std::time::Duration;

use jiff::Timestamp;

use crate::store::{Store, StoreError};

/// A fixed-window limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Hits allowed in a window; more than 0.
    pub max: u32,
    /// Length of the window, counted from its first hit.
    pub window: Duration,
}

/// The counters; cheap to clone.
#[derive(Debug, Clone)]
pub struct Counters {
    store: Store,
}

/// Whether a hit is within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a limit that nobody looks at limits nothing"]
pub enum Hit {
    /// It is.
    Within,
    /// It is not.
    Over {
        /// How long until the window ends.
        retry_after: Duration,
    },
}

impl Counters {
    /// Counters in that store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Counts a hit on `bucket`, such as `devauth:203.0.113.7`. Hits over the limit are counted too, and do not prolong the
    /// window.
    ///
    /// # Errors
    /// When the store gives no answer: the caller decides whether that is a yes.
    pub async fn hit(&self, bucket: &str, limit: RateLimit, now: Timestamp) -> Result<Hit, StoreError> {
        let now_ms = now.as_millisecond();
        let window_ms = i64::try_from(limit.window.as_millis()).unwrap_or(i64::MAX);
        let (hits, resets_at) = table::hit(&self.store, bucket, now_ms.saturating_add(window_ms), now_ms).await?;
        if hits <= i64::from(limit.max) {
            return Ok(Hit::Within);
        }
        let left = u64::try_from(resets_at.saturating_sub(now_ms)).unwrap_or(0);
        Ok(Hit::Over { retry_after: Duration::from_millis(left) })
    }

    /// Where `bucket` stands, without a hit: over once a hit would be.
    ///
    /// # Errors
    /// As [`Counters::hit`].
    pub async fn standing(&self, bucket: &str, limit: RateLimit, now: Timestamp) -> Result<Hit, StoreError> {
        let now_ms = now.as_millisecond();
        let counted = table::standing(&self.store, bucket, now_ms).await?;
        let Some((_, resets_at)) = counted.filter(|(hits, _)| *hits >= i64::from(limit.max)) else {
            return Ok(Hit::Within);
        };
        let left = u64::try_from(resets_at.saturating_sub(now_ms)).unwrap_or(0);
        Ok(Hit::Over { retry_after: Duration::from_millis(left) })
    }

    /// Removes counters whose window is over; called now and then.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        table::sweep(&self.store, now.as_millisecond()).await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::store::Config;

    const LIMIT: RateLimit = RateLimit { max: 3, window: Duration::from_secs(600) };

    async fn counters() -> (tempfile::TempDir, Counters) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&Config::Sqlite { path: directory.path().join("limits.db") }).await.unwrap();
        (directory, Counters::new(store))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[tokio::test]
    async fn the_window_is_fixed_by_its_first_hit_and_starts_anew_after_it() {
        let (_directory, counters) = counters().await;
        for second in [0, 100, 200] {
            assert_eq!(counters.hit("a", LIMIT, at(second)).await.unwrap(), Hit::Within);
        }
        let over = Hit::Over { retry_after: Duration::from_secs(300) };
        assert_eq!(counters.hit("a", LIMIT, at(300)).await.unwrap(), over);
        let over = Hit::Over { retry_after: Duration::from_secs(1) };
        assert_eq!(counters.hit("a", LIMIT, at(599)).await.unwrap(), over);
        assert_eq!(counters.hit("a", LIMIT, at(600)).await.unwrap(), Hit::Within);
    }

    #[tokio::test]
    async fn where_a_bucket_stands_can_be_asked_without_a_hit() {
        let (_directory, counters) = counters().await;
        for second in [0, 1, 2] {
            assert_eq!(counters.standing("a", LIMIT, at(second)).await.unwrap(), Hit::Within);
            assert_eq!(counters.hit("a", LIMIT, at(second)).await.unwrap(), Hit::Within);
        }
        let over = Hit::Over { retry_after: Duration::from_secs(597) };
        assert_eq!(counters.standing("a", LIMIT, at(3)).await.unwrap(), over);
        assert_eq!(counters.standing("a", LIMIT, at(600)).await.unwrap(), Hit::Within);
    }

    #[tokio::test]
    async fn buckets_do_not_share_hits() {
        let (_directory, counters) = counters().await;
        let once = RateLimit { max: 1, ..LIMIT };
        assert_eq!(counters.hit("a", once, at(0)).await.unwrap(), Hit::Within);
        assert_eq!(counters.hit("b", once, at(0)).await.unwrap(), Hit::Within);
        assert_ne!(counters.hit("a", once, at(0)).await.unwrap(), Hit::Within);
    }

    #[tokio::test]
    async fn racing_hits_are_all_counted() {
        let (_directory, counters) = counters().await;
        let hits = futures_util::future::join_all((0..20).map(|_| counters.hit("a", LIMIT, at(0)))).await;
        let within = hits.into_iter().filter(|hit| matches!(hit, Ok(Hit::Within))).count();
        assert_eq!(within, 3);
    }

    #[tokio::test]
    async fn only_counters_whose_window_is_over_are_swept() {
        let (_directory, counters) = counters().await;
        let once = RateLimit { max: 1, ..LIMIT };
        assert_eq!(counters.hit("old", once, at(0)).await.unwrap(), Hit::Within);
        assert_eq!(counters.hit("new", once, at(10)).await.unwrap(), Hit::Within);
        assert_eq!(counters.sweep(at(600)).await.unwrap(), 1);
        assert_ne!(counters.hit("new", once, at(600)).await.unwrap(), Hit::Within);
    }
}
