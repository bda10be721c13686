//! Prices: what tokens cost under this configuration.
//!
//! Knows list prices, the operator's own rates and which of them apply; knows nothing of accounts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use wire::catalog::{Catalog, Listed, Model, Rates};
use wire::usage::Usage;

use super::Money;
use super::split::{Part, Split};

/// The `pricing:` section, and nothing but list prices without it.
#[derive(Debug, Clone)]
pub struct Pricing {
    /// `pricing.multiplier` in thousand-millionths: 1 000 000 000 is list price. More than 0.
    pub multiplier_nano: i64,
    /// `pricing.overrides`, in file order.
    pub overrides: Vec<PriceOverride>,
}

/// One entry of `pricing.overrides`; every rate is more than 0.
#[derive(Debug, Clone)]
pub struct PriceOverride {
    /// Upstream name it is for; `None`: every upstream.
    pub upstream: Option<String>,
    /// The model id it is for, in any letter case: what an upstream is asked for, what a client asks for, or a built-in's
    /// canonical id, which stands for all that is listed as that built-in.
    pub model: String,
    /// What tokens cost, fast or not, whatever the size of the prompt.
    pub rates: Rates,
    /// Nano-dollars per web search; `None`: list price.
    pub web_search: Option<i64>,
}

impl Default for Pricing {
    fn default() -> Self {
        Self { multiplier_nano: NANO, overrides: Vec::new() }
    }
}

impl PriceOverride {
    /// How well it fits a request that a client names `asked` and an upstream is asked for as `sent`; `None`: not at all.
    /// A row for this very upstream beats one for all, then the exact id there beats the client's, and that the built-in's.
    fn fit(&self, wanted: &Wanted<'_>) -> Option<(bool, Exactness)> {
        let is_own = match &self.upstream {
            Some(upstream) if upstream == wanted.upstream => true,
            Some(_) => return None,
            None => false,
        };
        let is = |id: &str| self.model.eq_ignore_ascii_case(id);
        let exactness = if is(wanted.sent) {
            Exactness::Sent
        } else if is(wanted.asked) {
            Exactness::Asked
        } else if wanted.listed.is_some_and(|listed| is(listed.canonical)) {
            Exactness::BuiltIn
        } else {
            return None;
        };
        Some((is_own, exactness))
    }

    /// Whether it prices the model `id` where `upstream` is asked for it as `sent` and it has no list price.
    #[must_use]
    pub fn covers(&self, id: &str, upstream: &str, sent: &str) -> bool {
        self.fit(&Wanted { asked: id, upstream, sent, listed: None }).is_some()
    }
}

/// How an override names a model, the better the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exactness {
    BuiltIn,
    Asked,
    Sent,
}

/// What a price is looked for.
struct Wanted<'a> {
    asked: &'a str,
    upstream: &'a str,
    sent: &'a str,
    listed: Option<Listed>,
}

const NANO: i64 = 1_000_000_000;
/// Rates are per this many tokens.
const PER: i128 = 1_000_000;
/// No request has more tokens of a class: what an upstream claims beyond is cut, so that no sum can overflow.
const MOST_TOKENS: u64 = 1_000_000_000;
/// Finds the price of a request; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    pricing: Arc<Pricing>,
    /// Ids that were told to have no price.
    unknown: Arc<Mutex<HashSet<String>>>,
}

impl Prices {
    /// Prices under this configuration.
    #[must_use]
    pub fn new(pricing: Pricing) -> Self {
        Self { pricing: Arc::new(pricing), unknown: Arc::default() }
    }

    /// What a request for `model`, which the client calls `asked`, costs on `upstream`, which is asked for it as `sent`.
    #[must_use]
    pub fn quote(&self, asked: &str, model: &Model, upstream: &str, sent: &str) -> Quote {
        let wanted = Wanted { asked, upstream, sent, listed: model.listed_as(sent) };
        let list = Quote {
            upstream: upstream.to_owned(),
            base: Catalog::unknown_price().base,
            long_prompt: None,
            fast: 1,
            web_search: Catalog::web_search_price(),
            multiplier_nano: self.pricing.multiplier_nano,
        };
        if let Some(over) = self.override_for(&wanted) {
            return Quote { base: over.rates, web_search: over.web_search.unwrap_or(list.web_search), ..list };
        }
        match wanted.listed {
            Some(Listed { price, .. }) => {
                Quote { base: price.base, long_prompt: price.long_prompt, fast: price.fast, ..list }
            }
            None => {
                self.tell_unknown(upstream, sent);
                list
            }
        }
    }

    /// The override that fits best; of equals the first.
    fn override_for(&self, wanted: &Wanted<'_>) -> Option<&PriceOverride> {
        let fitting = self.pricing.overrides.iter().rev().filter_map(|over| Some((over.fit(wanted)?, over)));
        fitting.max_by_key(|(fit, _)| *fit).map(|(_, over)| over)
    }

    fn tell_unknown(&self, upstream: &str, sent: &str) {
        if self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(sent.to_owned()) {
            tracing::warn!(
                upstream,
                "no price is known for {sent}; it is metered at 5 and 25 USD per million tokens of input and output. \
                 pricing.overrides can say what it costs"
            );
        }
    }
}

/// What a request costs on one upstream, decided before it is sent.
#[derive(Debug, Clone)]
pub struct Quote {
    upstream: String,
    base: Rates,
    /// `(threshold, rates)` of a prompt larger than the threshold.
    long_prompt: Option<(u64, Rates)>,
    fast: i64,
    web_search: i64,
    multiplier_nano: i64,
}

impl Quote {
    /// Whose price it is.
    #[must_use]
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// What `usage` costs, rounded up once to the nano-dollar.
    #[must_use]
    pub fn charge(&self, usage: &Usage) -> Money {
        self.round_up(self.costs(usage).into_iter().fold(0, i128::saturating_add))
    }

    /// The charge by what it is for. Each part is the charge with it less the charge without, in the order of
    /// [`Part::ALL`]: so they add up to the charge, none is more than a nano-dollar from its own cost, and what cost
    /// nothing is nothing.
    pub(super) fn split(&self, usage: &Usage) -> Split {
        let mut cost = 0_i128;
        let mut charged = Money::ZERO;
        Split::new(self.costs(usage).map(|part| {
            cost = cost.saturating_add(part);
            let before = std::mem::replace(&mut charged, self.round_up(cost));
            charged.minus(before)
        }))
    }

    /// No request with a prompt and an answer of so many tokens and so many web searches costs more: every token of the
    /// dearest class and speed.
    pub(super) fn bound(&self, prompt: u64, answer: u64, searches: u64) -> Money {
        let Rates { input, output, cache_read, cache_write_5m, cache_write_1h } = *self.rates(prompt);
        let dearest = input.max(cache_read).max(cache_write_5m).max(cache_write_1h);
        let tokens = (cost(prompt, dearest) + cost(answer, output)) * i128::from(self.fast);
        self.round_up(tokens + cost(searches, self.web_search) * PER)
    }

    /// Nano-dollars times a million, before the multiplier, of each of [`Part::ALL`].
    fn costs(&self, usage: &Usage) -> [i128; Part::ALL.len()] {
        let rates = self.rates(usage.prompt_tokens());
        let factor = if usage.fast { i128::from(self.fast) } else { 1 };
        Part::ALL.map(|part| match part {
            Part::Input => cost(usage.input_tokens, rates.input) * factor,
            Part::CacheRead => cost(usage.cache_read_input_tokens, rates.cache_read) * factor,
            Part::CacheWrite5m => cost(usage.cache_creation_5m_tokens, rates.cache_write_5m) * factor,
            Part::CacheWrite1h => cost(usage.cache_creation_1h_tokens, rates.cache_write_1h) * factor,
            Part::Output => cost(usage.output_tokens, rates.output) * factor,
            Part::WebSearch => cost(usage.web_search_requests, self.web_search) * PER,
        })
    }

    fn rates(&self, prompt_tokens: u64) -> &Rates {
        match &self.long_prompt {
            Some((threshold, rates)) if prompt_tokens > *threshold => rates,
            _ => &self.base,
        }
    }

    fn round_up(&self, cost: i128) -> Money {
        let unit = PER * i128::from(NANO);
        let scaled = cost.saturating_mul(i128::from(self.multiplier_nano));
        let nano = scaled.saturating_add(unit - 1).div_euclid(unit);
        Money::from_nano(i64::try_from(nano).unwrap_or(i64::MAX))
    }
}

fn cost(count: u64, rate: i64) -> i128 {
    i128::from(count.min(MOST_TOKENS)) * i128::from(rate)
}

#[cfg(test)]
mod tests;
