//! Money: whole nano-dollars with a name.

use std::fmt;

/// An amount in nano-dollars (1 USD = 1 000 000 000).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

/// Nano-dollars in a US cent.
const CENT: i64 = 10_000_000;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than anyone can owe.
    pub const MAX: Self = Self(i64::MAX);

    /// From nano-dollars.
    #[must_use]
    pub const fn from_nano(nano: i64) -> Self {
        Self(nano)
    }

    /// In nano-dollars.
    #[must_use]
    pub const fn nano(self) -> i64 {
        self.0
    }

    /// From whole US cents; an amount beyond the type's range becomes its end.
    #[must_use]
    pub const fn from_cents(cents: i64) -> Self {
        Self(cents.saturating_mul(CENT))
    }

    /// The sum, or the end of the range: spend never wraps around to look small.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or the end of the range.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// US dollars as decimal text without trailing zeros: `0.0061`, `12`, `-0.5`.
    #[must_use]
    pub fn dollars(self) -> String {
        decimal(i128::from(self.0), 1_000_000_000, 9)
    }

    /// US cents as exact decimal text without trailing zeros.
    #[must_use]
    pub fn cents(self) -> String {
        decimal(i128::from(self.0), i128::from(CENT), 7)
    }

    /// Whole US cents, what is less than one left out.
    #[must_use]
    pub const fn whole_cents(self) -> i64 {
        self.0.div_euclid(CENT)
    }

    /// US cents rounded to two decimals, without trailing zeros: `1.2`, `0.37`.
    #[must_use]
    pub fn cents_rounded(self) -> String {
        let hundredths = CENT / 100;
        let half = if self.0 < 0 { -hundredths / 2 } else { hundredths / 2 };
        decimal(i128::from(self.0.saturating_add(half) / hundredths), 100, 2)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.dollars())
    }
}

fn decimal(value: i128, unit: i128, digits: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let value = value.abs();
    let whole = value / unit;
    let rest = format!("{:0digits$}", value % unit);
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::Money;

    #[test]
    fn dollars_are_exact_and_carry_no_trailing_zeros() {
        assert_eq!(Money::from_nano(6_100_000).dollars(), "0.0061");
        assert_eq!(Money::from_nano(12_000_000_000).dollars(), "12");
        assert_eq!(Money::from_nano(-500_000_000).dollars(), "-0.5");
        assert_eq!(Money::from_nano(1).dollars(), "0.000000001");
    }

    #[test]
    fn cents_are_rounded_to_two_decimals() {
        assert_eq!(Money::from_nano(12_000_000).cents_rounded(), "1.2");
        assert_eq!(Money::from_nano(3_702_000).cents_rounded(), "0.37");
        assert_eq!(Money::from_nano(3_750_000).cents_rounded(), "0.38");
        assert_eq!(Money::ZERO.cents_rounded(), "0");
    }

    #[test]
    fn an_amount_never_wraps() {
        assert_eq!(Money::MAX.plus(Money::from_nano(1)), Money::MAX);
        assert_eq!(Money::from_cents(i64::MAX), Money::MAX);
    }
}
