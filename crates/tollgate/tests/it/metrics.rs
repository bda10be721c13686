//! `GET /metrics`: figures for Prometheus, on a listener of their own.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::gateway::TestGateway;
use crate::support::http::{Http, unused_port};
use crate::support::idp::{Account, RefreshTokens};
use crate::support::upstream::Answer;

const MODEL: &str = "claude-sonnet-4-6";

#[tokio::test]
async fn figures_tell_what_requests_came_to_and_of_nobody() {
    let port = unused_port();
    let bob = Account::new("bob").email("bob@example.com");
    let gateway = TestGateway::setup().people(RefreshTokens::Rotated, &[bob]);
    let mut gateway = gateway.config(json!({ "metrics": { "port": port } })).start().await;
    gateway.upstream().answer_otherwise(|_| Answer::message(MODEL, "hi", 1_000, 100));
    let alice = gateway.as_user("alice");
    let body = json!({ "model": MODEL, "max_tokens": 100, "messages": [] }).to_string();
    assert_eq!(alice.messages(body.clone()).await.status, 200);
    gateway.cap("alice", 0).await;
    assert_eq!(alice.messages(body).await.status, 429);
    gateway.sign_in("bob").await;
    assert_eq!(alice.get("/metrics").await.status, 404, "it is on its own listener only");

    let request = http::Request::get(format!("http://127.0.0.1:{port}/metrics")).body(bytes::Bytes::new()).unwrap();
    let reply = Http::new().send(request).await;
    assert_eq!(reply.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let text = reply.text();
    for line in [
        "tollgate_requests_total{path=\"/v1/messages\",outcome=\"complete\"} 1",
        "tollgate_blocked_total{cause=\"over_limit\"} 1",
        "tollgate_tokens_total{upstream=\"first\",model=\"claude-sonnet-4-6\",class=\"input\"} 1000",
        "tollgate_cost_nano_usd_total{upstream=\"first\",model=\"claude-sonnet-4-6\"} 4500000",
        "tollgate_upstream_attempts_total{upstream=\"first\",model=\"claude-sonnet-4-6\",outcome=\"served\"} 1",
        "tollgate_time_to_first_byte_seconds_count 1",
        "tollgate_sessions 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("alice") && !text.contains("bob"), "figures name a person");
    // The page of the documentation names exactly what is served.
    let page = include_str!("../../../../docs/metrics.md");
    let named: BTreeSet<&str> = page.split('`').filter(|word| word.starts_with("tollgate_")).collect();
    let served: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(named, served);
    gateway.stop().await;
}
