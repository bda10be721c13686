//! The `usage` object of an answer, read tolerantly.

use super::Usage;
use crate::json;

/// More tokens of one kind than any request can have; larger counts are absurd.
pub(super) const MOST: u64 = 100_000_000;

/// More searches than any request can have made.
const MOST_SEARCHES: u64 = 10_000;

/// The counts one `usage` object states. `null` and what is no number count as not stated.
#[derive(Debug, Default)]
pub(super) struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    cache_5m: Option<u64>,
    cache_1h: Option<u64>,
    web_search: Option<u64>,
    fast: Option<bool>,
    pub(super) clamped: bool,
}

impl Counts {
    pub(super) fn read(usage: &[u8]) -> Self {
        let mut counts = Self::default();
        each(usage, |key, value| match key {
            b"input_tokens" => counts.take(value, MOST, |counts| &mut counts.input),
            b"output_tokens" => counts.take(value, MOST, |counts| &mut counts.output),
            b"cache_read_input_tokens" => counts.take(value, MOST, |counts| &mut counts.cache_read),
            b"cache_creation_input_tokens" => counts.take(value, MOST, |counts| &mut counts.cache_creation),
            b"cache_creation" => each(value, |key, value| match key {
                b"ephemeral_5m_input_tokens" => counts.take(value, MOST, |counts| &mut counts.cache_5m),
                b"ephemeral_1h_input_tokens" => counts.take(value, MOST, |counts| &mut counts.cache_1h),
                _ => {}
            }),
            b"server_tool_use" => each(value, |key, value| {
                if key == b"web_search_requests" {
                    counts.take(value, MOST_SEARCHES, |counts| &mut counts.web_search);
                }
            }),
            b"speed" => counts.fast = json::inner(value).map(|speed| speed == b"fast").or(counts.fast),
            _ => {}
        });
        counts
    }

    pub(super) fn states_output(&self) -> bool {
        self.output.is_some()
    }

    pub(super) fn states_prompt(&self) -> bool {
        let Self { input, cache_read, cache_creation, cache_5m, cache_1h, .. } = self;
        [input, cache_read, cache_creation, cache_5m, cache_1h].into_iter().any(Option::is_some)
    }

    /// Overrides what was known with what is stated here.
    pub(super) fn lay_over(&self, usage: &mut Usage) {
        let stated = |count: Option<u64>, known: &mut u64| *known = count.unwrap_or(*known);
        stated(self.input, &mut usage.input_tokens);
        stated(self.output, &mut usage.output_tokens);
        stated(self.cache_read, &mut usage.cache_read_input_tokens);
        stated(self.web_search, &mut usage.web_search_requests);
        usage.fast = self.fast.unwrap_or(usage.fast);
        match (self.cache_5m, self.cache_1h, self.cache_creation) {
            (None, None, None) => {}
            (None, None, Some(total)) => split(total, usage),
            (five_minutes, one_hour, _) => {
                usage.cache_creation_5m_tokens = five_minutes.unwrap_or(0);
                usage.cache_creation_1h_tokens = one_hour.unwrap_or(0);
            }
        }
    }

    fn take(&mut self, value: &[u8], most: u64, field: impl FnOnce(&mut Self) -> &mut Option<u64>) {
        if let Some((count, clamped)) = count(value, most) {
            *field(self) = Some(count);
            self.clamped |= clamped;
        }
    }
}

/// Walks the members of an object. Of one that is not valid nothing is taken amiss: the caller has scanned it as part of
/// its document.
fn each<'a>(object: &'a [u8], mut visit: impl FnMut(&'a [u8], &'a [u8])) {
    let _ = json::members(object, |key, member| visit(key, &object[member.value]));
}

impl Usage {
    /// Each count, or that of `known` where it is greater.
    pub(super) fn at_least(self, known: &Self) -> Self {
        Self {
            input_tokens: self.input_tokens.max(known.input_tokens),
            output_tokens: self.output_tokens.max(known.output_tokens),
            cache_read_input_tokens: self.cache_read_input_tokens.max(known.cache_read_input_tokens),
            cache_creation_5m_tokens: self.cache_creation_5m_tokens.max(known.cache_creation_5m_tokens),
            cache_creation_1h_tokens: self.cache_creation_1h_tokens.max(known.cache_creation_1h_tokens),
            web_search_requests: self.web_search_requests.max(known.web_search_requests),
            fast: self.fast,
        }
    }
}

/// A total without its split: what is known to be for one hour stays so, and the rest is for five minutes. A final event
/// repeats the total alone, and one hour is twice the price.
fn split(total: u64, usage: &mut Usage) {
    let only_1h = usage.cache_creation_5m_tokens == 0 && usage.cache_creation_1h_tokens > 0;
    usage.cache_creation_1h_tokens = if only_1h { total } else { usage.cache_creation_1h_tokens.min(total) };
    usage.cache_creation_5m_tokens = total - usage.cache_creation_1h_tokens;
}

/// A number as a count of at most `most`, and whether it had to be clamped. Fractions are cut off.
fn count(value: &[u8], most: u64) -> Option<(u64, bool)> {
    let text = std::str::from_utf8(value).ok()?;
    let number = match text.parse::<u64>() {
        Ok(number) => number,
        // The cast saturates: a negative number becomes zero.
        Err(_) => text
            .bytes()
            .next()
            .filter(|first| *first == b'-' || first.is_ascii_digit())
            .and(text.parse::<f64>().ok())? as u64,
    };
    let negative = number == 0 && text.starts_with('-') && text.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    Some((number.min(most), number > most || negative))
}
