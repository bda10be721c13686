//! The stock client, unmodified, in front of a cloud: it cannot tell.

use serde_json::{Value, json};

use super::bedrock;
use crate::stock_client::{said, signed_in};
use crate::support::cloud::aws::KEYS;
use crate::support::cloud::bedrock::{chunk, exception, signed, stream};
use crate::support::gateway::{Setup, TestGateway};
use crate::support::idp::{Account, RefreshTokens};
use crate::support::upstream::{Answer, Step};

const MODEL: &str = "us.anthropic.claude-sonnet-4-6";

fn setup() -> Setup {
    let cli = json!({ "model": "claude-sonnet-4-6" });
    let policies = json!({ "managed": { "policies": [{ "match": {}, "cli": cli }] } });
    let alice = Account::new("alice").email("alice@example.com");
    TestGateway::setup().people(RefreshTokens::Rotated, &[alice]).config(policies).upstream(bedrock(&json!({})))
}

/// An answer that calls a tool.
fn calls(tool: &str, input: &Value) -> Answer {
    let usage = json!({ "input_tokens": 11, "output_tokens": 1 });
    let message = json!({
        "id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    let block = json!({ "type": "tool_use", "id": "toolu_bdrk_1", "name": tool, "input": {} });
    let delta = json!({ "type": "input_json_delta", "partial_json": input.to_string() });
    let events = [
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": { "output_tokens": 9 } }),
        json!({ "type": "message_stop" }),
    ];
    stream(events.iter().map(|event| Step::from(chunk(&event.to_string()))))
}

#[tokio::test]
async fn a_developer_works_with_tools_through_bedrock() {
    let gateway = setup().start().await;
    let client = signed_in(&gateway).await;
    gateway.upstream().answer_otherwise(signed(KEYS, "us-east-1"));
    gateway.upstream().answer(calls("Read", &json!({ "file_path": "/nowhere/at-all" })));
    assert_eq!(said(&client.prompt("read it").await), (Some(0), "Hello there".to_owned()));
    let asked = gateway.upstream().requests();
    assert!(asked.iter().all(|request| request.uri.path().starts_with(&format!("/model/{MODEL}/invoke"))));
    let result = asked.iter().map(|request| request.json()["messages"].to_string());
    assert!(result.into_iter().any(|messages| messages.contains("tool_result") && messages.contains("toolu_bdrk_1")));
    assert_eq!(gateway.audit().next("inference").await["outcome"], "complete");
}

#[tokio::test]
async fn a_developer_never_notices_that_the_cloud_failed_before_the_first_byte() {
    let gateway = setup().upstream(json!({ "name": "second" })).start().await;
    let client = signed_in(&gateway).await;
    gateway.upstream().answer_otherwise(|_| stream([exception("throttlingException", "Too many tokens").into()]));
    assert_eq!(said(&client.prompt("say hello").await), (Some(0), "Hello there".to_owned()));
    assert_eq!(gateway.audit().next("inference").await["upstream"], "second");
}

#[tokio::test]
async fn a_developer_hears_that_a_prompt_is_too_long_in_the_clients_own_words() {
    let gateway = setup().start().await;
    let client = signed_in(&gateway).await;
    let told = json!({ "message": "Input is too long for requested model." });
    gateway.upstream().answer_otherwise(move |_| Answer::json(400, &told));
    let (status, told) = said(&client.prompt("say hello").await);
    assert_eq!(status, Some(1));
    assert!(told.to_lowercase().contains("too long"), "{told}");
}
