//! The stock Claude Code client, unmodified, with its models on clouds.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{google_error, on_vertex};
use crate::support::client::StockClient;
use crate::support::cloud::azure::{self, Azure};
use crate::support::cloud::google::Google;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::http::Visitor;
use crate::support::idp::{Account, RefreshTokens};
use crate::support::upstream::{Answer, Received, Step, event, message_events};

const MODEL: &str = "claude-sonnet-4-6";

/// A gateway in front of these upstreams, with a client that is signed in.
async fn with_client(setup: Setup, upstreams: Vec<Value>) -> (TestGateway, StockClient) {
    let alice = Account::new("alice").email("alice@example.com");
    let setup = upstreams.into_iter().fold(setup, Setup::upstream);
    let gateway = setup.people(RefreshTokens::Rotated, &[alice]).start().await;
    let url = gateway.url();
    let client = StockClient::sign_in(url, async |code| {
        let page = Visitor::new().sign_in(&format!("{url}/device?user_code={code}"), "alice").await;
        assert_eq!(page.reply.status, 200, "{}", page.reply.text());
    })
    .await;
    (gateway, client)
}

/// Whether the request is the conversation itself, and not one of the client's small ones beside it.
fn is_conversation(request: &Received) -> bool {
    request.json()["tools"].as_array().is_some_and(|tools| !tools.is_empty())
}

/// The conversation of a model that runs one command and then says what it saw.
fn working(request: &Received) -> Answer {
    let path = request.uri.path();
    let body = request.json();
    if path.contains("count") {
        return Answer::json(200, &json!({ "input_tokens": 42 }));
    }
    let said = |text: &str| {
        if body["stream"] == true {
            return Answer::stream(message_events(MODEL, &[text], 11, 5).into_iter().map(Step::from));
        }
        Answer::message(MODEL, text, 11, 5)
    };
    let last = body["messages"].as_array().and_then(|messages| messages.last()).unwrap_or(&Value::Null);
    let result = last["content"].as_array().into_iter().flatten().find(|block| block["type"] == "tool_result");
    match result {
        // Below the command's words the client writes some of its own.
        Some(result) => said(&format!("saw {}", text_of(&result["content"]).lines().next().unwrap_or_default())),
        None if is_conversation(request) => Answer::stream(uses_bash().into_iter().map(Step::from)),
        None => said("Hello"),
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        _ => content[0]["text"].as_str().unwrap_or_default().to_owned(),
    }
}

/// The events of an answer that wants a command run.
fn uses_bash() -> Vec<String> {
    let mut events = message_events(MODEL, &[], 11, 5);
    let tool = json!({ "type": "tool_use", "id": "toolu_01", "name": "Bash", "input": {} });
    let input = json!({ "command": "echo of-the-tool", "description": "says it" }).to_string();
    let (first, second) = input.split_at(10);
    let delta = |part: &str| {
        let delta = json!({ "type": "input_json_delta", "partial_json": part });
        event(&json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
    };
    events[1] = event(&json!({ "type": "content_block_start", "index": 0, "content_block": tool }));
    events.splice(3..3, [delta(first), delta(second)]);
    let stop = json!({ "stop_reason": "tool_use", "stop_sequence": null });
    let at = events.len() - 2;
    events[at] = event(&json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": 5 } }));
    events
}

/// The client streams and runs a tool.
async fn works_with_a_tool(client: &StockClient) {
    let run = client.run(&["--model", MODEL, "--allowedTools", "Bash(echo:*)", "-p", "run it"]).await;
    let said = String::from_utf8_lossy(&run.stdout).trim().to_owned();
    assert_eq!((run.status.code(), said.as_str()), (Some(0), "saw of-the-tool"), "{run:?}");
}

#[tokio::test]
async fn on_vertex_it_streams_uses_tools_and_survives_a_failing_upstream() {
    let google = Google::start().await;
    let setup = TestGateway::setup().environment("GCE_METADATA_HOST", &google.metadata_host());
    let upstreams = vec![on_vertex("a", &json!({})), on_vertex("b", &json!({}))];
    let (gateway, client) = with_client(setup, upstreams).await;
    gateway.upstreams().iter().for_each(|upstream| upstream.answer_otherwise(working));
    works_with_a_tool(&client).await;
    let first = &gateway.upstreams()[0];
    let asked = first.requests();
    assert!(asked.iter().all(|request| request.uri.path().contains("/publishers/anthropic/models/")));
    assert!(asked.iter().any(|request| request.uri.path().ends_with(":streamRawPredict")));

    // From here on the first one fails before the first byte, and nobody notices.
    first.answer_otherwise(|_| google_error(503, "UNAVAILABLE", "down"));
    works_with_a_tool(&client).await;
    assert!(!gateway.upstreams()[1].requests().is_empty());
}

#[tokio::test]
async fn on_foundry_it_streams_and_uses_tools() {
    let azure = Azure::start().await;
    let foundry = json!({
        "provider": "foundry", "resource": "ab", "path": "/anthropic", "auth": { "use_azure_ad": true, "api_key": null },
    });
    let setup = TestGateway::setup()
        .environment("IDENTITY_ENDPOINT", &format!("{}/msi/token", azure.url()))
        .environment("IDENTITY_HEADER", azure::IDENTITY_HEADER);
    let (gateway, client) = with_client(setup, vec![foundry]).await;
    gateway.upstream().answer_otherwise(working);
    works_with_a_tool(&client).await;
    assert_eq!(gateway.upstream().request(0).await.header("authorization"), Some("Bearer entra-app-service"));
}

#[tokio::test]
async fn on_claude_platform_on_google_cloud_it_streams_and_uses_tools() {
    let google = Google::start().await;
    let platform = json!({
        "provider": "anthropicGoogleCloud", "project_id": "p", "workspace_id": "wrkspc_1", "auth": { "api_key": null },
    });
    let setup = TestGateway::setup().environment("GCE_METADATA_HOST", &google.metadata_host());
    let (gateway, client) = with_client(setup, vec![platform]).await;
    gateway.upstream().answer_otherwise(working);
    works_with_a_tool(&client).await;
}

#[tokio::test]
async fn on_vertex_it_counts_its_context_and_compacts_a_prompt_that_is_too_long() {
    let google = Google::start().await;
    let setup = TestGateway::setup().environment("GCE_METADATA_HOST", &google.metadata_host());
    let (gateway, client) = with_client(setup, vec![on_vertex("a", &json!({}))]).await;
    let vertex = gateway.upstream();
    vertex.answer_otherwise(working);
    let context = client.run(&["--model", MODEL, "-p", "/context"]).await;
    let shown = String::from_utf8_lossy(&context.stdout).into_owned();
    assert!(shown.contains("| Messages | 42 |"), "{context:?}");
    let counted = vertex.requests();
    assert!(
        !counted.is_empty() && counted.iter().all(|request| request.uri.path().ends_with("/count-tokens:rawPredict"))
    );

    works_with_a_tool(&client).await;
    let before = vertex.requests().len();
    let is_told = AtomicBool::new(false);
    vertex.answer_otherwise(move |request| {
        if is_conversation(request) && !is_told.swap(true, Ordering::Relaxed) {
            return google_error(400, "INVALID_ARGUMENT", "The request size (31457281 bytes) exceeds 30.000MB limit.");
        }
        working(request)
    });
    let run = client.run(&["--model", MODEL, "--allowedTools", "Bash(echo:*)", "--continue", "-p", "and more"]).await;
    let said = String::from_utf8_lossy(&run.stdout).trim().to_owned();
    assert_eq!((run.status.code(), said.as_str()), (Some(0), "saw of-the-tool"), "{run:?}");
    let asked: Vec<_> = vertex.requests()[before..].iter().map(last_message).collect();
    assert!(asked[0].contains("and more"), "{asked:?}");
    assert!(asked[1..].iter().any(|last| last.contains("summary")), "nothing was compacted: {asked:?}");
}

fn last_message(request: &Received) -> String {
    request.json()["messages"].as_array().and_then(|messages| messages.last()).unwrap().to_string()
}
