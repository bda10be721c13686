//! `GET /metrics`: figures for Prometheus, on a listener of their own (R40).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use control::identity::Sessions;
use control::spend::{self, Ledger};
use http::{StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use proxy::inference::meters::Meters;
use proxy::inference::{CircuitFigures, CircuitState, Inference};

/// OpenMetrics, which Prometheus reads since 2.5.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The path, for a listener that is nobody else's.
pub fn routes(inference: Arc<Inference>, sessions: Sessions) -> Router {
    let known = Arc::new(Signed::default());
    let mut registry = registry(&inference.meters, Arc::clone(&known));
    if let Some(ledger) = inference.ledger.clone() {
        registry.register_collector(Box::new(Books(ledger)));
    }
    registry.register_collector(Box::new(Upstreams(inference)));
    Router::new().route("/metrics", get(show)).with_state(Figures { registry: Arc::new(registry), sessions, known })
}

/// What there is without a ledger and upstreams.
fn registry(meters: &Meters, sessions: Arc<Signed>) -> Registry {
    let mut registry = Registry::with_prefix("tollgate");
    registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    registry.register_collector(Box::new(Shown(sessions)));
    meters.register(&mut registry);
    registry
}

#[derive(Debug, Clone)]
struct Figures {
    registry: Arc<Registry>,
    sessions: Sessions,
    known: Arc<Signed>,
}

async fn show(State(figures): State<Figures>) -> Response {
    // A figure that nobody knows is left out.
    let count = figures.sessions.count().await.ok();
    *figures.known.0.lock().unwrap_or_else(PoisonError::into_inner) = count;
    let mut body = String::new();
    match text::encode(&mut body, &figures.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT)], body).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// How many sessions there were when somebody last asked.
#[derive(Debug, Default)]
struct Signed(Mutex<Option<u64>>);

#[derive(Debug)]
struct Shown(Arc<Signed>);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        match *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(count) => {
                gauge(&mut encoder, "sessions", "Sessions that have not ended, of all replicas", whole(count))
            }
            None => Ok(()),
        }
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What the ledger of this replica knows when it is asked.
#[derive(Debug)]
struct Books(Ledger);

impl Collector for Books {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encode_books(&self.0.figures(), encoder)
    }
}

fn encode_books(figures: &spend::Figures, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    for (name, help, value) in [
        ("reservations", "Requests in flight with money set aside", whole(figures.reservations)),
        ("leases", "Accounts that are admitted from this replica without asking the database", whole(figures.leases)),
        ("leased_nano_usd", "What these leases hold", figures.leased.nano()),
        ("settlements_waiting", "Settlements that are not in the database yet", whole(figures.waiting)),
        ("spend_waiting_nano_usd", "Their sum: spend that no account knows of yet", figures.waiting_spend.nano()),
        ("database_down", "1 while the ledger's database does not answer", i64::from(figures.database_down)),
    ] {
        gauge(&mut encoder, name, help, value)?;
    }
    let help = "For how long the oldest of them has been waiting";
    let lag = encoder.encode_descriptor("settlement_lag", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    ConstGauge::new(figures.lag.as_secs_f64()).encode(lag)
}

/// What the circuits know when they are asked.
#[derive(Debug)]
struct Upstreams(Arc<Inference>);

impl Collector for Upstreams {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encode_circuits(&self.0.upstreams.figures(), encoder)
    }
}

fn encode_circuits(figures: &[CircuitFigures], mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut family =
        encoder.encode_descriptor("upstream_attempts", "Attempts, by how they ended", None, MetricType::Counter)?;
    for CircuitFigures { upstream, model, attempts, .. } in figures {
        for (outcome, (count, _)) in attempts {
            let labels = [("upstream", upstream.as_str()), ("model", model.as_str()), ("outcome", *outcome)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "The time that they took, until the head of an answer or the failure";
    let mut family = encoder.encode_descriptor("upstream_attempt", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for CircuitFigures { upstream, model, attempts, .. } in figures {
        for (outcome, (_, took)) in attempts {
            let labels = [("upstream", upstream.as_str()), ("model", model.as_str()), ("outcome", *outcome)];
            ConstCounter::new(took.as_secs_f64()).encode(family.encode_family(&labels)?)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "circuit_opened",
        "How often an upstream was left alone for a model",
        None,
        MetricType::Counter,
    )?;
    for CircuitFigures { upstream, model, opened, .. } in figures {
        let labels = [("upstream", upstream.as_str()), ("model", model.as_str())];
        ConstCounter::new(*opened).encode(family.encode_family(&labels)?)?;
    }
    let mut family = encoder.encode_descriptor(
        "circuit_state",
        "Whether an upstream is asked for a model: 0 as usual, 1 one request is finding out, 2 it is left alone",
        None,
        MetricType::Gauge,
    )?;
    for CircuitFigures { upstream, model, state, .. } in figures {
        let labels = [("upstream", upstream.as_str()), ("model", model.as_str())];
        let state: i64 = match state {
            CircuitState::Closed => 0,
            CircuitState::HalfOpen => 1,
            CircuitState::Open => 2,
        };
        ConstGauge::new(state).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[derive(Debug)]
    struct Example;

    impl Collector for Example {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            encode_books(&spend::Figures::default(), encoder)
        }
    }

    #[derive(Debug)]
    struct Circuits;

    impl Collector for Circuits {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            let circuit = CircuitFigures {
                upstream: "anthropic".to_owned(),
                model: "claude".to_owned(),
                state: CircuitState::Closed,
                opened: 0,
                attempts: [("served", Default::default())].into(),
            };
            encode_circuits(&[circuit], encoder)
        }
    }

    const HEAD: &str = "<!-- Generated from the figures themselves. Do not edit.
     To write it anew: UPDATE_DOCS=1 cargo test -p tollgate --lib metrics -->
# Metrics

With a `metrics:` section, `GET /metrics` answers on a listener of its own (`127.0.0.1:9464` unless told otherwise) in the
OpenMetrics text that Prometheus reads. It asks for no credentials and names no person. Counters begin at 0 with the process
and carry `_total` in their samples. What has not happened yet, and what cannot be known while the database is away, is left
out.

| Name | Kind | Labels | What it tells |
|---|---|---|---|
";

    /// One row per figure, from what Prometheus would be told.
    fn page() -> String {
        let known = Arc::new(Signed(Mutex::new(Some(1))));
        let mut registry = registry(&Meters::example(), known);
        registry.register_collector(Box::new(Example));
        registry.register_collector(Box::new(Circuits));
        let mut told = String::new();
        text::encode(&mut told, &registry).unwrap();
        let mut page = HEAD.to_owned();
        for line in told.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = line.trim_end_matches('.').split_once(' ').unwrap();
            let kind = format!("# TYPE {name} ");
            let kind = told.lines().find_map(|line| line.strip_prefix(&kind)).unwrap();
            let sample = told.lines().find(|line| line.starts_with(name)).unwrap();
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
            let labels: Vec<String> = labels.filter(|name| *name != "le").map(|name| format!("`{name}`")).collect();
            writeln!(page, "| `{name}` | {kind} | {} | {help}. |", labels.join(", ")).unwrap();
        }
        page
    }

    #[test]
    fn the_page_in_the_docs_tells_of_every_figure() {
        assert!(crate::config::reference::is_current("metrics.md", &page()), "stale: run this test with UPDATE_DOCS=1");
    }
}
