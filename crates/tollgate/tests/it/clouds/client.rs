//! The stock client, unmodified, in front of a cloud: it cannot tell.

use serde_json::{Value, json};

use super::bedrock;
use crate::stock_client::{said, signed_in};
use crate::support::cloud::aws::{KEYS, check, refused};
use crate::support::cloud::bedrock::{chunk, exception, signed, stream};
use crate::support::gateway::{Setup, TestGateway};
use crate::support::idp::{Account, RefreshTokens};
use crate::support::upstream::{Answer, Step, message_events};

const MODEL: &str = "us.anthropic.claude-sonnet-4-6";

fn setup() -> Setup {
    setup_with("claude-sonnet-4-6", bedrock(&json!({})))
}

/// Everybody works with the model, which this upstream serves.
fn setup_with(model: &str, entry: Value) -> Setup {
    let cli = json!({ "model": model });
    let policies = json!({ "managed": { "policies": [{ "match": {}, "cli": cli }] } });
    let alice = Account::new("alice").email("alice@example.com");
    TestGateway::setup().people(RefreshTokens::Rotated, &[alice]).config(policies).upstream(entry)
}

/// An answer that calls a tool, in Bedrock's frames.
fn calls(tool: &str, input: &Value) -> Answer {
    stream(call(tool, input).iter().map(|event| Step::from(chunk(&event.to_string()))))
}

/// An answer that calls a tool, in Anthropic's format.
fn calls_in_anthropics_format(tool: &str, input: &Value) -> Answer {
    let framed = |event: &Value| Step::from(format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()));
    Answer::stream(call(tool, input).iter().map(framed))
}

/// The events of an answer that calls a tool.
fn call(tool: &str, input: &Value) -> [Value; 6] {
    let usage = json!({ "input_tokens": 11, "output_tokens": 1 });
    let message = json!({
        "id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    let block = json!({ "type": "tool_use", "id": "toolu_bdrk_1", "name": tool, "input": {} });
    let delta = json!({ "type": "input_json_delta", "partial_json": input.to_string() });
    [
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": { "output_tokens": 9 } }),
        json!({ "type": "message_stop" }),
    ]
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

/// The client uses a tool through an upstream of Anthropic's format, signed for the service.
async fn works_with_tools(
    model: &'static str,
    entry: Value,
    region: &'static str,
    service: &'static str,
) -> TestGateway {
    let gateway = setup_with(model, entry).start().await;
    let client = signed_in(&gateway).await;
    gateway.upstream().answer_otherwise(move |received| {
        if let Err(why) = check(received, &KEYS, region, service) {
            return refused(&why);
        }
        if received.json()["messages"].to_string().contains("tool_result") {
            return Answer::stream(message_events(model, &["Hello", " there"], 11, 5).into_iter().map(Step::from));
        }
        calls_in_anthropics_format("Read", &json!({ "file_path": "/nowhere/at-all" }))
    });
    assert_eq!(said(&client.prompt("read it").await), (Some(0), "Hello there".to_owned()));
    assert_eq!(gateway.audit().next("inference").await["outcome"], "complete");
    gateway
}

#[tokio::test]
async fn a_developer_works_with_tools_through_mantle() {
    let auth = json!({ "api_key": null, "aws_access_key_id": KEYS.id, "aws_secret_access_key": KEYS.secret });
    let entry = json!({
        "name": "mantle", "provider": "mantle", "region": "us-east-1", "models": ["claude-sonnet-5"], "auth": auth,
    });
    let gateway = works_with_tools("claude-sonnet-5", entry, "us-east-1", "bedrock-mantle").await;
    let asked = gateway.upstream().requests();
    assert!(asked.iter().all(|request| request.json()["model"] == "anthropic.claude-sonnet-5"));
}

#[tokio::test]
async fn a_developer_works_with_tools_through_the_platform_on_aws() {
    let auth = json!({ "api_key": null, "aws_access_key_id": KEYS.id, "aws_secret_access_key": KEYS.secret });
    let entry = json!({
        "name": "platform", "provider": "anthropicAws", "region": "us-west-2", "workspace_id": "wrkspc_1", "auth": auth,
    });
    let gateway = works_with_tools("claude-sonnet-4-6", entry, "us-west-2", "aws-external-anthropic").await;
    let asked = gateway.upstream().requests();
    assert!(asked.iter().all(|request| request.header("anthropic-workspace-id") == Some("wrkspc_1")));
}

#[tokio::test]
async fn a_developer_sees_the_context_as_bedrock_counts_it() {
    let gateway = setup().start().await;
    let client = signed_in(&gateway).await;
    gateway.upstream().answer_otherwise(signed(KEYS, "us-east-1"));
    let (status, told) = said(&client.prompt("/context").await);
    assert_eq!(status, Some(0));
    // The count that the cloud gives.
    assert!(told.contains("| Messages | 42 |"), "{told}");
    let asked = gateway.upstream().requests();
    assert!(
        !asked.is_empty() && asked.iter().all(|request| request.uri.path().ends_with("/count-tokens")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_conversation_that_became_too_long_for_bedrock_is_compacted_and_goes_on() {
    let gateway = setup().start().await;
    let client = signed_in(&gateway).await;
    gateway.upstream().answer_otherwise(signed(KEYS, "us-east-1"));
    for arguments in [&["-p", "count the apples"][..], &["-c", "-p", "count the pears"]] {
        assert_eq!(said(&client.run(arguments).await), (Some(0), "Hello there".to_owned()));
    }
    let before = gateway.upstream().requests().len();
    gateway.upstream().answer(Answer::json(400, &json!({ "message": "Input is too long for requested model." })));
    let summary = message_events(MODEL, &["<summary>Fruit was counted.</summary>"], 11, 5);
    gateway.upstream().answer(stream(summary.iter().map(|event| chunk(event).into())));
    assert_eq!(said(&client.run(&["-c", "-p", "count the plums"]).await), (Some(0), "Hello there".to_owned()));

    let asked = gateway.upstream().requests();
    let messages: Vec<String> = asked[before..].iter().map(|request| request.json()["messages"].to_string()).collect();
    let [too_long, summarize, goes_on] = messages.as_slice() else { panic!("{} requests", messages.len()) };
    assert!(too_long.contains("count the apples") && too_long.contains("count the plums"), "{too_long}");
    assert!(summarize.contains("count the apples") && summarize.contains("<summary>"), "{summarize}");
    assert!(goes_on.contains("Fruit was counted.") && goes_on.contains("count the plums"), "{goes_on}");
    assert!(!goes_on.contains("count the apples"), "{goes_on}");
}
