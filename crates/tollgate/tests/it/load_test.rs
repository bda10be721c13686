//! Canned answers under load (contract B10): everything but the upstream is real, and nothing costs anything.

use control::spend::has_spend;
use serde_json::{Value, json};

use crate::support::database::{Database, Store, fresh_database, on_both_databases};
use crate::support::gateway::{Setup, TestGateway};

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
}
