//! Random tokens and what they stand for, each for a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::clock::Clock;
use jiff::Timestamp;

use super::chance;

/// Tokens of one kind.
#[derive(Debug)]
pub(super) struct Tokens<T> {
    life: Duration,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<String, (Timestamp, T)>>,
}

impl<T: Clone> Tokens<T> {
    pub(super) fn new(life: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { life, clock, kept: Mutex::default() }
    }

    /// Gives out a token for `what`.
    pub(super) fn keep(&self, what: T) -> anyhow::Result<String> {
        let token = chance::token()?;
        let now = self.clock.now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (ends, _)| *ends > now);
        kept.insert(token.clone(), (now + self.life, what));
        Ok(token)
    }

    /// What a token stands for; it stays good.
    pub(super) fn find(&self, token: &str) -> Option<T> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(token).filter(|(ends, _)| *ends > self.clock.now()).map(|(_, what)| what.clone())
    }

    /// What a token stands for; it is good no more.
    pub(super) fn take(&self, token: &str) -> Option<T> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(token).filter(|(ends, _)| *ends > self.clock.now()).map(|(_, what)| what)
    }
}
