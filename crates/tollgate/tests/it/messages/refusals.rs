//! Requests that never get as far as an upstream, and what they are told.

use bytes::Bytes;
use serde_json::json;

use super::{DATED, prompt};
use crate::support::gateway::TestGateway;
use crate::support::http::Reply;

/// Status and error of an answer, after the envelope was found to be right.
fn refusal(reply: &Reply) -> String {
    let body = reply.json();
    assert_eq!(reply.header("content-type"), Some("application/json;charset=utf-8"));
    assert_eq!((body["type"].as_str(), body["request_id"].as_str()), (Some("error"), reply.header("x-request-id")));
    let (kind, message) = (body["error"]["type"].as_str().unwrap(), body["error"]["message"].as_str().unwrap());
    format!("{} {kind}: {message}", reply.status.as_u16())
}

#[tokio::test]
async fn every_fault_of_a_body_is_named_in_the_order_of_the_contract() {
    let policy = json!({ "match": {}, "cli": { "availableModels": ["claude-haiku-4-5"] } });
    let gateway = TestGateway::setup().config(json!({ "managed": { "policies": [policy] } })).start().await;
    let alice = gateway.as_user("alice");
    let bodies: [&[u8]; 19] = [
        b"",
        b"{",
        b"\x1f\x8b\x08",
        b"{\"model\":\"claude-haiku-4-5\"} trailing",
        b"[]",
        b"\"text\"",
        b"null",
        b"{}",
        br#"{"model":""}"#,
        br#"{"model":null}"#,
        br#"{"model":7}"#,
        br#"{"model":["claude-haiku-4-5"]}"#,
        br#"{"model":"gpt-5"}"#,
        br#"{"model":"haiku"}"#,
        br#"{"model":" claude-haiku-4-5"}"#,
        br#"{"model":"claude-haiku-4-5[1m]"}"#,
        br#"{"model":"claude-sonnet-4-6"}"#,
        br#"{"model":"claude-haiku-4-5","model":"claude-sonnet-4-6"}"#,
        br#"{"model":"claude-haiku-4-5","stream":true,"stre\u0061m":false}"#,
    ];
    let mut told = String::new();
    for path in ["/v1/messages", "/v1/messages/count_tokens"] {
        for body in bodies {
            let reply = alice.post(path, Bytes::from_static(body)).await;
            let line = format!("{} -> {}\n", String::from_utf8_lossy(body).escape_default(), refusal(&reply));
            let event = gateway.audit().next("inference").await;
            assert_eq!((event["status"].as_u64(), event["outcome"].as_str()), (Some(400), Some("rejected")));
            assert!(event["model"].is_null() && event["upstream"].is_null());
            told.push_str(if path == "/v1/messages" { &line } else { "" });
        }
    }
    insta::assert_snapshot!(told, @r#"
     -> 400 invalid_request_error: invalid JSON
    { -> 400 invalid_request_error: invalid JSON
    \u{1f}\u{fffd}\u{8} -> 400 invalid_request_error: invalid JSON
    {\"model\":\"claude-haiku-4-5\"} trailing -> 400 invalid_request_error: invalid JSON
    [] -> 400 invalid_request_error: request body must be a JSON object
    \"text\" -> 400 invalid_request_error: request body must be a JSON object
    null -> 400 invalid_request_error: request body must be a JSON object
    {} -> 400 invalid_request_error: model is required
    {\"model\":\"\"} -> 400 invalid_request_error: model is required
    {\"model\":null} -> 400 invalid_request_error: model must be a string
    {\"model\":7} -> 400 invalid_request_error: model must be a string
    {\"model\":[\"claude-haiku-4-5\"]} -> 400 invalid_request_error: model must be a string
    {\"model\":\"gpt-5\"} -> 400 invalid_request_error: model gpt-5 is not in your role's availableModels allowlist
    {\"model\":\"haiku\"} -> 400 invalid_request_error: model haiku is not in your role's availableModels allowlist
    {\"model\":\" claude-haiku-4-5\"} -> 400 invalid_request_error: model  claude-haiku-4-5 is not in your role's availableModels allowlist
    {\"model\":\"claude-haiku-4-5[1m]\"} -> 400 invalid_request_error: model claude-haiku-4-5[1m] is not in the operator's model allowlist
    {\"model\":\"claude-sonnet-4-6\"} -> 400 invalid_request_error: model claude-sonnet-4-6 is not in your role's availableModels allowlist
    {\"model\":\"claude-haiku-4-5\",\"model\":\"claude-sonnet-4-6\"} -> 400 invalid_request_error: request body has more than one "model" field; send it once
    {\"model\":\"claude-haiku-4-5\",\"stream\":true,\"stre\\u0061m\":false} -> 400 invalid_request_error: request body has more than one "stream" field; send it once
    "#);
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn fields_that_are_acted_on_may_not_be_given_twice() {
    let gateway = TestGateway::start().await;
    for field in ["model", "stream", "max_tokens", "tags", "speed"] {
        let body = format!(r#"{{"model":"{DATED}","{field}":1,"{field}":2}}"#);
        let told = refusal(&gateway.as_user("alice").messages(body).await);
        assert!(told.starts_with("400 invalid_request_error") && told.contains(field), "{told}");
    }
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn a_model_that_no_upstream_serves_for_the_caller_is_refused_without_a_call() {
    let setup = TestGateway::setup().upstream(json!({ "name": "first", "groups": ["eng"] }));
    let gateway = setup.upstream(json!({ "name": "second", "models": ["claude-sonnet-4-6"] })).start().await;
    let told = refusal(&gateway.as_member("carl", &["sales"]).messages(prompt("claude-haiku-4-5").to_string()).await);
    insta::assert_snapshot!(told, @"400 invalid_request_error: model claude-haiku-4-5 is not available on first; model claude-haiku-4-5 is not available on second");
    assert_eq!(gateway.as_member("alice", &["eng"]).messages(prompt("claude-haiku-4-5").to_string()).await.status, 200);
    assert_eq!(
        gateway.as_member("carl", &["sales"]).messages(prompt("claude-sonnet-4-6").to_string()).await.status,
        200
    );
    assert_eq!((gateway.upstreams()[0].requests().len(), gateway.upstreams()[1].requests().len()), (1, 1));
}

#[tokio::test]
async fn requests_of_the_wrong_size_or_shape_get_the_envelope_too() {
    let limits = json!({ "max_request_bytes": 100, "max_request_header_bytes": 900, "max_url_length": 120 });
    let gateway = TestGateway::setup().config(json!({ "limits": limits })).start().await;
    let (alice, nobody) = (gateway.as_user("alice"), gateway.anyone());
    let mut told = Vec::new();
    told.push(refusal(&nobody.messages("x".repeat(101)).await));
    told.push(refusal(&nobody.get(&format!("/v1/models?{}", "x".repeat(120))).await));
    told.push(refusal(&nobody.clone().header("x-large", &"x".repeat(900)).get("/v1/models").await));
    told.push(refusal(&alice.get("/v1/messages").await));
    told.push(refusal(&alice.post("/v1/messages/batches", "{}").await));
    told.push(refusal(&nobody.messages("{}").await));
    insta::assert_snapshot!(told.join("\n"), @r"
    413 request_too_large: payload too large
    414 invalid_request_error: uri too long
    431 invalid_request_error: request header fields too large
    405 invalid_request_error: method not allowed
    404 not_found_error: not found
    401 authentication_error: invalid token
    ");
    // Exactly at the limit is within it.
    let fitting = format!("{:<100}", format!(r#"{{"model":"{DATED}"}}"#));
    assert_eq!(alice.messages(fitting).await.status, 200);
    assert_eq!(nobody.header("x-large", &"x".repeat(900)).get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_bearer_that_is_not_ours_is_refused_alike_and_the_audit_knows_why() {
    let gateway = TestGateway::start().await;
    let token = |claims| gateway.as_bearer_of(&claims);
    let now = 1_700_000_000;
    let callers = [
        ("missing", gateway.anyone()),
        ("missing", gateway.anyone().header("authorization", "bearer x.y.z")),
        ("missing", gateway.anyone().header("x-api-key", "k")),
        ("malformed", gateway.anyone().bearer("x.y.z")),
        ("bad_signature", gateway.anyone().bearer("eyJhbGciOiJIUzI1NiJ9.e30.AAAA")),
        ("wrong_algorithm", gateway.anyone().bearer("eyJhbGciOiJub25lIn0.e30.AAAA")),
        ("expired", token(json!({ "sub": "alice", "exp": now }))),
        ("no_expiry", token(json!({ "sub": "alice", "exp": null }))),
        ("no_subject", token(json!({ "email": "a@example.com" }))),
        ("no_subject", token(json!({ "sub": "" }))),
        ("wrong_audience", token(json!({ "sub": "alice", "aud": "else" }))),
        ("wrong_issuer", token(json!({ "sub": "alice", "iss": "http://else" }))),
        ("not_yet_valid", token(json!({ "sub": "alice", "iat": 4_000_000_000_u64 }))),
    ];
    for (cause, caller) in callers {
        let reply = caller.messages(prompt(DATED).to_string()).await;
        assert_eq!(refusal(&reply), "401 authentication_error: invalid token", "{cause}");
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        let challenge = if cause == "missing" { "Bearer" } else { "Bearer error=\"invalid_token\"" };
        assert_eq!(reply.header("www-authenticate"), Some(challenge), "{cause}");
        let event = gateway.audit().next("auth.denied").await;
        assert_eq!((event["cause"].as_str(), event["path"].as_str()), (Some(cause), Some("/v1/messages")));
        let reason = if cause == "missing" { "missing_token" } else { "invalid_token" };
        assert_eq!((event["reason"].as_str(), event["client_ip"].as_str()), (Some(reason), Some("127.0.0.1")));
    }
    assert!(gateway.upstream().requests().is_empty());
}
