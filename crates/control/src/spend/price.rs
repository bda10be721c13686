//! Prices: what tokens cost under this configuration.

use wire::catalog::{Catalog, Model, Rates};
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
/// No request has more tokens of a class: what an upstream claims beyond is cut, so that no sum can overflow.
const MOST_TOKENS: u64 = 1_000_000_000;
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

    /// Nano-dollars times a million, before the multiplier: of the prompt and of the answer.
    fn parts(&self, upstream: &str, model: &Model, usage: &Usage) -> (i128, i128) {
        let (rates, factor) = self.rates(upstream, model, usage);
        let cost = |tokens: u64, rate: i64| i128::from(tokens.min(MOST_TOKENS)) * i128::from(rate);
        let input = cost(usage.input_tokens, rates.input)
            + cost(usage.cache_read_input_tokens, rates.cache_read)
            + cost(usage.cache_creation_5m_tokens, rates.cache_write_5m)
            + cost(usage.cache_creation_1h_tokens, rates.cache_write_1h);
        let web_search = i128::from(Catalog::web_search_price());
        let searches = i128::from(usage.web_search_requests.min(MOST_TOKENS)) * web_search * PER;
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
        let prompt = usage.prompt_tokens();
        let price = model.price_on(upstream).map_or_else(Catalog::unknown_price, Clone::clone);
        let rates = match price.long_prompt {
            Some((threshold, rates)) if prompt > threshold => rates,
            _ => price.base,
        };
        (rates, if usage.fast { i128::from(price.fast) } else { 1 })
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use wire::catalog::CustomModel;

    use super::*;

    const M: u64 = 1_000_000;
    const DOLLAR: i64 = 1_000_000_000;

    fn catalog() -> Catalog {
        let custom = |id: &str, sent: &str| CustomModel {
            id: id.to_owned(),
            label: None,
            description: None,
            upstream_model: HashMap::from([("up".to_owned(), sent.to_owned())]),
        };
        Catalog::new(vec![custom("ours", "claude-haiku-4-5"), custom("strange", "model-x")], true).unwrap()
    }

    fn model(id: &str) -> Arc<Model> {
        Arc::clone(catalog().resolve(id).unwrap())
    }

    fn list_price(id: &str, usage: &Usage) -> i64 {
        Prices::default().charge("up", &model(id), usage).nano()
    }

    #[test]
    fn a_million_tokens_of_each_class_cost_the_list_price() {
        let price = |id: &str, fast: bool| {
            let none = Usage { fast, ..Usage::default() };
            [
                Usage { input_tokens: M, ..none },
                Usage { output_tokens: M, ..none },
                Usage { cache_read_input_tokens: M, ..none },
                Usage { cache_creation_5m_tokens: M, ..none },
                Usage { cache_creation_1h_tokens: M, ..none },
            ]
            .map(|usage| Money::from_nano(list_price(id, &usage)).dollars())
        };
        assert_eq!(price("claude-opus-4-1", false), ["15", "75", "1.5", "18.75", "30"]);
        assert_eq!(price("claude-opus-4-6", true), ["30", "150", "3", "37.5", "60"]);
        assert_eq!(price("claude-sonnet-4-5", true), ["3", "15", "0.3", "3.75", "6"]);
        assert_eq!(price("claude-fable-5-1", false), ["10", "50", "0.25", "12.5", "20"]);
        assert_eq!(price("ours", false), ["1", "5", "0.1", "1.25", "2"]);
        assert_eq!(price("strange", false), ["5", "25", "0.5", "6.25", "10"]);
    }

    #[test]
    fn the_upper_tier_begins_above_its_threshold_and_counts_the_whole_prompt() {
        let prompt = |input: u64, cached: u64| {
            let usage = Usage { input_tokens: input, cache_read_input_tokens: cached, ..Usage::default() };
            list_price("claude-haiku-5-5", &usage)
        };
        assert_eq!(prompt(100_000, 0), 10_000_000);
        assert_eq!(prompt(100_001, 0), 50_000_500);
        assert_eq!(prompt(50_000, 50_001), 25_000_000 + 2_500_050);
    }

    #[test]
    fn a_web_search_costs_a_cent_and_a_charge_is_rounded_up_once() {
        let searches = Usage { web_search_requests: 3, ..Usage::default() };
        assert_eq!(list_price("claude-sonnet-4-6", &searches), 3 * DOLLAR / 100);
        let third = Prices::new(Pricing { multiplier_nano: 333_333_333, overrides: Vec::new() });
        let one = Usage { cache_read_input_tokens: 1, output_tokens: 1, ..Usage::default() };
        // 300 + 15 000 nano-dollars at a third: 5 099.9999949.
        assert_eq!(third.charge("up", &model("claude-sonnet-4-6"), &one).nano(), 5_100);
    }

    #[test]
    fn an_override_for_an_upstream_beats_one_for_all_and_ignores_fast_speed() {
        let over = |upstream: Option<&str>, input: i64| PriceOverride {
            upstream: upstream.map(str::to_owned),
            model: "claude-opus-4-6".to_owned(),
            input,
            output: 1,
            cache_read: 1,
            cache_write: 7,
        };
        let overrides = vec![over(None, 2 * DOLLAR), over(Some("up"), DOLLAR)];
        let prices = Prices::new(Pricing { multiplier_nano: 2 * DOLLAR, overrides });
        let usage = Usage { input_tokens: M, fast: true, ..Usage::default() };
        let opus = model("claude-opus-4-6");
        assert_eq!(prices.charge("up", &opus, &usage).nano(), 2 * DOLLAR);
        assert_eq!(prices.charge("other", &opus, &usage).nano(), 4 * DOLLAR);
        let written = Usage { cache_creation_1h_tokens: M, ..Usage::default() };
        assert_eq!(prices.charge("up", &opus, &written).nano(), 14);
    }

    #[test]
    fn nothing_that_an_upstream_claims_overflows() {
        let absurd = Usage {
            input_tokens: u64::MAX,
            output_tokens: u64::MAX,
            cache_read_input_tokens: u64::MAX,
            cache_creation_5m_tokens: u64::MAX,
            cache_creation_1h_tokens: u64::MAX,
            web_search_requests: u64::MAX,
            fast: true,
        };
        let dear = Prices::new(Pricing { multiplier_nano: i64::MAX, overrides: Vec::new() });
        assert_eq!(dear.charge("up", &model("claude-opus-4-6"), &absurd), Money::MAX);
    }
}
