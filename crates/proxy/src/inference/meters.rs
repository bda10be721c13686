//! What requests came to, added up for metrics: never per person.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use control::spend::Money;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use wire::usage::Usage;

/// Seconds: from an answer out of a cache to a long agent's turn.
const BUCKETS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

/// The sums of one gateway since it started.
#[derive(Debug)]
pub struct Meters {
    requests: Family<Ending, Counter>,
    blocked: Family<Cause, Counter>,
    first_byte: Histogram,
    total: Histogram,
    tokens: Family<Tokens, Counter<u64, AtomicU64>>,
    cost: Family<Served, Counter<u64, AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ending {
    path: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    upstream: String,
    model: String,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    upstream: String,
    model: String,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            blocked: Family::default(),
            first_byte: Histogram::new(BUCKETS),
            total: Histogram::new(BUCKETS),
            tokens: Family::default(),
            cost: Family::default(),
        }
    }
}

impl Meters {
    /// Lets a registry tell the sums.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Inference requests that ended: `complete`, `client_aborted`, `upstream_aborted`, `cut`, `error`, `rejected`", self.requests.clone());
        registry.register(
            "blocked",
            "Requests refused because of money: `over_limit`, `in_flight`, `unbounded`, `store_error`",
            self.blocked.clone(),
        );
        registry.register_with_unit(
            "time_to_first_byte",
            "From a request's arrival to the first byte of its answer's body",
            Unit::Seconds,
            self.first_byte.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's arrival to the end of its answer",
            Unit::Seconds,
            self.total.clone(),
        );
        registry.register(
            "tokens",
            "Tokens: `input`, `output`, `cache_read`, `cache_write_5m`, `cache_write_1h`",
            self.tokens.clone(),
        );
        registry.register("cost_nano_usd", "Charges in thousand-millionths of a US dollar", self.cost.clone());
    }

    /// With one of each, for the page that describes them.
    #[must_use]
    pub fn example() -> Self {
        let meters = Self::default();
        meters.ended("/v1/messages", "complete", Duration::ZERO, Some(Duration::ZERO));
        meters.was_blocked("over_limit");
        let usage = Usage { input_tokens: 1, ..Usage::default() };
        meters.charged("anthropic", "claude", &usage, Money::ZERO);
        meters
    }

    pub(super) fn ended(&self, path: &'static str, outcome: &'static str, total: Duration, first: Option<Duration>) {
        self.requests.get_or_create(&Ending { path, outcome }).inc();
        self.total.observe(total.as_secs_f64());
        if let Some(first) = first {
            self.first_byte.observe(first.as_secs_f64());
        }
    }

    pub(super) fn was_blocked(&self, cause: &'static str) {
        self.blocked.get_or_create(&Cause { cause }).inc();
    }

    pub(super) fn charged(&self, upstream: &str, model: &str, usage: &Usage, charge: Money) {
        let classes = [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_input_tokens),
            ("cache_write_5m", usage.cache_creation_5m_tokens),
            ("cache_write_1h", usage.cache_creation_1h_tokens),
        ];
        let (upstream, model) = (upstream.to_owned(), model.to_owned());
        for (class, count) in classes.into_iter().filter(|(_, count)| *count > 0) {
            let labels = Tokens { upstream: upstream.clone(), model: model.clone(), class };
            self.tokens.get_or_create(&labels).inc_by(count);
        }
        self.cost.get_or_create(&Served { upstream, model }).inc_by(u64::try_from(charge.nano()).unwrap_or_default());
    }
}
