//! A credential that expires: renewed ahead of that, by one request at a time, while the others go on with the old one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use control::clock::Clock;

/// How long before its end a credential is renewed, at most: a fifth of its life where that is less.
const AHEAD: Duration = Duration::from_secs(300);
/// After a renewal failed while the old credential is still good, it is left alone for so long; and so long a new one is
/// kept, whoever refuses it.
const PAUSE: Duration = Duration::from_secs(10);
/// How long one renewal may take: longer than what its steps allow themselves, programs that give credentials among them.
const BUDGET: Duration = Duration::from_secs(40);

/// No credential could be had. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no credentials: {0}")]
pub(super) struct NoCredential(pub(super) String);

/// A credential with its end.
#[derive(Debug)]
pub(super) struct Fresh<T> {
    /// What is shown.
    pub(super) value: T,
    /// How long it is good from now on; `None`: for ever.
    pub(super) lasts: Option<Duration>,
}

/// Holds one credential of one kind.
#[derive(Debug)]
pub(super) struct Renewed<T> {
    state: Mutex<State<T>>,
    /// Held by the request that renews.
    turn: tokio::sync::Mutex<()>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State<T> {
    current: Option<Current<T>>,
    /// The last renewal that failed.
    failed: Option<(Instant, NoCredential)>,
}

#[derive(Debug)]
struct Current<T> {
    value: Arc<T>,
    since: Instant,
    /// `None`: for ever.
    life: Option<Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    renew_at: Instant,
    ends_at: Instant,
}

impl<T> Renewed<T> {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::new(State { current: None, failed: None }), turn: tokio::sync::Mutex::default(), clock }
    }

    /// The credential, fetched by `renew` where that is due.
    ///
    /// # Errors
    /// When there is none and none could be fetched. Who waited for somebody else's renewal shares its failure.
    pub(super) async fn get(
        &self,
        renew: impl Future<Output = Result<Fresh<T>, NoCredential>>,
    ) -> Result<Arc<T>, NoCredential> {
        let asked = self.clock.instant();
        let usable = self.usable(asked);
        let turn = match usable {
            Some((value, false)) => return Ok(value),
            // It is good for a while yet: whoever cannot renew it at once goes on with it.
            Some((value, true)) => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(value),
            },
            None => self.turn.lock().await,
        };
        match self.usable(self.clock.instant()) {
            Some((value, false)) => return Ok(value),
            Some((_, true)) => {}
            None => self.shared_failure(asked)?,
        }
        let renewed = tokio::time::timeout(BUDGET, renew).await;
        let renewed =
            renewed.unwrap_or_else(|_| Err(NoCredential(format!("nothing came within {} s", BUDGET.as_secs()))));
        let outcome = self.keep(renewed);
        drop(turn);
        outcome
    }

    /// The credential that `is_shown` recognises was refused ahead of its end: who asks next fetches another one. One that
    /// was just fetched is kept, because the next would fare no better, and its source is not to be asked for each request.
    /// Whether it was forgotten.
    pub(super) fn refused(&self, is_shown: impl FnOnce(&T) -> bool) -> bool {
        let now = self.clock.instant();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |current: &Current<T>| now.saturating_duration_since(current.since) >= PAUSE;
        let is_forgotten = state.current.as_ref().is_some_and(|current| is_old(current) && is_shown(&current.value));
        if is_forgotten {
            state.current = None;
        }
        is_forgotten
    }

    /// Whether it has ended, or was never there.
    pub(super) fn is_over(&self) -> bool {
        self.usable(self.clock.instant()).is_none()
    }

    /// What can still be shown, and whether it is time to renew it.
    fn usable(&self, now: Instant) -> Option<(Arc<T>, bool)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Current { value, life, .. } = state.current.as_ref()?;
        let value = Arc::clone(value);
        let Some(Life { renew_at, ends_at }) = *life else { return Some((value, false)) };
        if now >= ends_at {
            return None;
        }
        let is_paused = state.failed.as_ref().is_some_and(|(at, _)| now.saturating_duration_since(*at) < PAUSE);
        Some((value, now >= renew_at && !is_paused))
    }

    fn shared_failure(&self, asked: Instant) -> Result<(), NoCredential> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.failed {
            Some((at, failure)) if *at > asked => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    fn keep(&self, renewed: Result<Fresh<T>, NoCredential>) -> Result<Arc<T>, NoCredential> {
        let now = self.clock.instant();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match renewed {
            Ok(Fresh { value, lasts }) => {
                let value = Arc::new(value);
                let life = lasts.map(|lasts| {
                    let ahead = AHEAD.min(lasts / 5);
                    Life { renew_at: now + (lasts - ahead), ends_at: now + lasts }
                });
                state.current = Some(Current { value: Arc::clone(&value), since: now, life });
                state.failed = None;
                Ok(value)
            }
            Err(failure) => {
                state.failed = Some((now, failure.clone()));
                let good = state.current.as_ref().filter(|current| current.life.is_none_or(|life| now < life.ends_at));
                match good {
                    Some(current) => {
                        tracing::warn!("a credential could not be renewed ahead of its end: {}", failure.0);
                        Ok(Arc::clone(&current.value))
                    }
                    None => Err(failure),
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use control::clock::TestClock;
    use tokio::sync::oneshot;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Source {
        renewed: Renewed<u32>,
        clock: Arc<TestClock>,
        calls: AtomicU32,
    }

    impl Source {
        fn new() -> Self {
            let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
            Self { renewed: Renewed::new(clock.clone()), clock, calls: AtomicU32::new(0) }
        }

        async fn fetch(&self) -> Result<Fresh<u32>, NoCredential> {
            let value = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(Fresh { value, lasts: Some(HOUR) })
        }

        async fn fail(&self) -> Result<Fresh<u32>, NoCredential> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            Err(NoCredential("down".to_owned()))
        }

        async fn get(&self) -> u32 {
            *self.renewed.get(self.fetch()).await.unwrap()
        }
    }

    #[tokio::test]
    async fn it_is_fetched_once_and_again_ahead_of_its_end() {
        let source = Source::new();
        assert_eq!((source.get().await, source.get().await), (1, 1));
        source.clock.advance(HOUR - AHEAD - Duration::from_secs(1));
        assert_eq!(source.get().await, 1);
        source.clock.advance(Duration::from_secs(1));
        assert_eq!((source.get().await, source.get().await), (2, 2));
    }

    #[tokio::test]
    async fn while_one_request_renews_the_others_go_on_with_the_old_one() {
        let source = Source::new();
        source.get().await;
        source.clock.advance(HOUR - AHEAD);
        let (go, wait) = oneshot::channel::<()>();
        let renewing = source.renewed.get(async {
            wait.await.unwrap();
            source.fetch().await
        });
        let others = async {
            assert_eq!(source.get().await, 1);
            go.send(()).unwrap();
        };
        let (renewed, ()) = tokio::join!(renewing, others);
        assert_eq!(*renewed.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_failed_renewal_leaves_the_old_one_until_its_end_and_is_not_repeated_at_once() {
        let source = Source::new();
        source.get().await;
        source.clock.advance(HOUR - AHEAD);
        assert_eq!(*source.renewed.get(source.fail()).await.unwrap(), 1);
        assert_eq!(*source.renewed.get(source.fail()).await.unwrap(), 1);
        assert_eq!(source.calls.load(Ordering::Relaxed), 2);
        source.clock.advance(PAUSE);
        assert_eq!(source.get().await, 3);
        source.clock.advance(HOUR);
        assert_eq!(source.renewed.get(source.fail()).await.unwrap_err().to_string(), "no credentials: down");
    }

    #[tokio::test]
    async fn one_that_is_refused_is_fetched_again_but_not_for_each_request() {
        let source = Source::new();
        source.get().await;
        let refused = |shown: u32| source.renewed.refused(|current| *current == shown);
        assert!(!refused(1), "it is new");
        source.clock.advance(PAUSE);
        assert!(!refused(7), "another one was refused");
        assert_eq!(source.get().await, 1);
        assert!(refused(1) && !refused(1));
        assert_eq!(source.get().await, 2);
        assert!(!refused(2));
        assert_eq!(source.get().await, 2);
    }

    #[tokio::test]
    async fn those_who_wait_for_a_renewal_share_its_failure() {
        let source = Source::new();
        let first = source.renewed.get(async {
            tokio::task::yield_now().await;
            source.clock.advance(Duration::from_millis(1));
            source.fail().await
        });
        let (first, second) = tokio::join!(first, source.renewed.get(source.fail()));
        assert!(first.is_err() && second.is_err());
        assert_eq!(source.calls.load(Ordering::Relaxed), 1);
    }
}
