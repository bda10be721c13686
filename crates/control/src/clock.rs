//! The only reader of the time.
//!
//! Every room is given a [`Clock`], so that a test decides what time it is.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::Timestamp;

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall-clock time, UTC.
    fn now(&self) -> Timestamp;

    /// A monotonic reading, for measuring how long something took.
    fn instant(&self) -> Instant;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct TestClock {
    start: Instant,
    start_ms: i64,
    now_ms: AtomicI64,
}

impl TestClock {
    /// A clock standing at `start`, cut to whole milliseconds.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
    pub fn at(start: Timestamp) -> Self {
        let start_ms = start.as_millisecond();
        Self { start: Instant::now(), start_ms, now_ms: AtomicI64::new(start_ms) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: std::time::Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.now_ms.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }

    fn instant(&self) -> Instant {
        let passed = self.now_ms.load(Ordering::SeqCst).saturating_sub(self.start_ms);
        self.start + std::time::Duration::from_millis(u64::try_from(passed).unwrap_or(0))
    }
}

/// RFC 3339 with milliseconds, UTC: `2026-11-22T11:13:14.508Z`.
#[must_use]
pub fn rfc3339_ms(at: Timestamp) -> String {
    jiff::fmt::temporal::DateTimePrinter::new().precision(Some(3)).timestamp_to_string(&at)
}
