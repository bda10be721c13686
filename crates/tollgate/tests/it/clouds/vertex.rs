//! Google Cloud Vertex AI through a whole gateway.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{PROMPT, google_error, on_vertex, vertex};
use crate::support::cloud::google::Google;
use crate::support::gateway::{Setup, TestGateway};
use crate::support::upstream::{Answer, Gate, Step, message_events};

/// A gateway whose machine has an identity of Google.
async fn on_a_machine(google: &Google, setup: Setup) -> TestGateway {
    let gateway = setup.environment("GCE_METADATA_HOST", &google.metadata_host()).start().await;
    gateway.upstreams().iter().for_each(|upstream| upstream.answer_otherwise(vertex));
    gateway
}

async fn one(google: &Google) -> TestGateway {
    on_a_machine(google, TestGateway::setup().upstream(on_vertex("v", &json!({})))).await
}

#[tokio::test]
async fn a_stream_passes_event_for_event_and_is_settled_with_a_token_that_is_fetched_once() {
    let google = Google::start().await;
    let gateway = one(&google).await;
    for _ in 0..3 {
        let reply = gateway.as_user("alice").messages(PROMPT).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(reply.text(), message_events("claude", &["Hello", " there"], 11, 5).concat());
    }
    let sent = gateway.upstream().request(0).await;
    assert_eq!(
        sent.uri.path(),
        "/v1/projects/p/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-6:streamRawPredict"
    );
    assert_eq!(sent.header("authorization"), Some("Bearer ya29.machine"));
    let expected =
        json!({ "max_tokens": 16, "stream": true, "messages": [], "anthropic_version": "vertex-2023-10-16" });
    assert_eq!(sent.json(), expected);
    assert_eq!(google.server().requests().len(), 1);
    let event = gateway.audit().next("inference").await;
    let seen = (&event["upstream"], &event["outcome"], &event["input_tokens"], &event["output_tokens"]);
    assert_eq!(seen, (&json!("v"), &json!("complete"), &json!(11), &json!(5)));
}

#[tokio::test]
async fn every_form_of_googles_credentials_reaches_vertex() {
    let google = Google::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let environment = |path: PathBuf| Some(path.to_str().unwrap().to_owned());
    let key = google.key_file(at);
    for (auth, named, token) in [
        (json!({ "service_account_json": key }), None, "ya29.service-account"),
        (json!({}), environment(google.key_file(at)), "ya29.service-account"),
        (json!({}), environment(google.person_file(at)), "ya29.person"),
        (json!({}), environment(google.external_file(at)), "ya29.impersonated"),
        (json!({}), environment(google.executable_file(at)), "ya29.impersonated"),
        (json!({}), environment(google.impersonating_file(at)), "ya29.impersonated"),
    ] {
        let mut setup = TestGateway::setup().upstream(on_vertex("v", &auth));
        if let Some(path) = &named {
            setup = setup.environment("GOOGLE_APPLICATION_CREDENTIALS", path);
            setup = setup.environment("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1");
        }
        let gateway = on_a_machine(&google, setup).await;
        let reply = gateway.as_user("alice").messages(PROMPT).await;
        assert_eq!(reply.status, 200, "{token}: {}", reply.text());
        let sent = gateway.upstream().request(0).await;
        assert_eq!(sent.header("authorization"), Some(format!("Bearer {token}").as_str()));
        let quota = (token == "ya29.person").then_some("quota-project");
        assert_eq!(sent.header("x-goog-user-project"), quota);
    }
}

#[tokio::test]
async fn tokens_are_counted_with_the_model_in_the_body() {
    let google = Google::start().await;
    let gateway = one(&google).await;
    let asked = r#"{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"x"}]}"#;
    let reply = gateway.as_user("alice").post("/v1/messages/count_tokens", asked).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({ "input_tokens": 42 })));
    let sent = gateway.upstream().request(0).await;
    assert!(sent.uri.path().ends_with("/models/count-tokens:rawPredict"), "{}", sent.uri);
    assert_eq!(sent.json()["model"], "claude-haiku-4-5@20251001");
}

#[tokio::test]
async fn an_error_is_told_in_words_that_a_client_understands_and_none_of_googles() {
    let google = Google::start().await;
    let gateway = one(&google).await;
    let size = "The request size (31457281 bytes) exceeds 30.000MB limit.";
    let anthropic = "prompt is too long: 210000 tokens > 200000 maximum";
    for (answer, status, kind, message) in [
        (google_error(400, "INVALID_ARGUMENT", size), 400, "invalid_request_error", "Input is too long."),
        (Answer::error(400, "invalid_request_error", anthropic), 400, "invalid_request_error", anthropic),
        (
            google_error(400, "FAILED_PRECONDITION", "project 12345"),
            400,
            "invalid_request_error",
            "upstream rejected the request",
        ),
        (
            google_error(429, "RESOURCE_EXHAUSTED", "Quota of project 12345"),
            429,
            "rate_limit_error",
            "the upstream is rate limiting; try again later",
        ),
        (
            google_error(404, "NOT_FOUND", "Publisher Model of project 12345"),
            404,
            "not_found_error",
            "the upstream has no such model",
        ),
    ] {
        gateway.upstream().answer(answer);
        let reply = gateway.as_user("alice").messages(PROMPT).await;
        let error = reply.json();
        assert_eq!((reply.status.as_u16(), &error["error"]["type"]), (status, &json!(kind)), "{error}");
        assert_eq!(error["error"]["message"], message);
        assert_eq!(error["request_id"].as_str(), reply.header("x-request-id"));
    }
}

#[tokio::test]
async fn a_second_upstream_takes_over_before_the_first_byte() {
    let google = Google::start().await;
    let setup = TestGateway::setup().upstream(on_vertex("a", &json!({}))).upstream(on_vertex("b", &json!({})));
    let gateway = on_a_machine(&google, setup).await;
    let broken = Answer::stream([]).header("content-type", "text/html");
    for failing in [
        google_error(429, "RESOURCE_EXHAUSTED", "quota"),
        google_error(503, "UNAVAILABLE", "down"),
        Answer::none(),
        broken,
    ] {
        gateway.upstream().answer(failing);
        let reply = gateway.as_user("alice").messages(PROMPT).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(gateway.audit().next("inference").await["upstream"], "b");
    }
}

#[tokio::test]
async fn without_a_token_the_next_upstream_is_asked_and_the_first_is_not_bothered() {
    let google = Google::start().await;
    google.server().answer_otherwise(|_| Answer::new(404, "text/html", "no default service account"));
    let next = json!({ "name": "b" });
    let gateway = on_a_machine(&google, TestGateway::setup().upstream(on_vertex("a", &json!({}))).upstream(next)).await;
    let reply = gateway.as_user("alice").messages(PROMPT).await;
    assert_eq!(reply.status, 200);
    assert_eq!(gateway.audit().next("inference").await["upstream"], "b");
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_of_ours() {
    let google = Google::start().await;
    let gateway = one(&google).await;
    let events = message_events("claude", &["Hello"], 11, 5);
    let gate = Gate::closed();
    let steps = events[..4].iter().cloned().map(Step::from).chain([gate.step()]);
    gateway.upstream().answer(Answer::stream(steps).then_reset());
    let mut stream = gateway.as_user("alice").stream(PROMPT).await.unwrap();
    let mut text = String::new();
    while text.len() < events[..4].concat().len() {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(text, events[..4].concat());
    gate.open();
    let rest = stream.rest().await.unwrap();
    let text = std::str::from_utf8(&rest).unwrap();
    let last: Value = serde_json::from_str(text.rsplit_once("data: ").unwrap().1).unwrap();
    assert_eq!((&last["error"]["type"], &last["error"]["message"]), (&json!("api_error"), &json!("upstream error")));
    let event = gateway.audit().next("inference").await;
    assert_eq!(event["outcome"], "upstream_aborted");
}

#[tokio::test]
async fn a_file_that_cannot_work_stops_the_start_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    std::fs::write(&file, r#"{"type":"service_account","private_key":"s3cret","client_email":"e"}"#).unwrap();
    let setup = TestGateway::setup().upstream(on_vertex("v", &json!({})));
    let (status, log) = setup.environment("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap()).refuse().await;
    assert_eq!(status.code(), Some(1));
    let wanted = "GOOGLE_APPLICATION_CREDENTIALS: ";
    assert!(log.contains(wanted) && log.contains("private_key is not an RSA key in PEM form"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
    std::fs::write(&file, r#"{"type":"gdch_service_account","private_key":"s3cret"}"#).unwrap();
    let setup = TestGateway::setup().upstream(on_vertex("v", &json!({})));
    let (status, log) = setup.environment("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap()).refuse().await;
    assert_eq!(status.code(), Some(1));
    let wanted = format!("{}: credentials of the type gdch_service_account are not supported; use ", file.display());
    assert!(log.contains(&wanted) && !log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn without_any_credential_the_log_names_the_upstream_and_every_way_to_have_one() {
    let setup = TestGateway::setup().upstream(on_vertex("v", &json!({})));
    let mut gateway = setup.environment("GCE_METADATA_HOST", "127.0.0.1:1").start_process().await;
    assert_eq!(gateway.as_user("alice").messages(PROMPT).await.status, 502);
    let line = gateway.process().line("no credentials").await;
    for part in
        ["upstream=v", "GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth application-default login", "127.0.0.1:1/"]
    {
        assert!(line.contains(part), "{line}");
    }
}
