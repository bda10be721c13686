//! `GET /metrics`: figures for Prometheus, on a listener of their own (R40).

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use control::spend::Ledger;
use http::{StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use proxy::inference::{CircuitFigures, CircuitState, Inference};

/// OpenMetrics, which Prometheus reads since 2.5.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The path, for a listener that is nobody else's.
pub fn routes(inference: Arc<Inference>) -> Router {
    let mut registry = Registry::with_prefix("tollgate");
    registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    inference.meters.register(&mut registry);
    if let Some(ledger) = inference.ledger.clone() {
        registry.register_collector(Box::new(Books(ledger)));
    }
    registry.register_collector(Box::new(Upstreams(inference)));
    Router::new().route("/metrics", get(show)).with_state(Arc::new(registry))
}

async fn show(State(registry): State<Arc<Registry>>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT)], body).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What the ledger of this replica knows when it is asked.
#[derive(Debug)]
struct Books(Ledger);

impl Collector for Books {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.0.figures();
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let gauges = [
            ("reservations", "Requests in flight with money set aside", whole(figures.reservations)),
            ("leases", "Accounts admitted from here without asking the database", whole(figures.leases)),
            ("leased_nano_usd", "What these leases hold", figures.leased.nano()),
            ("settlements_waiting", "Settlements that are not in the database yet", whole(figures.waiting)),
            ("spend_waiting_nano_usd", "Their sum, which no account knows of yet", figures.waiting_spend.nano()),
            ("database_down", "1 while the ledger's database does not answer", i64::from(figures.database_down)),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let help = "For how long the oldest of them has been waiting";
        let lag = encoder.encode_descriptor("settlement_lag", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(figures.lag.as_secs_f64()).encode(lag)
    }
}

/// What the circuits know when they are asked.
#[derive(Debug)]
struct Upstreams(Arc<Inference>);

impl Collector for Upstreams {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.0.upstreams.figures();
        let mut family =
            encoder.encode_descriptor("upstream_attempts", "Attempts, by how they ended", None, MetricType::Counter)?;
        for CircuitFigures { upstream, model, attempts, .. } in &figures {
            for (outcome, (count, _)) in attempts {
                let labels = [("upstream", upstream.as_str()), ("model", model.as_str()), ("outcome", *outcome)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "The time that they took";
        let mut family =
            encoder.encode_descriptor("upstream_attempt", help, Some(&Unit::Seconds), MetricType::Counter)?;
        for CircuitFigures { upstream, model, attempts, .. } in &figures {
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
        for CircuitFigures { upstream, model, opened, .. } in &figures {
            let labels = [("upstream", upstream.as_str()), ("model", model.as_str())];
            ConstCounter::new(*opened).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "circuit_state",
            "Whether an upstream is asked for a model: 0 as usual, 1 one request is finding out, 2 left alone",
            None,
            MetricType::Gauge,
        )?;
        for CircuitFigures { upstream, model, state, .. } in &figures {
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
}
