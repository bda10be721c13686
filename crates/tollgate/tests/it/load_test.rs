//! Canned answers under load (contract B10): everything but the upstream is real, and nothing costs anything.

use control::spend::has_spend;
use serde_json::{Value, json};

use crate::support::database::{Database, Store, fresh_database, on_both_databases};
use crate::support::gateway::{Setup, TestGateway};
use crate::support::time::wait_for;

const PROMPT: &str = r#"{"model":"claude-sonnet-4-6","max_tokens":16,"messages":[]}"#;
const STREAMED: &str = r#"{"model":"claude-sonnet-4-6","max_tokens":16,"messages":[],"stream":true}"#;

fn load_test(more: Value) -> Setup {
    let mut mode = json!({ "enabled": true, "reply_seconds": 0 });
    mode.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    TestGateway::setup().config(json!({ "load_test_mode": mode }))
}

#[tokio::test]
async fn requests_are_admitted_answered_metered_and_audited_without_an_upstream_and_for_nothing() {
    let mut gateway = load_test(json!({ "reply_tokens": 30 })).start().await;
    let alice = gateway.as_user("alice");
    let whole = alice.messages(PROMPT).await.json();
    assert_eq!((&whole["id"], &whole["model"]), (&"msg_loadtest".into(), &"load-test".into()));
    assert_eq!(whole["usage"]["output_tokens"], 0);
    let streamed = alice.messages(STREAMED).await;
    assert_eq!(streamed.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(streamed.text().matches("event: content_block_delta").count(), 10);
    assert!(streamed.text().trim_end().ends_with(r#"{"type":"message_stop"}"#));
    let count = alice.post("/v1/messages/count_tokens", PROMPT).await.json();
    assert_eq!(count, json!({ "input_tokens": 0 }));
    let denied = alice.messages(r#"{"model":"gpt-4"}"#).await;
    assert_eq!(denied.status, 400);
    for _ in 0..3 {
        let event = gateway.audit().next("inference").await;
        assert_eq!((&event["load_test"], &event["upstream"]), (&true.into(), &"first".into()));
        assert!(event["upstream_request_id"].is_null() && event["outcome"] == "complete", "{event}");
    }
    assert!(gateway.upstream().requests().is_empty());
    gateway.stop().await;
    let books = gateway.books().await;
    assert!(!has_spend(&gateway.database().await).await.unwrap());
    assert_eq!((books.usage.len(), books.charged(), books.settled, books.reserved), (2, 0, 0, 0));
}

#[tokio::test]
async fn who_does_not_wait_for_the_end_of_a_reply_pays_nothing_either() {
    let mut gateway = load_test(json!({ "reply_tokens": 100_000, "reply_seconds": 600 })).start().await;
    let alice = gateway.as_user("alice");
    let mut early = alice.stream(STREAMED).await.unwrap();
    assert!(early.next().await.unwrap().is_ok());
    drop(early);
    let mut late = alice.stream(STREAMED).await.unwrap();
    let mut read = 0;
    wait_for(async {
        while read < 100_000 {
            read += late.next().await.unwrap().unwrap().len();
        }
    })
    .await;
    drop(late);
    for event in gateway.audit().take("inference", 2).await {
        assert_eq!((&event["outcome"], &event["cost_usd"]), (&json!("client_aborted"), &json!(0)), "{event}");
    }
    gateway.stop().await;
    assert!(!has_spend(&gateway.database().await).await.unwrap());
    let books = gateway.books().await;
    assert_eq!((books.usage.len(), books.charged(), books.settled, books.reserved), (2, 0, 0, 0));
}

#[tokio::test]
async fn a_reply_takes_as_long_and_has_as_many_events_as_the_defaults_say() {
    let gateway = TestGateway::setup().config(json!({ "load_test_mode": { "enabled": true } })).start().await;
    let answer = gateway.as_user("alice").stream(STREAMED).await.unwrap();
    let (body, took) = wait_for(answer.rest()).await;
    let events = String::from_utf8(body.unwrap().to_vec()).unwrap().matches("event: ").count();
    let seconds = took.as_secs_f64();
    assert!(events == 255 && (9.0..10.0).contains(&seconds), "{events} events in {seconds} s");
}

#[tokio::test]
async fn caps_policies_and_limits_hold_for_each_developer_of_a_number() {
    let policy = json!({ "match": {}, "cli": { "availableModels": ["claude-sonnet-4-6"] } });
    let limits = json!({ "max_concurrent_per_user": 1 });
    let setup = load_test(json!({ "reply_tokens": 30, "reply_seconds": 600 }));
    let gateway = setup.config(json!({ "managed": { "policies": [policy] }, "limits": limits })).start().await;
    let developer = |number: &str| gateway.as_user("alice").header("x-load-test-user", number);
    let first = developer("1").stream(STREAMED).await.unwrap();
    assert_eq!(developer("1").messages(PROMPT).await.status, 429);
    assert_eq!(developer("2").messages(PROMPT).await.status, 200);
    drop(first);
    assert_eq!(developer("2").messages(PROMPT.replace("sonnet-4-6", "haiku-4-5")).await.status, 400);
    gateway.cap("load-test-3", 0).await;
    let blocked = developer("3").messages(PROMPT).await;
    assert_eq!((blocked.status.as_u16(), &blocked.json()["error"]["type"]), (429, &json!("billing_error")));
    assert_eq!(developer("2").messages(PROMPT).await.status, 200);
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn the_header_of_load_tests_means_nothing_to_others() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.as_user("alice").header("x-load-test-user", "7").messages(PROMPT).await.status, 200);
    let event = gateway.audit().next("inference").await;
    assert_eq!((&event["sub"], event.get("load_test")), (&json!("alice"), None));
    assert_eq!(gateway.upstream().request(0).await.header("x-load-test-user"), None);
}

#[tokio::test]
async fn a_number_makes_another_developer_of_the_same_bearer() {
    let gateway = load_test(json!({})).start().await;
    for number in ["7", "1234567", "12345678", "x"] {
        let caller = gateway.as_user("alice").header("x-load-test-user", number);
        assert_eq!(caller.messages(PROMPT).await.status, 200);
    }
    let events = gateway.audit().take("inference", 4).await;
    let subs: Vec<_> = events.iter().map(|event| event["sub"].as_str().unwrap()).collect();
    assert_eq!(subs, ["load-test-7", "load-test-1234567", "alice", "alice"]);
}

on_both_databases!(what_was_spent_is_seen_in_the_database);

async fn what_was_spent_is_seen_in_the_database(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start().await;
    assert_eq!(gateway.as_user("alice").messages(PROMPT).await.status, 200);
    gateway.stop().await;
    assert!(gateway.books().await.charged() > 0);
    assert!(has_spend(&gateway.database().await).await.unwrap());
}

#[tokio::test]
async fn a_database_that_holds_real_spend_is_refused() {
    let url = fresh_database().await;
    let mut gateway = TestGateway::setup().store(Store::Postgres(url.clone())).start().await;
    assert_eq!(gateway.as_user("alice").messages(PROMPT).await.status, 200);
    gateway.stop().await;
    let (status, log) = load_test(json!({})).store(Store::Postgres(url)).refuse().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("load_test_mode: this database holds real spend"), "{log}");
    assert!(log.contains("load test mode is on"), "{log}");
}
