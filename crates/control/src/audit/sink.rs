//! Where audit lines go: a writer thread that lines are handed to, so that no request waits for a pipe - until the
//! backlog says that it must.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use super::Event;
use crate::clock::{Clock, rfc3339_ms};

/// How long lines may gather before they are written, so that a busy gateway wakes the writer once for many.
const GATHER: Duration = Duration::from_millis(2);
/// Bytes that may wait for the writer before requests wait too.
const BACKLOG: usize = 4 * 1024 * 1024;

/// The audit log; cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditLog {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake_writer: Condvar,
    drained: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    /// Somebody waits for the lines, or no more will come.
    hurry: bool,
    closed: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl AuditLog {
    /// A log that a thread of its own writes to `out`, whole lines at a time.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(out: impl Write + Send + 'static, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake_writer: Condvar::new(), drained: Notify::new() });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.write_all_to(out))?;
        Ok(Self { shared, clock })
    }

    /// Waits while the writer is behind. Called before a request is taken on, so that the backlog is bounded by the
    /// requests in flight and no line is ever dropped.
    pub async fn ready(&self) {
        loop {
            let drained = self.shared.drained.notified();
            if self.shared.lock().waiting.len() < BACKLOG {
                return;
            }
            drained.await;
        }
    }

    /// Records an event; `request_id` is the `x-request-id` of the answer.
    pub fn emit(&self, request_id: Option<&str>, event: &Event<'_>) {
        let line = Line { ts: rfc3339_ms(self.clock.now()), event, request_id };
        let mut state = self.shared.lock();
        let before = state.waiting.len();
        if serde_json::to_writer(&mut state.waiting, &line).is_ok() {
            state.waiting.push(b'\n');
        } else {
            state.waiting.truncate(before);
        }
        // The writer takes all there is: only the first line after that must wake it.
        if before == 0 {
            self.shared.wake_writer.notify_one();
        }
    }

    /// Waits until everything recorded so far is written.
    pub async fn flush(&self) {
        loop {
            let drained = self.shared.drained.notified();
            {
                let mut state = self.shared.lock();
                if state.waiting.is_empty() && !state.writing {
                    return;
                }
                state.hurry = true;
                self.shared.wake_writer.notify_one();
            }
            drained.await;
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        // The writer holds one reference, this is the other.
        if Arc::strong_count(&self.shared) <= 2 {
            self.shared.lock().closed = true;
            self.shared.wake_writer.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all_to(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            {
                let mut state = self.lock();
                while state.waiting.is_empty() && !state.closed {
                    state = self.wake_writer.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.waiting.is_empty() {
                    return;
                }
                let gathered = |state: &mut State| !state.hurry && !state.closed && state.waiting.len() < BACKLOG;
                (state, _) = self
                    .wake_writer
                    .wait_timeout_while(state, GATHER, gathered)
                    .unwrap_or_else(PoisonError::into_inner);
                state.hurry = false;
                std::mem::swap(&mut state.waiting, &mut lines);
                state.writing = true;
            }
            // A closed stderr must not stop the gateway; there is nowhere left to say so.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            self.lock().writing = false;
            self.drained.notify_waiters();
        }
    }
}
