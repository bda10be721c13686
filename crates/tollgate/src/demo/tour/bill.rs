//! What answers should cost, reckoned from the price list: the tour does not take the ledger's word for it.

use anyhow::Context as _;
use serde_json::Value;
use wire::catalog::{Catalog, nano_dollars};

/// Nano-dollars.
pub(super) type Nano = i64;

/// A hundredth of a cent: what the admin API rounds to.
const SHOWN: Nano = 100_000;

/// List price of an answer with this `usage`, without a prompt cache.
pub(super) fn of(model: &str, usage: &Value) -> anyhow::Result<Nano> {
    let catalog = Catalog::new(Vec::new(), true)?;
    let listed = catalog.resolve(model).and_then(|known| known.listed_as(model));
    let rates = listed.with_context(|| format!("no model {model}"))?.price.base;
    let cost = |field: &str, rate: i64| {
        let tokens = usage[field].as_i64().with_context(|| format!("no {field} in {usage}"))?;
        tokens.checked_mul(rate).context("an absurd number of tokens")
    };
    let per_million = cost("input_tokens", rates.input)?.saturating_add(cost("output_tokens", rates.output)?);
    // Charges are rounded up to the nano-dollar.
    Ok(per_million.saturating_add(999_999) / 1_000_000)
}

/// `"5.04"` cents.
pub(super) fn from_cents(cents: &str) -> anyhow::Result<Nano> {
    let dollars = nano_dollars(cents).with_context(|| format!("{cents} is no amount"))?;
    Ok(dollars / 100)
}

/// Whether an amount that was rounded for display is that exact one.
pub(super) fn same(shown: Nano, exact: Nano) -> bool {
    shown.abs_diff(exact) <= SHOWN.unsigned_abs()
}

/// `$0.0504`: cents and their hundredths, rounded up.
pub(super) fn dollars(amount: Nano) -> String {
    let hundredths = amount.saturating_add(SHOWN - 1) / SHOWN;
    let text = format!("${}.{:04}", hundredths / 10_000, hundredths % 10_000);
    match text.strip_suffix("00") {
        Some(cents) => cents.to_owned(),
        None => text,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_costs_its_tokens_at_list_price() {
        let usage = json!({"input_tokens": 30, "output_tokens": 2500});
        assert_eq!(of("claude-haiku-4-5", &usage).unwrap(), 12_530_000);
    }

    #[test]
    fn amounts_are_read_in_cents_and_shown_in_dollars() {
        assert_eq!(from_cents("5").unwrap(), 50_000_000);
        assert_eq!(from_cents("5.04").unwrap(), 50_400_000);
        assert_eq!(dollars(50_400_000), "$0.0504");
        assert_eq!(dollars(2_000_000_000), "$2.00");
        assert_eq!(dollars(1), "$0.0001");
        assert!(same(50_400_000, 50_360_000) && !same(50_400_000, 50_600_000));
    }
}
