//! What API clients are told when there is no answer of an upstream: the Messages API's error envelope.

use std::time::Duration;

use axum::response::Response;
use control::spend::ledger::Standing;
use control::spend::{Money, Refusal, Scope};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};
use proxy::inference::{Failure, Full};
use wire::error::ErrorType;

use super::unified;
use crate::http::error::refuse;

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Nano-dollars in a US cent.
const CENT: i64 = 10_000_000;

/// The answer to a request that failed so. `blocked_message` is the operator's word to blocked callers.
pub(super) fn response(failure: &Failure, request_id: &str, blocked_message: Option<&str>) -> Response {
    let error_type = match failure {
        Failure::Body(_)
        | Failure::BodyCut
        | Failure::Denied(_)
        | Failure::Unserved(_)
        | Failure::Blocked { refusal: Refusal::Unbounded(_), .. } => ErrorType::InvalidRequest,
        Failure::TooLarge => ErrorType::RequestTooLarge,
        Failure::BodyStalled(_) => ErrorType::Timeout,
        Failure::Blocked { refusal: Refusal::Over(_) | Refusal::TooDear { .. } | Refusal::Unavailable, .. } => {
            ErrorType::Billing
        }
        Failure::Blocked { refusal: Refusal::InFlight { .. }, .. } | Failure::Full(Full::Person) => {
            ErrorType::RateLimit
        }
        Failure::Overloaded { .. } | Failure::Stopping | Failure::Full(Full::Gateway) => ErrorType::Overloaded,
        Failure::Exhausted { .. } => ErrorType::Api,
    };
    let mut response = refuse(failure.status(), error_type, &message(failure, blocked_message), request_id);
    dress(response.headers_mut(), failure);
    response
}

fn message(failure: &Failure, blocked_message: Option<&str>) -> String {
    let Failure::Blocked { refusal, .. } = failure else { return failure.to_string() };
    let mut parts = match refusal {
        Refusal::Over(standing) => over(standing),
        Refusal::TooDear { standing, bound } => too_dear(standing, *bound),
        Refusal::Unbounded(why) => {
            return format!("the cost of this request cannot be bounded, and no spend limit may be passed: {why}");
        }
        Refusal::InFlight { .. } => {
            return "your other requests in flight use up what is left of your spend limit; try again shortly"
                .to_owned();
        }
        Refusal::Unavailable => vec!["spend limit unavailable".to_owned()],
    };
    parts.extend(blocked_message.map(str::to_owned));
    parts.join(" · ")
}

/// The stock client knows the first words (contract B7).
fn over(standing: &Standing) -> Vec<String> {
    let mut parts = vec!["spend limit reached".to_owned()];
    if standing.cap.cents > 0 {
        parts.push(format!("resets {}", standing.resets_at.strftime("%b %-d")));
    }
    parts.push(format!("{} spent of {}", spent(standing), limit(standing)));
    parts
}

/// Not yet reached, but no request of this size can be paid for.
fn too_dear(standing: &Standing, bound: Money) -> Vec<String> {
    let of_request = format!("this request may cost {}", whole_cents(bound));
    let left = format!("{} is spent of {}", spent(standing), limit(standing));
    let resets = format!("resets {}", standing.resets_at.strftime("%b %-d"));
    vec!["spend limit reached".to_owned(), resets, format!("{of_request}, and {left}; ask for fewer max_tokens")]
}

fn limit(standing: &Standing) -> String {
    let (period, limit) = (standing.cap.period.as_str(), standing.cap.limit());
    match &standing.cap.source {
        Scope::Group(group) if standing.cap.shared => {
            format!("the {period} budget of {limit} that group {group} shares")
        }
        _ => format!("the {period} cap of {limit}"),
    }
}

/// Up to whole cents: what is shown as spent must not look like less than the cap.
fn spent(standing: &Standing) -> Money {
    whole_cents(standing.spent)
}

fn whole_cents(amount: Money) -> Money {
    Money::from_cents(amount.nano().saturating_add(CENT - 1) / CENT)
}

/// When and whether to come back.
fn dress(headers: &mut HeaderMap, failure: &Failure) {
    match failure {
        Failure::Blocked { refusal, retry_after } => {
            headers.extend(retry_after.map(|wait| (RETRY_AFTER, seconds(wait))));
            match refusal {
                Refusal::Over(standing) | Refusal::TooDear { standing, .. } => {
                    headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
                    headers.extend(unified::over(standing));
                }
                Refusal::Unavailable => {
                    headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
                    headers.extend(unified::unavailable());
                }
                Refusal::InFlight { .. } | Refusal::Unbounded(_) => {}
            }
        }
        Failure::Overloaded { retry_after } => headers.extend(retry_after.clone().map(|value| (RETRY_AFTER, value))),
        // A seat may be free at any moment.
        Failure::Full(_) => drop(headers.insert(RETRY_AFTER, seconds(Duration::ZERO))),
        Failure::Body(_)
        | Failure::BodyCut
        | Failure::BodyStalled(_)
        | Failure::TooLarge
        | Failure::Denied(_)
        | Failure::Unserved(_)
        | Failure::Exhausted { .. }
        | Failure::Stopping => {}
    }
}

/// Whole seconds, at least one: who comes back early is refused again.
fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::body::to_bytes;
    use http::header::CONTENT_TYPE;
    use wire::messages::BodyError;

    use super::super::unified::tests::standing;
    use super::*;

    async fn told(failure: Failure, blocked_message: Option<&str>) -> String {
        let (head, body) = response(&failure, "r-1", blocked_message).into_parts();
        let body = String::from_utf8(to_bytes(body, 10_000).await.unwrap().to_vec()).unwrap();
        let ours = |name: &HeaderName| *name != CONTENT_TYPE && !name.as_str().starts_with("anthropic-");
        let headers = head.headers.iter().filter(|(name, _)| ours(name));
        let headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        format!("{} {headers:?} {body}", head.status.as_u16())
    }

    fn blocked(refusal: Refusal, wait_ms: Option<u64>) -> Failure {
        Failure::Blocked { refusal, retry_after: wait_ms.map(Duration::from_millis) }
    }

    #[tokio::test]
    async fn a_blocked_caller_hears_period_spend_cap_reset_and_the_operator() {
        let over = blocked(Refusal::Over(Box::new(standing(102, 100))), Some(7_200_001));
        insta::assert_snapshot!(told(over, Some("ask at https://go/limits")).await, @r#"429 ["retry-after: 7201", "x-should-retry: false"] {"type":"error","request_id":"r-1","error":{"type":"billing_error","message":"spend limit reached · resets Nov 23 · $1.02 spent of the daily cap of $1 · ask at https://go/limits"}}"#);
    }

    #[tokio::test]
    async fn a_cap_of_nothing_never_resets() {
        let over = blocked(Refusal::Over(Box::new(standing(0, 0))), Some(1000));
        insta::assert_snapshot!(told(over, None).await, @r#"429 ["retry-after: 1", "x-should-retry: false"] {"type":"error","request_id":"r-1","error":{"type":"billing_error","message":"spend limit reached · $0 spent of the daily cap of $0"}}"#);
    }

    #[tokio::test]
    async fn a_member_of_a_group_that_has_spent_its_budget_hears_of_the_group() {
        let mut standing = standing(102, 100);
        standing.cap.shared = true;
        standing.cap.source = Scope::Group("eng".to_owned());
        let over = blocked(Refusal::Over(Box::new(standing)), Some(1000));
        insta::assert_snapshot!(told(over, Some("ask at https://go/limits")).await, @r#"429 ["retry-after: 1", "x-should-retry: false"] {"type":"error","request_id":"r-1","error":{"type":"billing_error","message":"spend limit reached · resets Nov 23 · $1.02 spent of the daily budget of $1 that group eng shares · ask at https://go/limits"}}"#);
    }

    #[tokio::test]
    async fn a_request_that_may_cost_more_than_is_left_hears_how_much() {
        let dear = Refusal::TooDear { standing: Box::new(standing(74, 100)), bound: Money::from_cents(30) };
        insta::assert_snapshot!(told(blocked(dear, Some(1000)), None).await, @r#"429 ["retry-after: 1", "x-should-retry: false"] {"type":"error","request_id":"r-1","error":{"type":"billing_error","message":"spend limit reached · resets Nov 23 · this request may cost $0.3, and $0.74 is spent of the daily cap of $1; ask for fewer max_tokens"}}"#);
        let unbounded = Refusal::Unbounded(wire::messages::Unbounded::because("\"mcp_servers\" is set"));
        insta::assert_snapshot!(told(blocked(unbounded, None), None).await, @r#"400 [] {"type":"error","request_id":"r-1","error":{"type":"invalid_request_error","message":"the cost of this request cannot be bounded, and no spend limit may be passed: \"mcp_servers\" is set"}}"#);
    }

    #[tokio::test]
    async fn a_request_beside_others_in_flight_is_asked_to_come_back_soon() {
        let wait = Duration::from_millis(1);
        let busy = blocked(Refusal::InFlight { retry_after: wait }, Some(1));
        insta::assert_snapshot!(told(busy, Some("ask at https://go/limits")).await, @r#"429 ["retry-after: 1"] {"type":"error","request_id":"r-1","error":{"type":"rate_limit_error","message":"your other requests in flight use up what is left of your spend limit; try again shortly"}}"#);
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_is_not_called_a_reached_limit() {
        let failure = blocked(Refusal::Unavailable, None);
        insta::assert_snapshot!(told(failure, Some("ask at https://go/limits")).await, @r#"429 ["x-should-retry: false"] {"type":"error","request_id":"r-1","error":{"type":"billing_error","message":"spend limit unavailable · ask at https://go/limits"}}"#);
    }

    #[tokio::test]
    async fn other_failures_keep_the_texts_of_the_contract() {
        insta::assert_snapshot!(told(Failure::Body(BodyError::InvalidJson), None).await, @r#"400 [] {"type":"error","request_id":"r-1","error":{"type":"invalid_request_error","message":"invalid JSON"}}"#);
        insta::assert_snapshot!(told(Failure::TooLarge, None).await, @r#"413 [] {"type":"error","request_id":"r-1","error":{"type":"request_too_large","message":"payload too large"}}"#);
        let stalled = Failure::BodyStalled(Duration::from_secs(60));
        insta::assert_snapshot!(told(stalled, None).await, @r#"408 [] {"type":"error","request_id":"r-1","error":{"type":"timeout_error","message":"nothing came of the request body for 60 s"}}"#);
        insta::assert_snapshot!(told(Failure::Exhausted { configured: 3 }, None).await, @r#"502 [] {"type":"error","request_id":"r-1","error":{"type":"api_error","message":"all upstreams failed (3 attempted)"}}"#);
        insta::assert_snapshot!(told(Failure::Full(Full::Gateway), None).await, @r#"529 ["retry-after: 1"] {"type":"error","request_id":"r-1","error":{"type":"overloaded_error","message":"the gateway is serving as many requests as it may; try again shortly"}}"#);
        insta::assert_snapshot!(told(Failure::Full(Full::Person), None).await, @r#"429 ["retry-after: 1"] {"type":"error","request_id":"r-1","error":{"type":"rate_limit_error","message":"you have as many requests open as one person may; try again when one of them has ended"}}"#);
        let overloaded = Failure::Overloaded { retry_after: Some(HeaderValue::from_static("9")) };
        insta::assert_snapshot!(told(overloaded, None).await, @r#"529 ["retry-after: 9"] {"type":"error","request_id":"r-1","error":{"type":"overloaded_error","message":"every upstream is overloaded or failed"}}"#);
    }
}
