//! `GET /metrics`: figures for Prometheus, on a listener of their own (R40).

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use proxy::inference::{CircuitFigures, CircuitState, Inference};

/// OpenMetrics, which Prometheus reads since 2.5.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The path, for a listener that is nobody else's.
pub fn routes(inference: Arc<Inference>) -> Router {
    let mut registry = Registry::with_prefix("tollgate");
    registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    inference.meters.register(&mut registry);
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
