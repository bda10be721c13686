//! The unified rate-limit headers, by which the stock client shows how much of a budget is left (contract B7).

use control::spend::Money;
use control::spend::ledger::Standing;
use http::{HeaderName, HeaderValue};

type Header = (HeaderName, HeaderValue);

const STATUS: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-status");
const RESET: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-reset");
const CLAIM: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-representative-claim");
const OVERAGE_STATUS: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-overage-status");
const OVERAGE_RESET: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-overage-reset");
const UTILIZATION: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-overage-utilization");
const THRESHOLD: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-overage-surpassed-threshold");
const PERIOD: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-overage-period");
const SCOPE: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-overage-scope");
const DISABLED: HeaderName = HeaderName::from_static("anthropic-ratelimit-unified-overage-disabled-reason");

/// For a request that was let through: the fullest cap, before this request.
pub(super) fn allowed(standing: &Standing) -> Vec<Header> {
    let threshold = surpassed(standing.spent, standing.cap.limit());
    let status = HeaderValue::from_static(if threshold.is_some() { "allowed_warning" } else { "allowed" });
    let reset = HeaderValue::from(standing.resets_at.as_second());
    let mut headers = vec![
        (STATUS, status.clone()),
        (RESET, reset.clone()),
        (CLAIM, HeaderValue::from_static("overage")),
        (OVERAGE_STATUS, status),
        (OVERAGE_RESET, reset),
    ];
    headers.extend(
        HeaderValue::try_from(utilization(standing.spent, standing.cap.limit())).map(|value| (UTILIZATION, value)),
    );
    headers.extend(threshold.map(|threshold| (THRESHOLD, HeaderValue::from_static(threshold))));
    headers
}

/// For a request that a cap stopped.
pub(super) fn over(standing: &Standing) -> Vec<Header> {
    let reset = HeaderValue::from(standing.resets_at.as_second());
    let mut headers = vec![
        (STATUS, HeaderValue::from_static("rejected")),
        (RESET, reset.clone()),
        (OVERAGE_RESET, reset),
        (UTILIZATION, HeaderValue::from_static("1.01")),
        (THRESHOLD, HeaderValue::from_static("1")),
        (PERIOD, HeaderValue::from_static(standing.cap.period.as_str())),
        (DISABLED, HeaderValue::from_static("org_spend_cap_reached")),
    ];
    headers.extend(standing.cap.shared.then_some((SCOPE, HeaderValue::from_static("group_pool"))));
    headers
}

/// For a request that was stopped because nobody knows what was spent.
pub(super) fn unavailable() -> Vec<Header> {
    vec![(DISABLED, HeaderValue::from_static("fetch_error"))]
}

/// The highest threshold.
pub(super) const MOST: &str = "0.95";

/// The highest threshold that is passed; three quarters exactly do not pass it.
pub(super) fn surpassed(spent: Money, limit: Money) -> Option<&'static str> {
    let (spent, limit) = (i128::from(spent.nano()), i128::from(limit.nano()));
    match spent * 100 {
        spent if spent > limit * 95 => Some(MOST),
        spent if spent > limit * 75 => Some("0.75"),
        _ => None,
    }
}

/// Hundredths without trailing zeros. Never 1: the caller is not blocked.
fn utilization(spent: Money, limit: Money) -> String {
    let (spent, limit) = (i128::from(spent.nano()), i128::from(limit.nano()));
    match (spent * 100).checked_div(limit).unwrap_or(99).clamp(0, 99) {
        0 => "0".to_owned(),
        tenths if tenths % 10 == 0 => format!("0.{}", tenths / 10),
        hundredths => format!("0.{hundredths:02}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use control::spend::{Period, Scope};

    use super::*;

    /// Somebody who has spent so many cents of a daily cap, which ends as November 22nd does.
    pub(in crate::http::inference) fn standing(spent_cents: i64, cap_cents: i64) -> Standing {
        Standing {
            cap: control::spend::cap::InForce {
                period: Period::Daily,
                cents: cap_cents,
                source: Scope::User("u".to_owned()),
                shared: false,
                id: "spl_1".to_owned(),
            },
            spent: Money::from_cents(spent_cents),
            resets_at: "2026-11-23T00:00:00Z".parse().unwrap(),
        }
    }

    fn text(headers: Vec<Header>) -> String {
        let line = |(name, value): Header| {
            let name = name.as_str().trim_start_matches("anthropic-ratelimit-unified-").to_owned();
            format!("{name}: {}", value.to_str().unwrap())
        };
        headers.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_caller_below_its_cap_learns_how_full_it_is() {
        insta::assert_snapshot!(text(allowed(&standing(74, 100))), @r"
        status: allowed
        reset: 1795392000
        representative-claim: overage
        overage-status: allowed
        overage-reset: 1795392000
        overage-utilization: 0.74
        ");
    }

    #[test]
    fn a_caller_close_to_its_cap_is_warned() {
        insta::assert_snapshot!(text(allowed(&standing(96, 100))), @r"
        status: allowed_warning
        reset: 1795392000
        representative-claim: overage
        overage-status: allowed_warning
        overage-reset: 1795392000
        overage-utilization: 0.96
        overage-surpassed-threshold: 0.95
        ");
    }

    #[test]
    fn thresholds_must_be_passed_not_met() {
        let passed = |spent| surpassed(Money::from_cents(spent), Money::from_cents(100));
        assert_eq!([75, 76, 95, 96].map(passed), [None, Some("0.75"), Some("0.75"), Some("0.95")]);
    }

    #[test]
    fn utilization_has_no_trailing_zeros_and_never_reaches_one() {
        let shown = |(spent, cap)| utilization(Money::from_cents(spent), Money::from_cents(cap));
        let cases = [(0, 100), (5, 100), (80, 100), (1, 3), (100, 100), (0, 0)];
        assert_eq!(cases.map(shown), ["0", "0.05", "0.8", "0.33", "0.99", "0.99"]);
    }

    #[test]
    fn a_blocked_caller_learns_which_period_stops_it() {
        insta::assert_snapshot!(text(over(&standing(102, 100))), @r"
        status: rejected
        reset: 1795392000
        overage-reset: 1795392000
        overage-utilization: 1.01
        overage-surpassed-threshold: 1
        overage-period: daily
        overage-disabled-reason: org_spend_cap_reached
        ");
    }
}
