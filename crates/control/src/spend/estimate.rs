//! What a request is expected to cost, learned from the requests before it.

use std::collections::HashMap;

use super::Money;

/// Requests of a model that must have been settled before their costs are believed.
const ENOUGH: usize = 8;
/// Requests that are remembered per model.
const WINDOW: usize = 64;

/// Recent costs per model.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    models: HashMap<String, Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Nano-dollars of prompt per byte of body, and of answer, newest last.
    samples: Vec<(i64, i64)>,
    next: usize,
    per_byte: i64,
    answer: i64,
}

impl Estimates {
    /// Learns from a settled request: what its prompt and its answer cost.
    pub(super) fn learn(&mut self, model: &str, body_bytes: u64, prompt: Money, answer: Money) {
        let bytes = i64::try_from(body_bytes.max(1)).unwrap_or(i64::MAX);
        let per_byte = prompt.nano() / bytes + i64::from(prompt.nano() % bytes != 0);
        let recent = match self.models.get_mut(model) {
            Some(recent) => recent,
            None => self.models.entry(model.to_owned()).or_default(),
        };
        recent.push((per_byte, answer.nano()));
    }

    /// The expected cost, never more than `bound`, which it is until something is learned.
    pub(super) fn expected(&self, model: &str, body_bytes: u64, bound: Money) -> Money {
        let Some(recent) = self.models.get(model).filter(|recent| recent.samples.len() >= ENOUGH) else {
            return bound;
        };
        let prompt = recent.per_byte.saturating_mul(i64::try_from(body_bytes).unwrap_or(i64::MAX));
        Money::from_nano(prompt.saturating_add(recent.answer)).min(bound)
    }
}

impl Recent {
    fn push(&mut self, sample: (i64, i64)) {
        if self.samples.len() < WINDOW {
            self.samples.push(sample);
        } else {
            self.samples[self.next] = sample;
        }
        self.next = (self.next + 1) % WINDOW;
        self.per_byte = high_quantile(self.samples.iter().map(|sample| sample.0));
        self.answer = high_quantile(self.samples.iter().map(|sample| sample.1));
    }
}

/// The value that 95 of 100 do not exceed.
fn high_quantile(values: impl Iterator<Item = i64>) -> i64 {
    let mut sorted: Vec<i64> = values.collect();
    sorted.sort_unstable();
    let rank = (sorted.len() * 95).div_ceil(100);
    rank.checked_sub(1).and_then(|index| sorted.get(index)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Money = Money::from_nano(1_000_000);

    #[test]
    fn the_bound_is_expected_until_enough_is_learned() {
        let mut estimates = Estimates::default();
        for _ in 0..ENOUGH - 1 {
            estimates.learn("m", 100, Money::from_nano(1_000), Money::from_nano(500));
        }
        assert_eq!(estimates.expected("m", 100, BOUND), BOUND);
        estimates.learn("m", 100, Money::from_nano(1_000), Money::from_nano(500));
        assert_eq!(estimates.expected("m", 100, BOUND), Money::from_nano(1_500));
        assert_eq!(estimates.expected("m", 200, BOUND), Money::from_nano(2_500));
    }

    #[test]
    fn one_dear_request_in_a_window_of_many_is_a_rare_error_and_two_in_ten_are_not() {
        let mut estimates = Estimates::default();
        for turn in 0..WINDOW {
            let answer = if turn % 5 == 0 { 9_000 } else { 100 };
            estimates.learn("often", 1, Money::ZERO, Money::from_nano(answer));
            let answer = if turn == 0 { 9_000 } else { 100 };
            estimates.learn("once", 1, Money::ZERO, Money::from_nano(answer));
        }
        assert_eq!(estimates.expected("often", 1, BOUND), Money::from_nano(9_000));
        assert_eq!(estimates.expected("once", 1, BOUND), Money::from_nano(100));
    }

    #[test]
    fn the_expectation_never_passes_the_bound() {
        let mut estimates = Estimates::default();
        for _ in 0..ENOUGH {
            estimates.learn("m", 1, Money::MAX, Money::MAX);
        }
        assert_eq!(estimates.expected("m", 1_000, BOUND), BOUND);
    }
}
