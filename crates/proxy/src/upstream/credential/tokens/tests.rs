#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::upstream::credential::testing::Bench;

fn token(name: &str, seconds: u32) -> serde_json::Value {
    json!({ "access_token": name, "expires_in": seconds, "token_type": "Bearer" })
}

/// What is sent upstream, with this answered meanwhile.
async fn while_answering(bench: &Bench, tokens: &Tokens, status: u16, body: &serde_json::Value) -> String {
    let (value, _) = tokio::join!(tokens.authorization(), bench.answer(status, body));
    shown(value)
}

fn shown(value: Result<HeaderValue, NoCredential>) -> String {
    match value {
        Ok(value) => {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_token_is_kept_as_long_as_it_says_and_fetched_anew_ahead_of_its_end() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    assert_eq!(while_answering(&bench, &tokens, 200, &token("one", 3600)).await, "Bearer one");
    bench.clock.advance(Duration::from_secs(3299));
    assert_eq!(shown(tokens.authorization().await), "Bearer one");
    assert!(bench.server.is_idle());
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(while_answering(&bench, &tokens, 200, &token("two", 3600)).await, "Bearer two");
    bench.clock.advance(Duration::from_secs(3599));
    assert_eq!(while_answering(&bench, &tokens, 503, &json!({})).await, "Bearer two");
    bench.clock.advance(Duration::from_secs(1));
    let said = while_answering(&bench, &tokens, 503, &json!({})).await;
    assert!(said.ends_with("/service-accounts/default/token refused a token with 503"), "{said}");
}

#[tokio::test]
async fn callers_at_the_same_time_wait_for_one_fetch() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    let all = futures_util::future::join_all((0..20).map(|_| tokens.authorization()));
    let one = token("one", 60);
    let (all, _) = tokio::join!(all, bench.answer(200, &one));
    assert!(all.into_iter().all(|value| shown(value) == "Bearer one"));
    assert!(bench.server.is_idle());
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_a_failure_that_does_not_show_it() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    let said = while_answering(&bench, &tokens, 200, &token("bad\ntoken", 3600)).await;
    assert!(said.contains("no header can carry") && !said.contains("bad"), "{said}");
}
