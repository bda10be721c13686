//! Health: whether an upstream is asked for a model at all, or left alone for a while (contract R30).
//!
//! A circuit for each upstream and model opens when attempts fail in a row, when too many of the recent ones fail, or when
//! an answer says when to come back; afterwards one request finds out. Knows outcomes and times; knows no request.

mod circuit;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::clock::Clock;
use tokio::sync::Notify;

use super::failure::{Class, Failure};
use circuit::{Circuit, Kind, LONGEST_REST, State};

pub use circuit::Breaker;

/// The circuits of one upstream.
#[derive(Debug)]
pub(super) struct Health {
    upstream: String,
    /// `None`: its circuits never open.
    breaker: Option<Breaker>,
    clock: Arc<dyn Clock>,
    /// By model; as many as the catalogue has.
    circuits: Mutex<Vec<(String, Circuit)>>,
}

/// What is known of an upstream and one of its models, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitFigures {
    /// The upstream's name.
    pub upstream: String,
    /// The model, as the upstream calls it.
    pub model: String,
    /// Whether it is asked now.
    pub state: CircuitState,
    /// How often its circuit has opened.
    pub opened: u64,
    /// Attempts so far and the time they took, by how they ended: `served`, `abandoned`, or a [`Class`].
    pub attempts: BTreeMap<&'static str, (u64, Duration)>,
}

/// Whether an upstream is asked for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// As usual.
    Closed,
    /// It is left alone, unless nobody else is left.
    Open,
    /// One request is finding out, or the next one will.
    HalfOpen,
}

/// One attempt at an upstream. Dropped without an end, it was abandoned, which says nothing of the upstream.
#[derive(Debug)]
pub struct Trial<'a> {
    health: &'a Health,
    model: &'a str,
    began: Instant,
    kind: Kind,
    opened: Arc<Notify>,
    is_over: bool,
}

impl Health {
    pub(super) fn new(upstream: String, breaker: Option<Breaker>, clock: Arc<dyn Clock>) -> Self {
        Self { upstream, breaker, clock, circuits: Mutex::default() }
    }

    /// An attempt, if the upstream may be asked for `model` now. After a rest, one at a time may.
    pub(super) fn enter<'a>(&'a self, model: &'a str) -> Option<Trial<'a>> {
        let now = self.clock.instant();
        let mut circuits = self.lock();
        let circuit = of(&mut circuits, model);
        let kind = match circuit.state {
            State::Closed => Kind::Usual,
            State::Open { until } if now >= until => {
                circuit.state = State::Probing { since: until };
                Kind::Probe
            }
            State::Open { .. } | State::Probing { .. } => return None,
        };
        Some(self.trial(circuit, model, kind, now))
    }

    /// An attempt whatever is known of the upstream: nobody else is left.
    pub(super) fn enter_regardless<'a>(&'a self, model: &'a str) -> Trial<'a> {
        let now = self.clock.instant();
        let mut circuits = self.lock();
        let circuit = of(&mut circuits, model);
        self.trial(circuit, model, Kind::LastResort, now)
    }

    /// Whether it is asked for `model` as usual.
    pub(super) fn is_closed(&self, model: &str) -> bool {
        self.state(model) == State::Closed
    }

    /// When it may be asked for `model` again.
    pub(super) fn due(&self, model: &str) -> Instant {
        match self.state(model) {
            State::Open { until } => until,
            State::Probing { since } => since,
            State::Closed => self.clock.instant(),
        }
    }

    /// An answer broke off after its head was taken for a success.
    pub(super) fn broke_off(&self, model: &str) {
        let now = self.clock.instant();
        let mut circuits = self.lock();
        let circuit = of(&mut circuits, model);
        // Its success was counted when its head came, and is not one.
        circuit.recent.take_back();
        self.failed(circuit, model, Kind::Usual, now, None, "an answer broke off");
    }

    /// What is known of every model that was asked for.
    pub(super) fn figures(&self) -> Vec<CircuitFigures> {
        let now = self.clock.instant();
        let circuits = self.lock();
        let mut figures: Vec<_> = circuits
            .iter()
            .map(|(model, circuit)| CircuitFigures {
                upstream: self.upstream.clone(),
                model: model.clone(),
                state: match circuit.state {
                    State::Closed => CircuitState::Closed,
                    State::Open { until } if now < until => CircuitState::Open,
                    State::Open { .. } | State::Probing { .. } => CircuitState::HalfOpen,
                },
                opened: circuit.opened,
                attempts: circuit.attempts.clone(),
            })
            .collect();
        figures.sort_by(|one, other| one.model.cmp(&other.model));
        figures
    }

    fn trial<'a>(&'a self, circuit: &Circuit, model: &'a str, kind: Kind, began: Instant) -> Trial<'a> {
        Trial { health: self, model, began, kind, opened: Arc::clone(&circuit.opening), is_over: false }
    }

    fn succeeded(&self, circuit: &mut Circuit, model: &str, kind: Kind, now: Instant) {
        if let Some(breaker) = &self.breaker {
            circuit.recent.add(now, breaker.window, false);
        }
        match (circuit.state, kind) {
            (State::Closed, _) => circuit.in_a_row = 0,
            // One that was under way when the others failed.
            (_, Kind::Usual) => {}
            (_, Kind::Probe | Kind::LastResort) => {
                circuit.close();
                if std::mem::take(&mut circuit.told_open) {
                    tracing::info!(upstream = self.upstream, model, "upstream answers again: it is asked as usual");
                }
            }
        }
    }

    fn failed(
        &self,
        circuit: &mut Circuit,
        model: &str,
        kind: Kind,
        now: Instant,
        come_back: Option<Duration>,
        why: &str,
    ) {
        let Some(breaker) = &self.breaker else { return };
        let come_back = come_back.filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST_REST));
        circuit.recent.add(now, breaker.window, true);
        circuit.in_a_row += 1;
        let rest = match circuit.state {
            State::Closed if circuit.is_failing(breaker) => Some(circuit.longer_rest(breaker)),
            State::Closed => None,
            State::Probing { .. } if kind == Kind::Probe => Some(circuit.longer_rest(breaker)),
            // One that was under way, or a last resort.
            State::Open { .. } | State::Probing { .. } => {
                if let (State::Open { until }, Some(wait)) = (&mut circuit.state, come_back) {
                    *until = (*until).max(now + wait);
                }
                return;
            }
        };
        let Some(rest) = rest.into_iter().chain(come_back).max() else { return };
        circuit.open(now + rest);
        if !std::mem::replace(&mut circuit.told_open, true) {
            let seconds = rest.as_secs_f64();
            tracing::warn!(
                upstream = self.upstream,
                model,
                "upstream is left alone for {seconds} s ({} failures in a row, the last: {why})",
                circuit.in_a_row
            );
        }
    }

    fn state(&self, model: &str) -> State {
        let circuits = self.lock();
        circuits.iter().find(|(known, _)| known == model).map_or(State::Closed, |(_, circuit)| circuit.state)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Circuit)>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The circuit of a model, a new one if need be.
fn of<'a>(circuits: &'a mut Vec<(String, Circuit)>, model: &str) -> &'a mut Circuit {
    let known = circuits.iter().position(|(known, _)| known == model);
    let index = known.unwrap_or_else(|| {
        circuits.push((model.to_owned(), Circuit::default()));
        circuits.len() - 1
    });
    &mut circuits[index].1
}

impl Trial<'_> {
    /// The upstream has sent the head of an answer.
    pub fn succeeded(mut self) {
        self.end("served", |health, circuit, trial, now| health.succeeded(circuit, trial.model, trial.kind, now));
    }

    /// The upstream did not serve the request. Its circuit minds where that is its fault and `leads_on` to the next one:
    /// what the operator wants told to the client must not send later requests elsewhere.
    pub fn failed(mut self, failure: &Failure, leads_on: bool) {
        let class = failure.class();
        self.end(class.as_str(), |health, circuit, trial, now| {
            if leads_on && failure.blames_upstream() {
                let (why, come_back) = (failure.to_string(), failure.retry_after(health.clock.now()));
                health.failed(circuit, trial.model, trial.kind, now, come_back, &why);
            } else if class == Class::Unsendable {
                circuit.release(trial.kind);
            } else {
                health.succeeded(circuit, trial.model, trial.kind, now);
            }
        });
    }

    /// How long it has taken so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.health.clock.instant().saturating_duration_since(self.began)
    }

    /// Comes when others have found the upstream failing.
    pub async fn opened(&self) {
        let mut opened = std::pin::pin!(self.opened.notified());
        opened.as_mut().enable();
        // It may have opened since this attempt began.
        if self.kind != Kind::Usual || self.health.is_closed(self.model) {
            opened.await;
        }
    }

    fn end(&mut self, word: &'static str, judge: impl FnOnce(&Health, &mut Circuit, &Self, Instant)) {
        self.is_over = true;
        let now = self.health.clock.instant();
        let mut circuits = self.health.lock();
        let circuit = of(&mut circuits, self.model);
        let (count, took) = circuit.attempts.entry(word).or_default();
        *count += 1;
        *took += now.saturating_duration_since(self.began);
        judge(self.health, circuit, self, now);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end("abandoned", |_, circuit, trial, _| circuit.release(trial.kind));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
