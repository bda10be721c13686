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

fn shown(value: Result<HeaderValue, Arc<CredentialError>>) -> String {
    match value {
        Ok(value) => {
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_token_is_kept_until_shortly_before_its_end_and_then_fetched_anew() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    assert_eq!(while_answering(&bench, &tokens, 200, &token("one", 3600)).await, "Bearer one");
    bench.clock.advance(Duration::from_secs(3600 - 226));
    assert_eq!(shown(tokens.authorization().await), "Bearer one");
    assert!(bench.server.is_idle());
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(while_answering(&bench, &tokens, 200, &token("two", 3600)).await, "Bearer two");
}

#[tokio::test]
async fn callers_at_the_same_time_wait_for_one_fetch_and_share_how_it_ends() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    let all = futures_util::future::join_all((0..20).map(|_| tokens.authorization()));
    let refusal = json!({ "error": "invalid_grant", "error_description": "no such\naccount" });
    let (all, _) = tokio::join!(all, bench.answer(400, &refusal));
    for value in all {
        let said = shown(value);
        assert!(said.ends_with("refused a token with 400: invalid_grant: no such account"), "{said}");
    }
    assert!(bench.server.is_idle());
    let all = futures_util::future::join_all((0..20).map(|_| tokens.authorization()));
    let one = token("one", 60);
    let (all, _) = tokio::join!(all, bench.answer(200, &one));
    assert!(all.into_iter().all(|value| shown(value) == "Bearer one"));
    assert!(bench.server.is_idle());
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_serves_to_its_end_and_the_endpoint_is_left_in_peace() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    while_answering(&bench, &tokens, 200, &token("one", 3600)).await;
    bench.clock.advance(Duration::from_secs(3500));
    assert_eq!(while_answering(&bench, &tokens, 503, &json!({})).await, "Bearer one");
    assert_eq!(shown(tokens.authorization().await), "Bearer one");
    assert!(bench.server.is_idle());
    bench.clock.advance(Duration::from_secs(15));
    assert_eq!(while_answering(&bench, &tokens, 503, &json!({})).await, "Bearer one");
    bench.clock.advance(Duration::from_secs(76));
    let said = while_answering(&bench, &tokens, 503, &json!({})).await;
    assert!(said.ends_with("/service-accounts/default/token refused a token with 503"), "{said}");
}

#[tokio::test]
async fn while_one_caller_renews_the_others_go_on_with_what_there_is() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    while_answering(&bench, &tokens, 200, &token("one", 3600)).await;
    bench.clock.advance(Duration::from_secs(3500));
    let renewing = std::pin::pin!(tokens.authorization());
    let (renewed, ()) = tokio::join!(renewing, async {
        let mut asked = bench.server.accept().await;
        assert_eq!(shown(tokens.authorization().await), "Bearer one");
        let body = token("two", 3600).to_string();
        asked.send(crate::upstream::scripted::http(200, "", &body)).await;
    });
    assert_eq!(shown(renewed), "Bearer two");
}

#[tokio::test]
async fn a_token_that_an_upstream_refused_is_not_used_again() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    while_answering(&bench, &tokens, 200, &token("one", 3600)).await;
    tokens.forget(&HeaderValue::from_static("Bearer another"));
    let one = tokens.authorization().await.unwrap();
    assert!(bench.server.is_idle());
    tokens.forget(&one);
    assert_eq!(while_answering(&bench, &tokens, 200, &token("two", 3600)).await, "Bearer two");
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_a_failure_that_does_not_show_it() {
    let bench = Bench::new().await;
    let tokens = bench.tokens(bench.metadata());
    let said = while_answering(&bench, &tokens, 200, &token("bad\ntoken", 3600)).await;
    assert!(said.contains("no header can carry") && !said.contains("bad"), "{said}");
    assert!(!format!("{tokens:?}").contains("secret"));
}
