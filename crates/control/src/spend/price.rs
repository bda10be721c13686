//! Prices: what tokens cost under this configuration.

use wire::catalog::{Model, Rates};
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
/// Rates are per this many tokens.
const PER: i128 = 1_000_000;
/// $0.01 per web search, in nano-dollars.
const WEB_SEARCH: i128 = 10_000_000;
/// No request has more tokens of a class: what an upstream claims beyond is cut, so that no sum can overflow.
const MOST_TOKENS: u64 = 1_000_000_000;
/// Tokens that the API adds to a prompt by itself (its tool-use instructions), generously.
const API_PROMPT: u64 = 2_000;
/// Output assumed of a request that does not say `max_tokens`; the API refuses such a request.
const UNSTATED_OUTPUT: u64 = 32_000;

/// Turns usage into charges.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    pricing: Pricing,
}

impl Prices {
    /// Prices under this configuration.
    #[must_use]
    pub fn new(pricing: Pricing) -> Self {
        Self { pricing }
    }

    /// What `usage` of `model` costs on `upstream`, rounded up once to the nano-dollar.
    #[must_use]
    pub fn charge(&self, upstream: &str, model: &Model, usage: &Usage) -> Money {
        let (input, output) = self.parts(upstream, model, usage);
        self.round_up(input.saturating_add(output))
    }

    /// The charge split into what the prompt cost (web searches too) and what the answer cost.
    pub(super) fn charge_parts(&self, upstream: &str, model: &Model, usage: &Usage) -> (Money, Money) {
        let (input, output) = self.parts(upstream, model, usage);
        (self.round_up(input), self.round_up(output))
    }

    /// No request of this size costs more on any of `upstreams`: every body byte a token of the dearest class, and
    /// `max_tokens` of output.
    #[must_use]
    pub fn bound(&self, upstreams: &[String], model: &Model, body_bytes: u64, max_tokens: Option<u64>) -> Money {
        let input = body_bytes.saturating_add(API_PROMPT);
        let output = max_tokens.unwrap_or(UNSTATED_OUTPUT);
        let of = |upstream: &str| {
            let written = Usage { cache_creation_1h_tokens: input, output_tokens: output, ..Usage::default() };
            let short_written = Usage { cache_creation_5m_tokens: input, cache_creation_1h_tokens: 0, ..written };
            let plain = Usage { input_tokens: input, cache_creation_1h_tokens: 0, ..written };
            let usages = [written, short_written, plain].map(|usage| Usage { fast: true, ..usage });
            usages.iter().map(|usage| self.charge(upstream, model, usage)).max().unwrap_or(Money::ZERO)
        };
        upstreams.iter().map(|upstream| of(upstream)).max().unwrap_or(Money::ZERO)
    }

    /// Nano-dollars times a million, before the multiplier: of the prompt and of the answer.
    fn parts(&self, upstream: &str, model: &Model, usage: &Usage) -> (i128, i128) {
        let (rates, factor) = self.rates(upstream, model, usage);
        let cost = |tokens: u64, rate: i64| i128::from(tokens.min(MOST_TOKENS)) * i128::from(rate);
        let input = cost(usage.input_tokens, rates.input)
            + cost(usage.cache_read_input_tokens, rates.cache_read)
            + cost(usage.cache_creation_5m_tokens, rates.cache_write_5m)
            + cost(usage.cache_creation_1h_tokens, rates.cache_write_1h);
        let searches = i128::from(usage.web_search_requests.min(MOST_TOKENS)) * WEB_SEARCH * PER;
        let output = cost(usage.output_tokens, rates.output);
        (input * factor + searches, output * factor)
    }

    fn rates(&self, upstream: &str, model: &Model, usage: &Usage) -> (Rates, i128) {
        if let Some(over) = self.override_for(upstream, model) {
            let rates = Rates {
                input: over.input,
                output: over.output,
                cache_read: over.cache_read,
                cache_write_5m: over.cache_write,
                cache_write_1h: over.cache_write,
            };
            return (rates, 1);
        }
        let prompt = usage
            .input_tokens
            .saturating_add(usage.cache_read_input_tokens)
            .saturating_add(usage.cache_creation_5m_tokens)
            .saturating_add(usage.cache_creation_1h_tokens);
        let rates = match &model.price.long_prompt {
            Some((threshold, rates)) if prompt > *threshold => *rates,
            _ => model.price.base,
        };
        (rates, if usage.fast { i128::from(model.price.fast) } else { 1 })
    }

    /// An override for this very upstream wins over one for all; within each kind the first in the file.
    fn override_for(&self, upstream: &str, model: &Model) -> Option<&PriceOverride> {
        let sent = model.upstream_model.get(upstream);
        let names = |over: &&PriceOverride| {
            over.model.eq_ignore_ascii_case(&model.id)
                || model.canonical.as_deref().is_some_and(|id| over.model.eq_ignore_ascii_case(id))
                || sent.is_some_and(|id| over.model == *id)
        };
        let all = &self.pricing.overrides;
        let own = all.iter().filter(|over| over.upstream.as_deref() == Some(upstream)).find(names);
        own.or_else(|| all.iter().filter(|over| over.upstream.is_none()).find(names))
    }

    fn round_up(&self, cost: i128) -> Money {
        let unit = PER * i128::from(NANO);
        let scaled = cost.saturating_mul(i128::from(self.pricing.multiplier_nano));
        let nano = scaled.saturating_add(unit - 1).div_euclid(unit);
        Money::from_nano(i64::try_from(nano).unwrap_or(i64::MAX))
    }
}
