//! The most that a request can cost, from what its body says.
//!
//! In strict mode this is a proof: whatever the upstream bills lies within it, or the request is refused.

use wire::catalog::Model;
use wire::messages::{Reach, Unbounded};

use super::{Money, Quote};

/// Tokens that the API adds to a prompt by itself (its tool-use instructions), generously.
const API_PROMPT: u64 = 2_000;
/// Output assumed of a request that does not say `max_tokens`; the API refuses such a request.
const UNSTATED_OUTPUT: u64 = 32_000;
/// No model of the catalogue reads more at once, whatever a beta header asks for.
const LARGEST_WINDOW: u64 = 1_000_000;

/// What a request says of its size.
#[derive(Debug, Clone, Default)]
pub struct Size {
    /// Length of the body in bytes: no more tokens of text than this.
    pub body_bytes: u64,
    /// `max_tokens`: no more output tokens than this.
    pub max_tokens: Option<u64>,
    /// What it may cost beyond; looked for in strict mode only.
    pub reach: Option<Result<Reach, Unbounded>>,
}

/// No request of a size uses more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Most {
    input: u64,
    output: u64,
    searches: u64,
}

impl Size {
    /// What text costs at the most.
    pub(super) fn most_of_text(&self) -> Most {
        let input = self.body_bytes.saturating_add(API_PROMPT);
        Most { input, output: self.max_tokens.unwrap_or(UNSTATED_OUTPUT), searches: 0 }
    }

    /// What it costs at the most, whatever it holds.
    pub(super) fn most(&self, model: &Model) -> Result<Most, Unbounded> {
        let reach = self.reach.clone().unwrap_or_else(|| Err(Unbounded::because("nothing is known of its content")))?;
        let Some(output) = self.max_tokens else {
            return Err(Unbounded::because("\"max_tokens\" is missing or no whole number"));
        };
        let text = self.body_bytes.saturating_add(API_PROMPT).saturating_add(reach.extra_tokens);
        let stated = model.max_input_tokens.or(model.canonical.is_some().then_some(LARGEST_WINDOW));
        let window = stated.map(|window| window.max(LARGEST_WINDOW));
        let once = match window {
            None if reach.whole_window || reach.searches > 0 => {
                let why = format!("it points beyond its body, and the context window of {} is not known", model.id);
                return Err(Unbounded::because(&why));
            }
            None => text,
            Some(window) if reach.whole_window => window,
            Some(window) => text.min(window),
        };
        // After each search the API reads the conversation again, and what was found.
        let again = window.unwrap_or_default().saturating_mul(reach.searches);
        Ok(Most { input: once.saturating_add(again), output, searches: reach.searches })
    }
}

impl Most {
    /// What it costs on the dearest upstream.
    pub(super) fn on_the_dearest(&self, quotes: &[Quote]) -> Money {
        let bounds = quotes.iter().map(|quote| quote.bound(self.input, self.output, self.searches));
        bounds.max().unwrap_or(Money::ZERO)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use wire::catalog::Catalog;

    use super::*;

    fn model(id: &str) -> Arc<Model> {
        Arc::clone(Catalog::new(Vec::new(), true).unwrap().resolve(id).unwrap())
    }

    fn size(reach: Reach) -> Size {
        Size { body_bytes: 1_000, max_tokens: Some(200), reach: Some(Ok(reach)) }
    }

    #[test]
    fn every_byte_is_a_token_and_the_window_is_the_most_there_is() {
        let sonnet = model("claude-sonnet-4-6");
        let input = |reach| size(reach).most(&sonnet).unwrap().input;
        assert_eq!(input(Reach::default()), 3_000);
        assert_eq!(input(Reach { extra_tokens: 10_000, ..Reach::default() }), 13_000);
        assert_eq!(input(Reach { whole_window: true, ..Reach::default() }), 1_000_000);
        assert_eq!(input(Reach { searches: 2, ..Reach::default() }), 2_003_000);
        let long = Size { body_bytes: 30_000_000, ..size(Reach::default()) };
        assert_eq!(long.most(&sonnet).unwrap().input, 1_000_000);
    }

    #[test]
    fn what_cannot_be_bounded_is_refused_with_its_reason() {
        let sonnet = model("claude-sonnet-4-6");
        let refused = |size: Size| size.most(&sonnet).unwrap_err().to_string();
        let stated = size(Reach::default());
        insta::assert_snapshot!(refused(Size { max_tokens: None, ..stated.clone() }), @r#""max_tokens" is missing or no whole number"#);
        insta::assert_snapshot!(refused(Size { reach: None, ..stated }), @"nothing is known of its content");
    }
}
