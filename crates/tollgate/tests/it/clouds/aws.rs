//! Credentials on Amazon, and the two services there that speak Anthropic's format.

use serde_json::{Value, json};

use super::{bedrock, prompt};
use crate::support::cloud::aws::{KEYS, Keys, TEMPORARY, check, refused, sts};
use crate::support::cloud::bedrock::signed;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::upstream::{Answer, Gate, Step, Upstream, message_events};

/// A gateway in a process of its own, whose environment names no credentials of this machine.
pub(super) fn setup(entry: Value) -> Setup {
    TestGateway::setup()
        .upstream(entry)
        .environment("AWS_CONFIG_FILE", "/dev/null")
        .environment("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
}

pub(super) async fn served(gateway: &TestGateway, sub: &str) {
    let reply = gateway.as_user(sub).post("/v1/messages", prompt(true).to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_role_is_assumed_once_for_each_developer() {
    let tokens = Upstream::start().await;
    tokens.answer_otherwise(sts(KEYS, "us-east-1"));
    let arn = "arn:aws:iam::111122223333:role/tollgate";
    let role = json!({ "role_arn": arn, "external_id": "ext 7", "session_name": "email" });
    let setup = setup(bedrock(&json!({ "assume_role": role }))).environment("AWS_ENDPOINT_URL_STS", &tokens.url());
    let gateway = setup.start_process().await;
    gateway.upstream().answer_otherwise(signed(TEMPORARY, "us-east-1"));
    for sub in ["alice", "bob", "alice"] {
        served(&gateway, sub).await;
    }
    let asked: Vec<String> =
        tokens.requests().iter().map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(
        asked[0].contains("Action=AssumeRole") && asked[0].contains("RoleSessionName=alice%40example.com"),
        "{asked:?}"
    );
    assert!(
        asked[0].contains("ExternalId=ext%207") && asked[1].contains("RoleSessionName=bob%40example.com"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_role_that_is_refused_fails_the_attempt_and_the_log_says_why() {
    let tokens = Upstream::start().await;
    let denied = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized</Message></Error></ErrorResponse>";
    tokens.answer_otherwise(move |_| Answer::new(403, "text/xml", denied));
    let role = json!({ "role_arn": "arn:aws:iam::111122223333:role/tollgate" });
    let entry = bedrock(&json!({ "assume_role": role }));
    let setup = setup(entry).upstream(json!({ "name": "second" })).environment("AWS_ENDPOINT_URL_STS", &tokens.url());
    let mut gateway = setup.start_process().await;
    served(&gateway, "alice").await;
    // The base credentials are not used in place of the role.
    assert!(gateway.upstream().requests().is_empty());
    let line = gateway.process().line("no credentials").await;
    assert!(
        line.contains("AccessDenied") && line.contains("upstream=cloud") && line.contains(":role/tollgate"),
        "{line}"
    );
}

#[tokio::test]
async fn mantle_is_signed_for_and_gets_anthropics_body_without_tags() {
    let auth = json!({ "api_key": null, "aws_access_key_id": KEYS.id, "aws_secret_access_key": KEYS.secret });
    let entry = json!({
        "name": "mantle", "provider": "mantle", "region": "us-east-1", "models": ["claude-sonnet-5"], "auth": auth,
        "path": "/anthropic",
    });
    let gateway = TestGateway::setup().upstream(entry).start().await;
    gateway.upstream().answer_otherwise(anthropic_format(KEYS, "bedrock-mantle"));
    let alice = gateway
        .as_user("alice")
        .header("anthropic-beta", "request-tags-2026-08-21, b-1")
        .header("anthropic-version", "2023-06-01");
    let body = r#"{"model":"claude-sonnet-5","tags":{"a":"b"},"stream":true, "max_tokens":1,"messages":[]}"#;
    let reply = alice.post("/v1/messages?beta=true", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.text().ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{}", reply.text());
    let sent = gateway.upstream().request(0).await;
    assert_eq!(sent.uri, "/anthropic/v1/messages");
    assert_eq!(sent.body, r#"{"model":"anthropic.claude-sonnet-5","stream":true, "max_tokens":1,"messages":[]}"#);
    assert_eq!((sent.header("anthropic-beta"), sent.header("anthropic-version")), (Some("b-1"), Some("2023-06-01")));
    let reply = alice.post("/v1/messages/count_tokens", body).await;
    assert_eq!((reply.status.as_u16(), reply.json()["input_tokens"].clone()), (200, json!(11)));
    // It serves what its list names, and nothing else.
    let other = body.replace("claude-sonnet-5", "claude-haiku-4-5");
    assert_eq!(alice.post("/v1/messages", other).await.status, 400);
}

#[tokio::test]
async fn the_platform_on_aws_is_told_the_workspace_and_shown_a_key_or_a_signature() {
    let entry = |auth: Value| json!({ "name": "platform", "provider": "anthropicAws", "region": "us-west-2", "workspace_id": "wrkspc_1", "auth": auth });
    let keys = json!({ "api_key": null, "aws_access_key_id": KEYS.id, "aws_secret_access_key": KEYS.secret });
    let gateway = TestGateway::setup().upstream(entry(keys)).start().await;
    gateway.upstream().answer_otherwise(|received| {
        match check(received, &KEYS, "us-west-2", "aws-external-anthropic") {
            Ok(()) => Answer::message("claude-sonnet-4-6", "hi", 1, 1),
            Err(why) => refused(&why),
        }
    });
    let body = r#"{"model":"claude-sonnet-4-6","tags":{"a":"b"},"messages":[],"max_tokens":1}"#;
    let reply = gateway.as_user("alice").post("/v1/messages", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let sent = gateway.upstream().request(0).await;
    assert_eq!((sent.header("anthropic-workspace-id"), &sent.body[..]), (Some("wrkspc_1"), body.as_bytes()));

    let gateway = TestGateway::setup().upstream(entry(json!({ "api_key": "sk-platform" }))).start().await;
    assert_eq!(gateway.as_user("alice").post("/v1/messages", body).await.status, 200);
    let sent = gateway.upstream().request(0).await;
    assert_eq!((sent.header("x-api-key"), sent.header("authorization")), (Some("sk-platform"), None));
}

#[tokio::test]
async fn a_cut_within_an_event_of_anthropics_format_ends_with_an_error_event_of_its_own() {
    let entry = json!({ "name": "platform", "provider": "anthropicAws", "region": "us-west-2", "workspace_id": "w" });
    let gateway = TestGateway::setup().upstream(entry).start().await;
    let start = message_events("claude-sonnet-4-6", &[], 11, 5).remove(0);
    let half = format!("{start}event: content_block_delta\ndata: {{\"type\":\"cont");
    let gate = Gate::closed();
    gateway.upstream().answer(Answer::stream([Step::from(half), gate.step()]).then_reset());
    let mut streamed = gateway.as_user("alice").stream(prompt(true).to_string()).await.unwrap();
    assert_eq!(streamed.next().await.unwrap().unwrap(), start);
    gate.open();
    let rest = streamed.rest().await.unwrap();
    assert!(rest.starts_with(b"event: error\ndata: {\"type\":\"error\",") && rest.ends_with(b"}}\n\n"), "{rest:?}");
    assert_eq!(gateway.audit().next("inference").await["outcome"], "upstream_aborted");
}

/// Anthropic's format behind Amazon's signature.
fn anthropic_format(keys: Keys, service: &'static str) -> impl Fn(&crate::support::upstream::Received) -> Answer {
    move |received| match check(received, &keys, "us-east-1", service) {
        Err(why) => refused(&why),
        Ok(()) if received.uri.path().ends_with("/count_tokens") => Answer::json(200, &json!({ "input_tokens": 11 })),
        Ok(()) => {
            Answer::stream(message_events("claude-sonnet-5", &["Hello", " there"], 11, 5).into_iter().map(Step::from))
        }
    }
}
