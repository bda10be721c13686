//! What the gateway recorded, as it records it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::PATIENCE;

/// The audit lines that the test has not taken yet; a gateway writes to a clone of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audit {
    events: watch::Sender<Vec<Value>>,
    /// Bytes of a line that is not complete.
    begun: Arc<Mutex<Vec<u8>>>,
}

impl Audit {
    /// Takes the oldest event called `name`; waits until there is one.
    pub(crate) async fn next(&self, name: &str) -> Value {
        let is_it = |event: &Value| event["evt"] == name;
        let mut events = self.events.subscribe();
        let came = timeout(PATIENCE, events.wait_for(|events| events.iter().any(is_it))).await.is_ok();
        assert!(came, "no {name} among {:#?}", self.events.borrow());
        let mut taken = None;
        self.events.send_modify(|events| {
            taken = events.iter().position(is_it).map(|index| events.remove(index));
        });
        taken.expect("another task of the test took it")
    }

    /// Takes the next `count` events called `name`.
    pub(crate) async fn take(&self, name: &str, count: usize) -> Vec<Value> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(self.next(name).await);
        }
        taken
    }

    /// The events called `name` that are there and not taken.
    pub(crate) fn waiting(&self, name: &str) -> Vec<Value> {
        self.events.borrow().iter().filter(|event| event["evt"] == name).cloned().collect()
    }

    /// Everything that was not taken, as text.
    pub(crate) fn text(&self) -> String {
        self.events.borrow().iter().map(|event| format!("{event}\n")).collect()
    }

    pub(super) fn record(&self, line: &[u8]) {
        let event = serde_json::from_slice(line).expect("an audit line that is not JSON");
        self.events.send_modify(|events| events.push(event));
    }
}

impl Write for Audit {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut begun = self.begun.lock().unwrap();
        begun.extend_from_slice(bytes);
        while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = begun.drain(..=end).collect();
            self.record(&line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
