//! The stock Claude Code client, unmodified, against a whole gateway: what a developer sees of it.

use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use control::clock::{Clock, SystemClock, TestClock};
use serde_json::json;

use crate::support::client::StockClient;
use crate::support::gateway::TestGateway;
use crate::support::http::Visitor;
use crate::support::idp::{Account, RefreshTokens};
use crate::support::upstream::{Answer, Step, message_events};

const MODEL: &str = "claude-sonnet-4-6";

pub(crate) async fn signed_in(gateway: &TestGateway) -> StockClient {
    signed_in_as(gateway, "alice").await
}

async fn signed_in_as(gateway: &TestGateway, name: &str) -> StockClient {
    let url = gateway.url();
    StockClient::sign_in(url, async |code| {
        let page = Visitor::new().sign_in(&format!("{url}/device?user_code={code}"), name).await;
        assert_eq!(page.reply.status, 200, "{}", page.reply.text());
    })
    .await
}

#[tokio::test]
async fn a_developer_signs_in_works_under_policy_and_hears_of_its_limits() {
    let policy = json!({ "match": { "groups": ["eng"] }, "cli": {
        "model": MODEL,
        "availableModels": [MODEL, "claude-haiku-4-5"],
        "permissions": { "deny": ["Write"] },
        "env": { "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "4321" },
    } });
    let alice = Account::new("alice").email("alice@example.com").groups(&["eng"]);
    let gateway = TestGateway::setup()
        .people(RefreshTokens::Rotated, &[alice])
        .config(
            json!({ "managed": { "policies": [policy] }, "admin": { "blocked_message": "ask at https://go/limits" } }),
        )
        .start()
        .await;
    let client = signed_in(&gateway).await;
    assert_eq!(said(&client.prompt("say hello").await), (Some(0), "Hello there".to_owned()));
    let asked = gateway.upstream().request(0).await.json();
    assert_eq!((&asked["model"], &asked["stream"]), (&json!(MODEL), &json!(true)));
    // The settings arrived and are obeyed: an environment variable, and a tool that is not there to be used.
    assert_eq!(asked["max_tokens"], 4321);
    let tools: Vec<&str> =
        asked["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(tools.contains(&"Edit") && !tools.contains(&"Write"), "{tools:?}");
    let event = gateway.audit().next("inference").await;
    assert_eq!((&event["sub"], &event["outcome"]), (&json!("alice"), &json!("complete")));
    assert!(event["session_id"].is_string(), "{event}");
    assert_eq!(gateway.audit().next("device.authorize").await["surface"], "claude_code");

    let (status, told) = said(&client.run(&["--model", "claude-opus-4-8", "-p", "say hello"]).await);
    assert_eq!(status, Some(1));
    assert!(told.contains("is not in your role's availableModels allowlist"), "{told}");
    gateway.cap("alice", 0).await;
    let (status, told) = said(&client.prompt("say hello").await);
    assert_eq!(status, Some(1));
    assert!(told.starts_with("spend limit reached") && told.ends_with("ask at https://go/limits"), "{told}");
    assert_eq!(gateway.upstream().requests().len(), 1);

    let kept = fs::read_to_string(client.home().join(".claude/.credentials.json")).unwrap();
    for token in gateway.idp().issued().await {
        assert!(!kept.contains(&token), "the developer's machine holds a token of the provider");
    }
}

#[tokio::test]
async fn a_session_is_refreshed_silently_and_its_end_is_noticed_at_the_next_request() {
    let alice = Account::new("alice").email("alice@example.com");
    // So short that the client asks for a new bearer before its first request.
    let short = json!({ "session": { "ttl_hours": 0.01 } });
    let gateway = TestGateway::setup().people(RefreshTokens::Rotated, &[alice]).config(short).start().await;
    let (one, other) = (signed_in(&gateway).await, signed_in(&gateway).await);
    assert_eq!(said(&one.prompt("say hello").await), (Some(0), "Hello there".to_owned()));
    assert_eq!(gateway.audit().next("session.refresh").await["result"], "success");

    // Signing out ends this session and no other.
    assert_eq!(one.run(&["auth", "logout"]).await.status.code(), Some(0));
    let end = gateway.audit().next("session.end").await;
    assert_eq!((&end["reason"], &end["sub"]), (&json!("signed_out"), &json!("alice")));
    assert_eq!(said(&other.prompt("say hello").await), (Some(0), "Hello there".to_owned()));

    let revoked = gateway.admin().post("/v1/organizations/sessions/revoke", r#"{"user_id": "alice"}"#).await;
    assert_eq!(revoked.json()["ended"], 1);
    let refused = other.prompt("say hello").await;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("/login"), "{refused:?}");
}

#[tokio::test]
async fn terminals_that_refresh_at_once_go_on_and_a_disabled_account_is_asked_to_sign_in_again() {
    let alice = Account::new("alice").email("alice@example.com");
    // As above: every prompt begins with a refresh.
    let short = json!({ "session": { "ttl_hours": 0.01 } });
    let clock = Arc::new(TestClock::at(SystemClock.now()));
    let gateway = TestGateway::setup().people(RefreshTokens::Rotated, &[alice]).config(short);
    let gateway = gateway.clock(Arc::clone(&clock) as _).start().await;
    let client = signed_in(&gateway).await;
    for _ in 0..2 {
        let terminals = futures_util::future::join_all((0..3).map(|_| client.prompt("say hello"))).await;
        for terminal in &terminals {
            assert_eq!(said(terminal), (Some(0), "Hello there".to_owned()), "{terminal:?}");
        }
    }
    let refreshes = gateway.audit().waiting("session.refresh");
    assert!(refreshes.len() >= 2 && refreshes.iter().all(|event| event["result"] == "success"), "{refreshes:#?}");
    assert!(gateway.audit().waiting("session.reuse").is_empty() && gateway.audit().waiting("session.end").is_empty());

    // The bearer that the client still has lives on to its end.
    gateway.idp().disable("alice").await;
    assert_eq!(said(&client.prompt("say hello").await), (Some(0), "Hello there".to_owned()));
    clock.advance(Duration::from_secs(36));
    let refused = client.prompt("say hello").await;
    assert_eq!(refused.status.code(), Some(1));
    let told = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    assert!(told.contains("/login"), "{refused:?}");
    let asked = gateway.audit().waiting("session.refresh").pop().unwrap();
    assert_eq!((&asked["result"], &asked["answer"]), (&json!("fail"), &json!("invalid_grant")));
}

#[tokio::test]
async fn a_developer_sees_the_notice_at_75_and_95_percent_and_the_dollars() {
    let alice = Account::new("alice").email("alice@example.com");
    let gateway = TestGateway::setup().people(RefreshTokens::Rotated, &[alice]).start().await;
    let client = signed_in(&gateway).await;
    gateway.cap("alice", 1_000).await;
    for (output_tokens, notice, dollars) in [
        // At $15 a million: $8.00, then $9.60.
        (533_334, "You've used 80% ", "$8.00 / $10.00 spent"),
        (106_667, "You've used 96% ", "$9.60 / $10.00 spent"),
    ] {
        gateway.upstream().answer_otherwise(move |_| Answer::message(MODEL, "hi", 0, output_tokens));
        let spent = gateway.as_user("alice").messages(json!({ "model": MODEL, "messages": [] }).to_string()).await;
        assert_eq!(spent.status, 200, "{}", spent.text());
        gateway
            .upstream()
            .answer_otherwise(|_| Answer::stream(message_events(MODEL, &["Hello"], 0, 0).into_iter().map(Step::from)));
        let shown = client.usage(notice).await;
        assert!(shown.contains(dollars), "{shown}");
    }
}

#[tokio::test]
async fn an_engineer_and_a_contractor_live_under_different_policies_and_a_new_one_at_the_next_start() {
    let policies = |limit: &str| {
        json!({ "managed": { "policies": [
            { "match": { "groups": ["contractors"] }, "cli": {
                "model": "claude-haiku-4-5", "availableModels": ["haiku"], "permissions": { "deny": ["Write"] },
                "env": { "CLAUDE_CODE_MAX_OUTPUT_TOKENS": limit },
            } },
            { "match": {}, "cli": {
                "model": MODEL, "permissions": { "deny": ["NotebookEdit"] },
                "env": { "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "4321" },
            } },
        ] } })
    };
    let ann = Account::new("ann").email("ann@example.com").groups(&["eng"]);
    let carl = Account::new("carl").email("carl@example.com").groups(&["contractors"]);
    let mut gateway =
        TestGateway::setup().people(RefreshTokens::Rotated, &[ann, carl]).config(policies("1111")).start().await;
    let engineer = signed_in_as(&gateway, "ann").await;
    let contractor = signed_in_as(&gateway, "carl").await;

    assert_eq!(said(&engineer.prompt("say hello").await).0, Some(0));
    assert_eq!(
        asked(&gateway).await,
        json!({ "model": MODEL, "max_tokens": 4321, "Write": true, "NotebookEdit": false })
    );
    assert_eq!(said(&contractor.prompt("say hello").await).0, Some(0));
    let of_contractors =
        json!({ "model": "claude-haiku-4-5-20251001", "max_tokens": 1111, "Write": false, "NotebookEdit": false });
    assert_eq!(asked(&gateway).await, of_contractors);

    // What a client has is not sent again; a policy that changed is, as soon as the gateway knows it and the client starts.
    drop(gateway.audit().take("managed.serve", gateway.audit().waiting("managed.serve").len()).await);
    assert_eq!(said(&contractor.prompt("say hello").await).0, Some(0));
    let polled = gateway.audit().next("managed.serve").await;
    assert_eq!((&polled["sub"], &polled["unchanged"]), (&json!("carl"), &json!(true)));
    gateway.restart_with(policies("2222")).await;
    assert_eq!(said(&contractor.prompt("say hello").await).0, Some(0));
    assert_eq!(asked(&gateway).await["max_tokens"], 2222);

    let (status, told) = said(&contractor.run(&["--model", "claude-opus-4-8", "-p", "say hello"]).await);
    assert_eq!(status, Some(1));
    assert!(told.contains("is not in your role's availableModels allowlist"), "{told}");
}

/// What the client asked for last, and which of two tools it has.
async fn asked(gateway: &TestGateway) -> serde_json::Value {
    let last = gateway.upstream().requests().len() - 1;
    let asked = gateway.upstream().request(last).await.json();
    let has = |name: &str| asked["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == name);
    json!({
        "model": asked["model"], "max_tokens": asked["max_tokens"], "Write": has("Write"), "NotebookEdit": has("NotebookEdit"),
    })
}

/// Exit status and last words.
pub(crate) fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
