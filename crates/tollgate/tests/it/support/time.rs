//! The time of a test's own runtime, and so of every timer of a gateway in it.

use std::time::Duration;

use tokio::time::{Instant, pause, resume};

/// Waits for what comes only after a while: when nothing is left to do but wait, the next timer is due at once. Also says how
/// much time has passed for the timers. Nothing of a database may be under way: its budget would be over at once.
pub(crate) async fn wait_for<T>(awaited: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    pause();
    let came = awaited.await;
    resume();
    (came, began.elapsed())
}
