//! However a request ends, it is settled and audited once, at what it cost.

use ::bytes::Bytes;
use control::spend::Refusal;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::join;

use super::super::Failure;
use super::gateway::{Gateway, MODEL, Received, config};
use crate::upstream::credential::anthropic::FederationConfig;
use crate::upstream::scripted::{Exchange, Server, http};
use crate::upstream::{AnthropicConfig, ApiConfig, Credential, Endpoint};

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_up\r\ntransfer-encoding: chunked\r\n\r\n";
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"0123456789012345678901234567890123456789\"}}\n\n";
const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":20}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const ERROR: &str =
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";

/// A request of 80 bytes: without any word of the upstream, 20 tokens.
fn body() -> String {
    format!("{:<80}", format!(r#"{{"model":"{MODEL}","max_tokens":1}}"#))
}

/// A gateway whose upstream has sent the head of a stream and these events, and the client has read them.
async fn streaming(events: &[&str]) -> (Gateway, Received, Exchange) {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let (answer, mut exchange) = join!(gateway.messages(body()), async {
        let mut exchange = server.accept().await;
        exchange.send(EVENTS).await;
        exchange
    });
    let mut answer = answer.unwrap();
    for event in events {
        exchange.chunk(event).await;
        assert_eq!(answer.body.frame().await.unwrap().unwrap().into_data().unwrap(), *event);
    }
    (gateway, answer, exchange)
}

/// 3 and 15 dollars per million tokens, in nano-dollars.
fn cost(input: i64, output: i64) -> i64 {
    input * 3_000 + output * 15_000
}

#[tokio::test]
async fn a_whole_answer_costs_its_usage() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let message = r#"{"type":"message","model":"m","usage":{"input_tokens":100,"output_tokens":20}}"#;
    let answer = http(200, "content-type: application/json\r\nrequest-id: req_up\r\n", message);
    let (answer, _) = join!(gateway.messages(body()), server.answer(answer));
    drop(answer.unwrap().body.collect().await.unwrap());
    assert_eq!(gateway.books().await, (cost(100, 20), 0, vec![cost(100, 20)]));
    let expected = json!({
        "evt": "inference", "model": MODEL, "upstream": "a", "upstream_request_id": "req_up", "status": 200,
        "input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
        "cost_usd": 0.0006, "outcome": "complete", "attempts": 1,
        "tried": [{"upstream": "a", "ended": "served", "status": 200, "ms": 0}],
    });
    assert_eq!(gateway.audit().await, [expected]);
}

#[tokio::test]
async fn a_whole_stream_costs_what_its_last_event_says() {
    let (gateway, mut answer, mut exchange) = streaming(&[START, DELTA, END]).await;
    exchange.send("0\r\n\r\n").await;
    assert!(answer.body.frame().await.is_none());
    drop(answer);
    assert_eq!(gateway.ended().await, "complete 200 by a: 100+20 tokens, $0.0006");
    assert_eq!(gateway.books().await, (cost(100, 20), 0, vec![cost(100, 20)]));
}

#[tokio::test]
async fn more_is_set_aside_while_the_stream_shows_that_it_costs_more() {
    let dear = START.replace("100", "1000000");
    let (gateway, answer, _exchange) = streaming(&[&dear]).await;
    let (settled, reserved, _) = gateway.books().await;
    assert!(settled == 0 && reserved >= cost(1_000_000, 1), "{settled} {reserved}");
    drop(answer);
    assert_eq!(gateway.books().await, (cost(1_000_000, 1), 0, vec![cost(1_000_000, 1)]));
}

#[tokio::test]
async fn a_client_that_leaves_after_the_last_event_has_a_complete_answer() {
    let (gateway, answer, _exchange) = streaming(&[START, END]).await;
    drop(answer);
    assert_eq!(gateway.ended().await, "complete 200 by a: 100+20 tokens, $0.0006");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_stops_the_upstream_and_pays_what_was_sent() {
    let (gateway, answer, exchange) = streaming(&[START, DELTA]).await;
    drop(answer);
    exchange.closed().await;
    assert_eq!(gateway.ended().await, "client_aborted 200 by a: 100+10 tokens, $0.00045 estimated");
    assert_eq!(gateway.books().await, (cost(100, 10), 0, vec![cost(100, 10)]));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_headers_stops_the_upstream_and_pays_its_prompt() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let exchange = tokio::select! {
        _ = gateway.messages(body()) => unreachable!("nobody has answered"),
        exchange = server.accept() => exchange,
    };
    exchange.closed().await;
    assert_eq!(gateway.ended().await, "client_aborted 499 by a: 20+0 tokens, $0.00006 estimated");
    assert_eq!(gateway.books().await, (cost(20, 0), 0, vec![cost(20, 0)]));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_next_upstream_has_its_request_pays_nothing() {
    let (first, second) = (Server::start().await, Server::start().await);
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "header.claims.signature").unwrap();
    let mut exchanging = config("b", &second.url());
    let federation = FederationConfig {
        federation_rule_id: "rule".to_owned(),
        organization_id: "org".to_owned(),
        identity_token_file: token,
        workspace_id: None,
        service_account_id: None,
    };
    exchanging.api = ApiConfig::Anthropic(AnthropicConfig {
        credential: Credential::Federation(federation),
        forward_user_identity: false,
    });
    let gateway = Gateway::with(vec![config("a", &first.url()), exchanging], None).await;
    let busy = http(503, "", "busy");
    // The first one had all of it; the second one is still being asked for its token.
    let asked_for_token = tokio::select! {
        _ = gateway.messages(body()) => unreachable!("nobody serves it"),
        (_, exchange) = async { (first.answer(busy).await, second.accept().await) } => exchange,
    };
    assert!(asked_for_token.head.starts_with("POST /v1/oauth/token "), "{}", asked_for_token.head);
    assert_eq!(gateway.ended().await, "client_aborted 499 by b: null+null tokens, $0");
    assert_eq!(gateway.books().await, (0, 0, vec![0]));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_breaks_the_answer_off_and_is_paid_what_it_sent() {
    let (gateway, mut answer, exchange) = streaming(&[START, DELTA]).await;
    drop(exchange);
    assert!(answer.body.frame().await.unwrap().is_err());
    assert!(answer.body.frame().await.is_none());
    assert_eq!(gateway.ended().await, "upstream_aborted 200 by a: 100+10 tokens, $0.00045 estimated");
    assert_eq!(gateway.books().await, (cost(100, 10), 0, vec![cost(100, 10)]));
}

#[tokio::test]
async fn a_stream_that_is_cut_says_so_between_two_events() {
    let (gateway, mut answer, exchange) = streaming(&[START]).await;
    gateway.inference.cut.cancel();
    let last = answer.body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(
        last,
        "event: error\ndata: {\"type\":\"error\",\"request_id\":\"r-1\",\"error\":{\"type\":\"overloaded_error\",\
         \"message\":\"the gateway is shutting down\"}}\n\n"
    );
    assert!(answer.body.frame().await.is_none());
    exchange.closed().await;
    assert_eq!(gateway.ended().await, "cut 200 by a: 100+1 tokens, $0.000315 estimated");
}

#[tokio::test]
async fn a_stream_that_is_cut_within_an_event_just_breaks_off() {
    let (gateway, mut answer, _exchange) = streaming(&["event: message_st"]).await;
    gateway.inference.cut.cancel();
    assert!(answer.body.frame().await.unwrap().is_err());
    assert_eq!(gateway.ended().await, "cut 200 by a: 20+0 tokens, $0.00006 estimated");
}

#[tokio::test]
async fn a_request_that_waits_for_headers_is_cut_too() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let (failure, ()) = join!(gateway.messages(body()), async {
        let exchange = server.accept().await;
        gateway.inference.cut.cancel();
        exchange.closed().await;
    });
    assert!(matches!(failure, Err(Failure::Stopping)));
    assert_eq!(gateway.ended().await, "cut 529 by a: 20+0 tokens, $0.00006 estimated");
}

#[tokio::test]
async fn an_error_event_in_place_of_an_answer_costs_nothing() {
    let (gateway, mut answer, mut exchange) = streaming(&[ERROR]).await;
    exchange.send("0\r\n\r\n").await;
    assert!(answer.body.frame().await.is_none());
    assert_eq!(gateway.ended().await, "error 200 by a: null+null tokens, $0");
    assert_eq!(gateway.books().await.0, 0);
}

#[tokio::test]
async fn error_answers_cost_nothing() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let (answer, _) = join!(gateway.messages(body()), server.answer(http(400, "", "no")));
    drop(answer.unwrap().body.collect().await.unwrap());
    assert_eq!(gateway.ended().await, "error 400 by a: null+null tokens, $0");
    let (settled, reserved, _) = gateway.books().await;
    assert_eq!((settled, reserved), (0, 0));
}

#[tokio::test]
async fn a_request_that_no_upstream_served_costs_nothing() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let (answer, _) = join!(gateway.messages(body()), server.answer(http(500, "", "no")));
    assert!(matches!(answer, Err(Failure::Exhausted { configured: 1 })));
    assert_eq!(gateway.ended().await, "error 502 by -: null+null tokens, $0");
    let (settled, reserved, _) = gateway.books().await;
    assert_eq!((settled, reserved), (0, 0));
}

#[tokio::test]
async fn an_answer_without_a_body_is_complete_although_nobody_reads_it() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let (answer, _) = join!(gateway.messages(body()), server.answer(http(200, "", "")));
    drop(answer);
    assert_eq!(gateway.ended().await, "complete 200 by a: 20+0 tokens, $0.00006 estimated");
}

#[tokio::test]
async fn counting_tokens_costs_nothing_even_where_the_budget_is_spent() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    gateway.cap(0).await;
    let request = Request::post("/v1/messages/count_tokens").body(Bytes::from(body())).unwrap();
    let script = http(200, "", r#"{"input_tokens":7}"#);
    let (answer, exchange) = join!(gateway.run(Endpoint::CountTokens, request), server.answer(script));
    drop(answer.unwrap().body.collect().await.unwrap());
    assert!(exchange.head.starts_with("POST /v1/messages/count_tokens HTTP/1.1\r\n"));
    assert_eq!(gateway.ended().await, "complete 200 by a: null+null tokens, $null");
}

#[tokio::test]
async fn who_is_blocked_hears_that_first_and_no_upstream_is_asked() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    gateway.cap(0).await;
    for body in ["no JSON", r#"{"model":"claude-opus-4-1"}"#, &body()] {
        let failure = gateway.messages(body.to_owned()).await.unwrap_err();
        assert!(matches!(failure, Failure::Blocked { refusal: Refusal::Over(_), retry_after: Some(_) }), "{failure:?}");
    }
    assert!(server.is_idle());
    let blocked = json!({
        "evt": "spend.blocked", "cause": "over_limit", "cap_cents": "0", "source": "user", "period": "daily",
    });
    assert_eq!(gateway.audit().await, [blocked.clone(), blocked.clone(), blocked]);
}

#[tokio::test]
async fn what_cannot_be_admitted_is_told_and_reaches_no_upstream() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let long = format!(r#"{{"model":"{MODEL}","x":"{}"}}"#, "x".repeat(1000));
    let cases = [
        ("", "invalid JSON"),
        ("[]", "request body must be a JSON object"),
        (r#"{"model":""}"#, "model is required"),
        (r#"{"model":"sonnet"}"#, "model sonnet is not in the operator's model allowlist"),
        (r#"{"model":"claude-opus-4-1"}"#, "model claude-opus-4-1 is not in your role's availableModels allowlist"),
        (&long, "payload too large"),
    ];
    for (body, text) in cases {
        assert_eq!(gateway.messages(body.to_owned()).await.unwrap_err().to_string(), text);
    }
    assert!(server.is_idle());
    assert_eq!(gateway.books().await, (0, 0, vec![]));
    let events = gateway.audit().await;
    assert_eq!(events[0], json!({"evt": "inference", "status": 400, "outcome": "rejected", "attempts": 0}));
    assert_eq!(events.len(), cases.len());
}

#[tokio::test]
async fn a_capped_caller_learns_how_full_its_cap_is() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    gateway.cap(100).await;
    let (answer, _) = join!(gateway.messages(body()), server.answer(http(200, "", "{}")));
    let standing = answer.unwrap().standing.unwrap();
    assert_eq!((standing.cap.cents, standing.spent.nano()), (100, 0));
}
