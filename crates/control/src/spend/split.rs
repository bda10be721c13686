//! What a charge is made of.
//!
//! Knows the kinds of work that have prices; knows nothing of the prices.

use super::Money;

/// Something that a request is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Input tokens that were not cached.
    Input,
    /// Tokens read from the prompt cache.
    CacheRead,
    /// Tokens written to it for five minutes.
    CacheWrite5m,
    /// Tokens written to it for an hour.
    CacheWrite1h,
    /// Output tokens.
    Output,
    /// Web searches.
    WebSearch,
}

impl Part {
    /// All, in the order in which they are rounded.
    pub const ALL: [Self; 6] =
        [Self::Input, Self::CacheRead, Self::CacheWrite5m, Self::CacheWrite1h, Self::Output, Self::WebSearch];
}

/// A charge by its parts; nothing of any of them for a charge that nobody can split, such as an estimate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split([Money; Part::ALL.len()]);

impl Split {
    /// From the amounts, in the order of [`Part::ALL`].
    #[must_use]
    pub const fn new(amounts: [Money; Part::ALL.len()]) -> Self {
        Self(amounts)
    }

    /// What was charged for that.
    #[must_use]
    pub const fn of(&self, part: Part) -> Money {
        self.0[part as usize]
    }

    /// What was charged for each of [`Part::ALL`].
    #[must_use]
    pub const fn amounts(&self) -> [Money; Part::ALL.len()] {
        self.0
    }

    /// What was charged for all of them.
    #[must_use]
    pub fn sum(&self) -> Money {
        self.0.iter().fold(Money::ZERO, |sum, amount| sum.plus(*amount))
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|part| self.0[part].plus(other.0[part])))
    }
}
