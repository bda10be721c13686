//! `/v1/messages` and `/v1/messages/count_tokens`: what reaches the upstream, what comes back, and what is refused.

use bytes::Bytes;
use hyper::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::gateway::TestGateway;
use crate::support::upstream::{Answer, Fate, Gate, Step, event, message_events};

mod refusals;

/// What the upstreams call the model themselves, so that nothing has to be changed.
const DATED: &str = "claude-haiku-4-5-20251001";

fn prompt(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 16, "messages": [{ "role": "user", "content": "hello" }] })
}

fn streamed(model: &str) -> Value {
    let mut prompt = prompt(model);
    prompt["stream"] = true.into();
    prompt
}

#[tokio::test]
async fn a_body_reaches_the_upstream_byte_for_byte() {
    let gateway = TestGateway::start().await;
    let alice = gateway.as_user("alice");
    gateway.upstream().answer_otherwise(|_| Answer::message(DATED, "hi", 1, 1));
    let large = format!(r#"{{"model":"{DATED}","messages":"{}"}}"#, "ü€𝄞\\u0000".repeat(500_000));
    assert!(large.len() > 5_000_000);
    let mut not_utf8 = format!(r#"{{"model":"{DATED}","x":""#).into_bytes();
    not_utf8.extend_from_slice(b"\xff\xfe\"}");
    let bodies: [Bytes; 6] = [
        format!(r#"{{"model":"{DATED}","max_tokens":16}}"#).into(),
        format!("\r\n\t {{ \"zeta\" : [ 1.0e+2 , -0.0 ,12345678901234567890 ] , \"model\"  :\n \"{DATED}\" }} \n")
            .into(),
        format!(r#"{{"a\u002fb":"\/\ud834\udd1e","model":"{DATED}","":{{"model":"other","model":"twice"}}}}"#).into(),
        format!(r#"{{"model":"{DATED}","n":1e400,"long":0.1000000000000000055511151231257827}}"#).into(),
        not_utf8.into(),
        large.into(),
    ];
    for (number, body) in bodies.into_iter().enumerate() {
        let reply = alice.messages(body.clone()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let received = gateway.upstream().request(number).await;
        assert!(received.body == body, "body {number} was changed");
        assert_eq!(received.header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(received.header("transfer-encoding"), None);
    }
}

#[tokio::test]
async fn a_model_id_that_the_upstream_spells_otherwise_is_all_that_changes() {
    let gateway = TestGateway::start().await;
    let body = |model: &str| format!("{{ \"n\" : 12345678901234567890,\n\"model\" : \"{model}\" , \"tags\":{{}} }}");
    for (number, spelling) in ["claude-haiku-4-5", "CLAUDE-Haiku-4-5", r"claude-haiku\u002d4-5"].iter().enumerate() {
        assert_eq!(gateway.as_user("alice").messages(body(spelling)).await.status, 200, "{spelling}");
        assert_eq!(gateway.upstream().request(number).await.body, body(DATED));
    }
}

#[tokio::test]
async fn tags_stay_with_the_gateway_when_it_looks_for_billing_groups_in_them() {
    let setup = TestGateway::setup().config(json!({ "admin": { "billing_group_tag": "team" } }));
    let gateway = setup.start().await;
    let alice = gateway.as_member("alice", &["eng"]).header("anthropic-beta", "a, request-tags-2026-08-21,b");
    let body = format!(r#"{{"model":"{DATED}", "tags" : {{"team":"eng"}} ,"n":1.0}}"#);
    alice.messages(body).await;
    let received = gateway.upstream().request(0).await;
    assert_eq!(received.json(), json!({ "model": DATED, "n": 1.0 }));
    assert_eq!(received.header("anthropic-beta"), Some("a,b"));
    assert_eq!(gateway.audit().next("inference").await["billing_group"], "eng");

    alice.messages(format!(r#"{{"tags":{{"team":"sales"}},"model":"{DATED}"}}"#)).await;
    assert_eq!(gateway.upstream().request(1).await.json(), json!({ "model": DATED }));
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["billing_group_ignored"].as_bool(), event.get("billing_group")), (Some(true), None));
}

#[tokio::test]
async fn an_upstream_sees_the_headers_of_the_list_and_no_others() {
    let identity =
        json!({ "name": "first", "forward_user_identity": true, "headers": { "x-team": "ai", "cookie": "k=v" } });
    let gateway = TestGateway::setup().upstream(identity).start().await;
    let sent = [
        ("accept", "text/event-stream"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "de"),
        ("anthropic-beta", "one,two"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-workspace-id", "w"),
        ("content-type", "application/x-odd"),
        ("cookie", "mine=1"),
        ("forwarded", "for=6.6.6.6"),
        ("idempotency-key", "i"),
        ("origin", "https://evil.example"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("user-agent", "claude-cli/2.1.330 (external, cli)"),
        ("via", "1.1 proxy"),
        ("x-api-key", "sk-of-the-client"),
        ("x-app", "cli"),
        ("x-claude-code-session-id", "s-1"),
        ("x-claude-gateway-user-id", "spoofed"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-litellm-end-user-id", "spoofed"),
        ("x-request-id", "r"),
        ("x-stainless-retry-count", "0"),
    ];
    let caller = sent.iter().fold(gateway.as_user("alice"), |caller, (name, value)| caller.header(name, value));
    assert_eq!(caller.messages(prompt(DATED).to_string()).await.status, 200);
    insta::assert_snapshot!(listed(&gateway.upstream().request(0).await.headers, &gateway), @r"
    accept-encoding: gzip, br
    accept: text/event-stream
    anthropic-beta: one,two
    anthropic-version: 2023-06-01
    content-length: 100
    content-type: application/x-odd
    cookie: k=v
    host: UPSTREAM
    user-agent: claude-cli/2.1.330 (external, cli) cc-gateway/0.1.0
    x-api-key: sk-of-the-upstream
    x-claude-gateway-user-email: alice@example.com
    x-claude-gateway-user-id: alice
    x-litellm-end-user-id: alice@example.com
    x-stainless-retry-count: 0
    x-team: ai
    ");
}

#[tokio::test]
async fn a_client_that_names_neither_version_nor_agent_gets_neither_invented() {
    let token = json!({ "name": "first", "auth": { "api_key": null, "oauth_token": "oauth-of-the-upstream" } });
    let gateway = TestGateway::setup().upstream(token).start().await;
    assert_eq!(gateway.as_user("alice").messages(prompt(DATED).to_string()).await.status, 200);
    insta::assert_snapshot!(listed(&gateway.upstream().request(0).await.headers, &gateway), @r"
    anthropic-beta: oauth-2025-04-20
    authorization: Bearer oauth-of-the-upstream
    content-length: 100
    host: UPSTREAM
    user-agent: cc-gateway/0.1.0
    ");
}

#[tokio::test]
async fn a_client_sees_the_headers_of_the_list_and_no_others() {
    let gateway = TestGateway::start().await;
    let sent = [
        ("anthropic-organization-id", "org-of-the-operator"),
        ("anthropic-ratelimit-requests-remaining", "7"),
        ("anthropic-ratelimit-unified-status", "allowed"),
        ("anthropic-priority-input-tokens-limit", "7"),
        ("anthropic-served-by", "kept"),
        ("cache-control", "no-cache"),
        ("cf-ray", "r"),
        ("location", "https://elsewhere.example"),
        ("request-id", "req_upstream"),
        ("retry-after", "7"),
        ("server", "cloudflare"),
        ("set-cookie", "a=b"),
        ("strict-transport-security", "max-age=1"),
        ("via", "1.1 google"),
        ("x-should-retry", "true"),
        ("x-request-id", "upstream"),
    ];
    let answer = Answer::message(DATED, "hi", 1, 1);
    gateway.upstream().answer(sent.iter().fold(answer, |answer, (name, value)| answer.header(name, value)));
    let reply = gateway.as_user("alice").messages(prompt(DATED).to_string()).await;
    assert_eq!(reply.header("request-id"), reply.header("x-request-id"));
    let mut headers = reply.headers;
    for varying in ["x-request-id", "request-id", "date"] {
        assert!(headers.remove(varying).is_some());
    }
    insta::assert_snapshot!(listed(&headers, &gateway), @r"
    anthropic-served-by: kept
    cache-control: no-cache
    content-length: 328
    content-type: application/json
    cross-origin-opener-policy: same-origin
    referrer-policy: no-referrer
    retry-after: 7
    x-content-type-options: nosniff
    x-frame-options: DENY
    x-should-retry: true
    ");
    assert_eq!(gateway.audit().next("inference").await["upstream_request_id"], "req_upstream");
}

#[tokio::test]
async fn the_target_keeps_prefix_and_query() {
    let gateway = TestGateway::setup().upstream(json!({ "name": "first", "path": "/prefix/" })).start().await;
    let query = "/v1/messages?beta=true&x=1%20y&z=%2F";
    assert_eq!(gateway.as_user("alice").post(query, prompt(DATED).to_string()).await.status, 200);
    assert_eq!(gateway.upstream().request(0).await.uri.to_string(), format!("/prefix{query}"));
}

#[tokio::test]
async fn an_answer_comes_back_byte_for_byte_whatever_it_is() {
    let gateway = TestGateway::start().await;
    let odd =
        "\u{feff}:comment\r\n\r\nevent:message_start\rdata:{}\r\rdata\n\nid: 7\nretry: 1\n: ping\n\ndata: \u{1f600}";
    let gzip: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03 not really \xff";
    let answers = [
        (Answer::new(200, "text/event-stream", odd), odd.as_bytes()),
        (
            Answer::new(200, "application/json", "{\"n\": 12345678901234567890 , \"x\":1.0}\n"),
            &b"{\"n\": 12345678901234567890 , \"x\":1.0}\n"[..],
        ),
        (Answer::new(400, "text/html", "<h1>no</h1>"), b"<h1>no</h1>"),
        (Answer::new(302, "text/plain", "moved").header("location", "http://127.0.0.1:1/"), b"moved"),
        (Answer::new(200, "application/json", gzip).header("content-encoding", "gzip"), gzip),
        (Answer::new(200, "application/json", ""), b""),
        (Answer::new(418, "", ""), b""),
    ];
    for (answer, expected) in answers {
        gateway.upstream().answer(answer);
        let reply = gateway.as_user("alice").messages(streamed(DATED).to_string()).await;
        assert_eq!(reply.body, expected);
    }
    assert_eq!(gateway.upstream().requests().len(), 7, "a redirect was followed, or an error asked again");
}

#[tokio::test]
async fn a_compressed_answer_is_passed_on_as_it_is_and_metered_all_the_same() {
    use base64::Engine;
    // {"type":"message","usage":{"input_tokens":1000,"output_tokens":200}}
    let gzip = "H4sIAAAAAAACA6tWKqksSFWyUspNLS5OTE9V0lEqBdNW1UqZeQWlJfEl+dmpecVKVoYGBgY6SvmlJciCRgYGtbUAKIoGwkQAAAA=";
    let gzip = base64::engine::general_purpose::STANDARD.decode(gzip).unwrap();
    let gateway = TestGateway::start().await;
    gateway.upstream().answer(Answer::new(200, "application/json", gzip.clone()).header("content-encoding", "gzip"));
    let reply = gateway.as_user("alice").messages(prompt("claude-sonnet-4-6").to_string()).await;
    assert_eq!((reply.header("content-encoding"), &reply.body[..]), (Some("gzip"), &gzip[..]));
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["input_tokens"].as_u64(), event["output_tokens"].as_u64()), (Some(1000), Some(200)));
    assert_eq!(event["cost_usd"].to_string(), "0.006");
}

#[tokio::test]
async fn headers_and_chunks_are_passed_on_before_the_next_are_sent() {
    let gateway = TestGateway::start().await;
    let gates: Vec<Gate> = (0..4).map(|_| Gate::closed()).collect();
    let chunks = ["event: message_start\ndata: {\"ty", "pe\":\"message_start\"}\n", "\n", ": and so on\n\n"];
    let steps = gates.iter().zip(chunks).flat_map(|(gate, chunk)| [gate.step(), Step::from(chunk)]);
    gateway.upstream().answer(Answer::stream(steps));
    let mut answer = gateway.as_user("alice").stream(streamed(DATED).to_string()).await.unwrap();
    // Not a byte of the body was sent.
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    for (gate, chunk) in gates.iter().zip(chunks) {
        gate.reached().await;
        gate.open();
        assert_eq!(answer.next().await.unwrap().unwrap(), chunk);
    }
    assert!(answer.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_goes_away_in_a_stream_stops_the_upstream_and_pays_for_what_came() {
    let gateway = TestGateway::start().await;
    let mut events = message_events("claude-sonnet-4-6", &["x".repeat(4000).as_str()], 1000, 1).into_iter();
    let gate = Gate::closed();
    let steps: Vec<Step> = events.by_ref().take(4).map(Step::from).chain([gate.step()]).collect();
    gateway.upstream().answer(Answer::stream(steps));
    let mut answer = gateway.as_user("alice").stream(streamed("claude-sonnet-4-6").to_string()).await.unwrap();
    let mut seen = 0;
    while seen < 4000 {
        seen += answer.next().await.unwrap().unwrap().len();
    }
    drop(answer);
    assert_eq!(gateway.upstream().request(0).await.fate().await, Fate::Aborted);
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["outcome"].as_str(), event["status"].as_u64()), (Some("client_aborted"), Some(200)));
    // The prompt by the upstream's word, the answer by its size: 4 characters to a token.
    assert_eq!((event["input_tokens"].as_u64(), event["output_tokens"].as_u64()), (Some(1000), Some(1000)));
    assert_eq!(event["cost_usd"].to_string(), "0.018");
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_stops_the_upstream_and_pays_for_its_prompt() {
    let gateway = TestGateway::start().await;
    let gate = Gate::closed();
    gateway.upstream().answer(Answer::message(DATED, "too late", 1, 1).after(&gate));
    let alice = gateway.as_user("alice");
    let body = format!(r#"{{"model":"claude-sonnet-4-6","max_tokens":16,"x":"{}"}}"#, "y".repeat(4000));
    let asking = tokio::spawn({
        let body = body.clone();
        async move { alice.stream(body).await.map(|_| ()) }
    });
    gate.reached().await;
    asking.abort();
    assert_eq!(gateway.upstream().request(0).await.fate().await, Fate::Aborted);
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["outcome"].as_str(), event["status"].as_u64()), (Some("client_aborted"), Some(499)));
    assert_eq!(event["input_tokens"].as_u64(), Some(body.len().div_ceil(4) as u64));
    assert_eq!(event["output_tokens"], 0);
    assert_eq!(event["estimated"], true);
}

#[tokio::test]
async fn a_stream_that_the_upstream_cuts_is_cut_for_the_client_and_charged_as_far_as_it_came() {
    let gateway = TestGateway::start().await;
    let events = message_events("claude-sonnet-4-6", &["x".repeat(400).as_str()], 1000, 1);
    let gate = Gate::closed();
    let steps = events.into_iter().take(4).map(Step::from).chain([gate.step()]);
    gateway.upstream().answer(Answer::stream(steps).then_reset());
    let mut answer = gateway.as_user("alice").stream(streamed("claude-sonnet-4-6").to_string()).await.unwrap();
    let mut seen = 0;
    while seen < 400 {
        seen += answer.next().await.unwrap().unwrap().len();
    }
    gate.open();
    answer.rest().await.unwrap_err();
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["outcome"].as_str(), event["output_tokens"].as_u64()), (Some("upstream_aborted"), Some(100)));
    assert_eq!(event["cost_usd"].to_string(), "0.0045");
}

#[tokio::test]
async fn counting_tokens_costs_nothing_and_asks_no_cap() {
    let gateway = TestGateway::start().await;
    gateway.cap("alice", 0).await;
    let alice = gateway.as_user("alice");
    let reply = alice.post("/v1/messages/count_tokens?beta=true", prompt("claude-haiku-4-5").to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({ "input_tokens": 11 })));
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("anthropic-ratelimit")), "{:?}", reply.headers);
    let received = gateway.upstream().request(0).await;
    assert_eq!(
        (received.uri.to_string().as_str(), received.json()["model"].as_str()),
        ("/v1/messages/count_tokens?beta=true", Some(DATED))
    );
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["path"].as_str(), event["cost_usd"].is_null()), (Some("/v1/messages/count_tokens"), true));
    assert_eq!(alice.messages(prompt(DATED).to_string()).await.status, 429);
}

#[tokio::test]
async fn the_audit_tells_of_a_request_what_happened_to_it() {
    let gateway = TestGateway::start().await;
    gateway.upstream().answer(Answer::message("m", "hi", 1000, 200).header("request-id", "req_up"));
    let alice = gateway.as_member("alice", &["eng"]).header("x-claude-code-session-id", "s-1");
    let reply = alice.messages(prompt("claude-sonnet-4-6").to_string()).await;
    let mut event = gateway.audit().next("inference").await;
    assert_eq!(event["request_id"].as_str(), reply.header("x-request-id"));
    for measured in ["ts", "request_id", "ms", "ttfb_ms"] {
        assert!(!event[measured].is_null(), "{measured}");
        event.as_object_mut().unwrap().remove(measured);
    }
    assert!(event["tried"][0]["ms"].take().is_u64());
    insta::assert_json_snapshot!(event, @r#"
    {
      "attempts": 1,
      "cache_creation_input_tokens": 0,
      "cache_read_input_tokens": 0,
      "cost_usd": 0.006,
      "email": "alice@example.com",
      "evt": "inference",
      "input_tokens": 1000,
      "model": "claude-sonnet-4-6",
      "outcome": "complete",
      "output_tokens": 200,
      "path": "/v1/messages",
      "session_id": "s-1",
      "status": 200,
      "sub": "alice",
      "tried": [
        {
          "ended": "served",
          "ms": null,
          "status": 200,
          "upstream": "first"
        }
      ],
      "upstream": "first",
      "upstream_cloud_request_id": null,
      "upstream_request_id": "req_up"
    }
    "#);
}

#[tokio::test]
async fn an_error_event_in_a_stream_is_passed_on_and_ends_the_request_as_an_error() {
    let gateway = TestGateway::start().await;
    let error = event(&json!({ "type": "error", "error": { "type": "overloaded_error", "message": "busy" } }));
    gateway.upstream().answer(Answer::stream([Step::from(error.clone())]));
    let reply = gateway.as_user("alice").messages(streamed(DATED).to_string()).await;
    assert_eq!((reply.status.as_u16(), reply.body), (200, Bytes::from(error)));
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["outcome"].as_str(), event["cost_usd"].to_string().as_str()), (Some("error"), "0"));
}

/// Sorted, one per line, the ports of this run left out.
fn listed(headers: &HeaderMap, gateway: &TestGateway) -> String {
    let upstream = gateway.upstream().url();
    let upstream = upstream.strip_prefix("http://").unwrap();
    let line = |(name, value): (&_, &hyper::header::HeaderValue)| {
        format!("{name}: {}", value.to_str().unwrap().replace(upstream, "UPSTREAM"))
    };
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort();
    lines.join("\n")
}
