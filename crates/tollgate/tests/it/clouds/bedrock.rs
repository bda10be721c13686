//! Amazon Bedrock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{bedrock, prompt};
use crate::support::cloud::aws::KEYS;
use crate::support::cloud::bedrock::{chunk, exception, signed, stream};
use crate::support::gateway::TestGateway;
use crate::support::upstream::{Answer, Step, message_events};

const MODEL: &str = "us.anthropic.claude-sonnet-4-6";

async fn gateway(more: &Value) -> TestGateway {
    let gateway = TestGateway::setup().upstream(bedrock(more)).start().await;
    gateway.upstream().answer_otherwise(signed(KEYS, "us-east-1"));
    gateway
}

/// With an upstream of Anthropic's behind the cloud.
async fn gateway_with_second() -> TestGateway {
    let setup = TestGateway::setup().upstream(bedrock(&json!({}))).upstream(json!({ "name": "second" }));
    let gateway = setup.start().await;
    gateway.upstream().answer_otherwise(signed(KEYS, "us-east-1"));
    gateway
}

#[tokio::test]
async fn a_streamed_answer_comes_out_as_anthropics_events_and_is_billed() {
    let gateway = gateway(&json!({ "guardrail": { "id": "gr-1", "version": "3" } })).await;
    let alice =
        gateway.as_user("alice").header("anthropic-beta", "a-1, request-tags-2026-08-21").header("x-app", "cli");
    let body = r#"{ "model":"claude-sonnet-4-6", "max_tokens":64,"n":12345678901234567890,"stream": true,"messages":[],"tags":{}}"#;
    let reply = alice.post("/v1/messages?beta=true", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    assert_eq!(reply.header("x-amzn-requestid"), None);
    assert_eq!(reply.text(), message_events(MODEL, &["Hello", " there"], 11, 5).concat());

    let sent = gateway.upstream().request(0).await;
    assert_eq!(sent.uri.path(), format!("/model/{MODEL}/invoke-with-response-stream"));
    let expected = r#"{  "max_tokens":64,"n":12345678901234567890,"messages":[],"anthropic_beta":["a-1"],"anthropic_version":"bedrock-2023-05-31"}"#;
    assert_eq!(sent.body, expected);
    assert_eq!(sent.header("x-amzn-bedrock-guardrailidentifier"), Some("gr-1"));
    assert_eq!(sent.header("x-amzn-bedrock-guardrailversion"), Some("3"));
    assert_eq!(sent.header("accept"), Some("application/json"));
    assert_eq!((sent.header("x-app"), sent.header("anthropic-beta")), (None, None));

    let event = gateway.audit().next("inference").await;
    assert_eq!(event["outcome"], "complete", "{event}");
    assert_eq!((&event["input_tokens"], &event["output_tokens"]), (&json!(11), &json!(5)));
    assert_eq!(event["upstream_cloud_request_id"], "amzn-1");
}

#[tokio::test]
async fn a_whole_answer_passes_byte_for_byte() {
    let gateway = gateway(&json!({})).await;
    let odd = r#"{ "usage": {"input_tokens":1,"output_tokens":2}, "n":12345678901234567890, "f": 1.0 }"#;
    gateway.upstream().answer(Answer::new(200, "application/json", odd));
    let reply = gateway.as_user("alice").post("/v1/messages", prompt(false).to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, odd));
    assert_eq!(gateway.upstream().request(0).await.uri.path(), format!("/model/{MODEL}/invoke"));
}

#[tokio::test]
async fn a_bearer_token_is_shown_as_it_is_and_an_arn_is_one_segment_of_the_path() {
    let auth = json!({ "api_key": null, "aws_bearer_token": "bedrock-api-key" });
    let arn = "arn:aws:bedrock:us-east-1:111111111111:application-inference-profile/abcdef";
    let model = json!({ "id": "house", "upstream_model": { "cloud": arn } });
    let setup = TestGateway::setup().upstream(bedrock(&json!({ "auth": auth }))).config(json!({ "models": [model] }));
    let gateway = setup.start().await;
    let mut body = prompt(false);
    body["model"] = "house".into();
    gateway.upstream().answer(Answer::message("house", "hi", 1, 1));
    let alice = gateway.as_user("alice");
    assert_eq!(alice.post("/v1/messages", body.to_string()).await.status, 200);
    let sent = gateway.upstream().request(0).await;
    assert_eq!(sent.uri, "/model/arn:aws:bedrock:us-east-1:111111111111:application-inference-profile%2Fabcdef/invoke");
    assert_eq!(sent.header("authorization"), Some("Bearer bedrock-api-key"));
    // Such a profile cannot be counted for, and is not asked.
    let reply = alice.post("/v1/messages/count_tokens", body.to_string()).await;
    assert_eq!((reply.status.as_u16(), gateway.upstream().requests().len()), (501, 1));
}

#[tokio::test]
async fn the_signature_of_an_arn_and_of_a_prefixed_address_holds() {
    let model =
        json!({ "id": "house", "upstream_model": { "cloud": "arn:aws:bedrock:us-east-1:1:inference-profile/us.x:0" } });
    let setup = TestGateway::setup().upstream(bedrock(&json!({}))).config(json!({ "models": [model] }));
    let gateway = setup.start().await;
    gateway.upstream().answer_otherwise(signed(KEYS, "us-east-1"));
    let mut body = prompt(true);
    body["model"] = "house".into();
    let reply = gateway.as_user("alice").post("/v1/messages", body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn tokens_are_counted_by_the_foundation_model() {
    let gateway = gateway(&json!({})).await;
    let betas = "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27";
    let alice = gateway.as_user("alice").header("anthropic-beta", betas);
    let body =
        r#"{"model":"claude-sonnet-4-5","tools":[ ],"thinking":{"type":"enabled","budget_tokens":2000},"messages":[]}"#;
    let reply = alice.post("/v1/messages/count_tokens", body).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, r#"{"input_tokens":42}"#));
    let sent = gateway.upstream().request(0).await;
    assert_eq!(sent.uri, "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens");
    let packed = sent.json()["input"]["invokeModel"]["body"].as_str().unwrap().to_owned();
    let inner = String::from_utf8(STANDARD.decode(packed).unwrap()).unwrap();
    let expected = r#"{"thinking":{"type":"enabled","budget_tokens":2000},"messages":[],"max_tokens":2001,"anthropic_beta":["claude-code-20250219","context-management-2025-06-27"],"anthropic_version":"bedrock-2023-05-31"}"#;
    assert_eq!(inner, expected);
}

#[tokio::test]
async fn what_cannot_be_counted_is_said_and_a_lasting_refusal_is_remembered() {
    let gateway = gateway(&json!({})).await;
    let alice = gateway.as_user("alice");
    let count = async || alice.post("/v1/messages/count_tokens", prompt(false).to_string()).await;
    gateway.upstream().answer(Answer::json(503, &json!({ "message": "busy" })));
    let reply = count().await;
    assert_eq!((reply.status.as_u16(), reply.header("x-should-retry")), (501, Some("false")));
    assert_eq!(reply.json()["error"]["message"], "count_tokens is not available on this Bedrock upstream");
    // A passing trouble does not switch counting off.
    assert_eq!(count().await.status, 200);
    gateway
        .upstream()
        .answer(Answer::json(403, &json!({ "message": "not authorized to perform: bedrock:CountTokens" })));
    assert_eq!((count().await.status.as_u16(), count().await.status.as_u16()), (501, 501));
    assert_eq!(gateway.upstream().requests().len(), 3);
}

#[tokio::test]
async fn another_upstream_counts_where_the_cloud_cannot() {
    let gateway = gateway_with_second().await;
    gateway
        .upstream()
        .answer(Answer::json(400, &json!({ "message": "The provided model doesn't support counting tokens." })));
    let reply = gateway.as_user("alice").post("/v1/messages/count_tokens", prompt(false).to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.json()["input_tokens"].clone()), (200, json!(11)));
}

#[tokio::test]
async fn an_exception_in_the_first_frame_leads_to_the_next_upstream() {
    let gateway = gateway_with_second().await;
    for kind in ["throttlingException", "serviceUnavailableException", "modelStreamErrorException"] {
        gateway.upstream().answer(stream([exception(kind, "no").into()]));
        let reply = gateway.as_user("alice").post("/v1/messages", prompt(true).to_string()).await;
        assert_eq!(reply.status, 200, "{kind}");
        assert!(reply.text().contains("Hello"), "{kind}: {}", reply.text());
        assert_eq!(gateway.audit().next("inference").await["upstream"], "second");
    }
}

#[tokio::test]
async fn a_model_id_that_the_region_does_not_have_leads_on_and_is_told_last() {
    let invalid = || Answer::json(400, &json!({ "message": "The provided model identifier is invalid." }));
    let two = gateway_with_second().await;
    two.upstream().answer(invalid());
    assert_eq!(two.as_user("alice").post("/v1/messages", prompt(true).to_string()).await.status, 200);
    let one = gateway(&json!({})).await;
    one.upstream().answer(invalid());
    let reply = one.as_user("alice").post("/v1/messages", prompt(true).to_string()).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["message"], "model claude-sonnet-4-6 is not available on cloud");
}

#[tokio::test]
async fn a_stream_that_fails_after_its_first_event_ends_with_one_error_event() {
    let start = || Step::from(chunk(&message_events(MODEL, &[], 11, 5)[0]));
    let mut bad = chunk(r#"{"type":"content_block_delta"}"#).to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let half = chunk(r#"{"type":"ping"}"#).slice(..20);
    let error = chunk(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
    let upstream_error = r#""error":{"type":"api_error","message":"upstream error"}}"#;
    let cases = [
        (
            stream([start(), exception("modelStreamErrorException", "secret words").into()]),
            upstream_error,
            "upstream_aborted",
        ),
        (stream([start(), bad.into()]), upstream_error, "upstream_aborted"),
        (stream([start(), half.into()]), upstream_error, "upstream_aborted"),
        (stream([start()]), upstream_error, "upstream_aborted"),
        (stream([start(), error.into()]), r#""overloaded_error","message":"Overloaded"}}"#, "error"),
    ];
    let gateway = gateway(&json!({})).await;
    for (index, (answer, told, outcome)) in cases.into_iter().enumerate() {
        gateway.upstream().answer(answer);
        let reply = gateway.as_user("alice").post("/v1/messages", prompt(true).to_string()).await;
        let text = reply.text();
        assert!(text.starts_with("event: message_start\n"), "{index}: {text}");
        assert!(text.contains("event: error\ndata: ") && text.ends_with(&format!("{told}\n\n")), "{index}: {text}");
        assert_eq!(text.matches("event: error").count(), 1, "{index}: {text}");
        assert!(!text.contains("secret"), "{index}");
        let event = gateway.audit().next("inference").await;
        assert_eq!((&event["outcome"], &event["input_tokens"]), (&json!(outcome), &json!(11)), "{index}: {event}");
    }
}

#[tokio::test]
async fn a_beta_or_field_that_is_not_known_is_left_out_once_it_was_refused() {
    let gateway = gateway(&json!({})).await;
    let unknown = "context_management: Extra inputs are not permitted";
    gateway.upstream().answer(Answer::json(400, &json!({ "message": unknown })));
    let mut body = prompt(true);
    body["context_management"] = json!({ "edits": [] });
    body["tools"] = json!([{ "name": "a", "input_schema": {}, "eager_input_streaming": true }]);
    let alice = gateway.as_user("alice").header("anthropic-beta", "context-management-2025-06-27,x-1,oauth-2025-04-20");
    for _ in 0..2 {
        let reply = alice.post("/v1/messages", body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let sent = gateway.upstream().requests();
    let betas: Vec<_> = sent.iter().map(|request| request.json()["anthropic_beta"].clone()).collect();
    // The last beta is in the table; the first went with the field that it allows, and stays away.
    assert_eq!(betas, [json!(["context-management-2025-06-27", "x-1"]), json!(["x-1"]), json!(["x-1"])]);
    assert!(
        sent[2].json()["context_management"].is_null()
            && !sent[2].json()["tools"][0]["eager_input_streaming"].is_null()
    );

    let unknown = "tools.0.custom.eager_input_streaming: Extra inputs are not permitted";
    gateway.upstream().answer(Answer::json(400, &json!({ "message": unknown })));
    assert_eq!(alice.post("/v1/messages", body.to_string()).await.status, 200);
    assert_eq!(gateway.upstream().request(4).await.json()["tools"], json!([{ "input_schema": {}, "name": "a" }]));
    // Not for ever: what is refused again is told.
    for _ in 0..2 {
        gateway.upstream().answer(Answer::json(400, &json!({ "message": "invalid beta flag" })));
    }
    let reply = alice.post("/v1/messages", body.to_string()).await;
    assert_eq!(reply.json()["error"]["message"], "upstream rejected the request");
    assert_eq!(gateway.upstream().requests().len(), 7);
}

#[tokio::test]
async fn what_is_no_answer_at_all_leads_on_and_a_cloud_text_stays_in_the_log() {
    let gateway = gateway(&json!({ "breaker": { "enabled": false } })).await;
    let html = || Answer::new(200, "text/html", "<html>portal of account 111122223333</html>");
    let endless = Answer::new(500, "text/plain", "x".repeat(1 << 20));
    let redirect = Answer::new(307, "text/plain", "").header("location", "http://127.0.0.1:1/");
    for answer in
        [html(), Answer::none(), stream([]), endless, redirect, stream([Step::from("garbage that is no frame at all")])]
    {
        gateway.upstream().answer(answer);
        let reply = gateway.as_user("alice").post("/v1/messages", prompt(true).to_string()).await;
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert_eq!(reply.json()["error"]["message"], "all upstreams failed (1 attempted)");
    }
    for (status, text, told) in [
        (400, "Malformed input request: 111122223333", "upstream rejected the request"),
        (400, "Input is too long for requested model.", "capability_rejected: prompt_too_long"),
        (422, "111122223333", "upstream error"),
    ] {
        gateway.upstream().answer(Answer::json(status, &json!({ "message": text })));
        let reply = gateway.as_user("alice").post("/v1/messages", prompt(true).to_string()).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error"]["message"].as_str()), (status, Some(told)));
    }
}
