//! Prices: what tokens cost under this configuration.

use wire::catalog::{Model, Price, Rates};
use wire::usage::Usage;

use super::Money;

/// The `pricing:` section, and nothing but list prices without it.
#[derive(Debug, Clone)]
pub struct Pricing {
    /// `pricing.multiplier` in thousand-millionths: 1 000 000 000 is list price. More than 0.
    pub multiplier_nano: i64,
    /// `pricing.overrides`, in file order.
    pub overrides: Vec<PriceOverride>,
}

/// One entry of `pricing.overrides`; rates in nano-dollars per million tokens, each more than 0.
#[derive(Debug, Clone)]
pub struct PriceOverride {
    /// Upstream name it is for; `None`: every upstream.
    pub upstream: Option<String>,
    /// The model id it is for.
    pub model: String,
    /// Uncached input tokens.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
    /// Tokens read from the prompt cache.
    pub cache_read: i64,
    /// Tokens written to the prompt cache, for five minutes or one hour.
    pub cache_write: i64,
}

impl Default for Pricing {
    fn default() -> Self {
        Self { multiplier_nano: NANO, overrides: Vec::new() }
    }
}

const NANO: i64 = 1_000_000_000;
/// $0.01 per web search, in nano-dollars.
const WEB_SEARCH: i64 = 10_000_000;

/// Turns usage into charges.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    pricing: Pricing,
}
