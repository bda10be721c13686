//! Which failures of an upstream send a request on to the next, and what is told when none is left (contract B2, R28).

use serde_json::json;

use crate::clouds::bedrock;
use crate::support::gateway::TestGateway;
use crate::support::http::{Http, Reply, unused_port};
use crate::support::raw::Raw;
use crate::support::upstream::{Answer, Gate, Step};

const PROMPT: &str = r#"{"model":"claude-haiku-4-5","max_tokens":16,"messages":[]}"#;

/// Three that are asked whatever came of it before: what a breaker does is a matter of its own.
async fn three() -> TestGateway {
    let upstream = |name: &str| json!({ "name": name, "breaker": { "enabled": false } });
    let setup = ["first", "second", "third"].iter().fold(TestGateway::setup(), |s, name| s.upstream(upstream(name)));
    setup.start().await
}

/// An error as a vendor or something in front of it may send it.
fn failing(status: u16) -> Answer {
    Answer::error(status, "some_error", &format!("status {status}")).header("retry-after", "7")
}

async fn ask(gateway: &TestGateway) -> Reply {
    gateway.as_user("alice").messages(PROMPT).await
}

fn asked(gateway: &TestGateway) -> Vec<usize> {
    gateway.upstreams().iter().map(|upstream| upstream.requests().len()).collect()
}

#[tokio::test]
async fn these_statuses_go_on_to_the_next_upstream_and_no_others() {
    let gateway = three().await;
    let (mut over, mut relayed) = (Vec::new(), Vec::new());
    let statuses = (200..=206).chain(300..=308).chain(400..=431).chain([451]).chain(500..=511).chain([529, 599]);
    for status in statuses {
        gateway.upstream().answer(failing(status));
        let before = asked(&gateway);
        let reply = ask(&gateway).await;
        let after = asked(&gateway);
        assert_eq!(after[0], before[0] + 1, "{status}: the first was asked more than once");
        assert_eq!(after[2], before[2], "{status}: the third was asked");
        if after[1] == before[1] {
            assert_eq!(reply.status, status);
            // These have no body by definition.
            assert!(
                [204, 205, 304].contains(&status) || reply.text().contains("some_error"),
                "{status} was not relayed"
            );
            relayed.push(status);
        } else {
            assert_eq!(reply.status, 200);
            over.push(status);
        }
    }
    insta::assert_compact_json_snapshot!(over, @"[401, 402, 403, 404, 429, 500, 501, 502, 503, 504, 505, 506, 507, 508, 509, 510, 511, 529, 599]");
    insta::assert_compact_json_snapshot!(relayed, @r"
    [
      200,
      201,
      202,
      203,
      204,
      205,
      206,
      300,
      301,
      302,
      303,
      304,
      305,
      306,
      307,
      308,
      400,
      405,
      406,
      407,
      408,
      409,
      410,
      411,
      412,
      413,
      414,
      415,
      416,
      417,
      418,
      419,
      420,
      421,
      422,
      423,
      424,
      425,
      426,
      427,
      428,
      430,
      431,
      451
    ]
    ");
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_or_says_nothing_is_passed_over() {
    let dead = json!({ "name": "dead", "base_url": "http://127.0.0.1:1" });
    let timeouts = json!({ "timeouts": { "upstream_ttfb_ms": 250 } });
    let setup = TestGateway::setup().config(timeouts).upstream(dead).upstream(json!({ "name": "silent" }));
    let gateway = setup.upstream(json!({ "name": "closing" })).upstream(json!({ "name": "good" })).start().await;
    gateway.upstreams()[1].answer(Answer::message("m", "never", 1, 1).after(&Gate::closed()));
    gateway.upstreams()[2].answer(Answer::none());
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(asked(&gateway), [0, 1, 1, 1], "each is asked once");
    let event = gateway.audit().next("inference").await;
    assert_eq!((event["upstream"].as_str(), event["attempts"].as_u64()), (Some("good"), Some(4)));
    let tried: Vec<_> =
        event["tried"].as_array().unwrap().iter().map(|one| [&one["upstream"], &one["ended"]]).collect();
    insta::assert_compact_json_snapshot!(tried, @r#"[["dead", "connect"], ["silent", "timeout"], ["closing", "broken"], ["good", "served"]]"#);
    let waited = event["tried"][1]["ms"].as_u64().unwrap();
    assert!(waited >= 250, "{event}");
}

#[tokio::test]
async fn every_kind_of_upstream_has_time_limits_of_its_own() {
    // It never says a word of TLS.
    let mute = Raw::start().await;
    let mute = mute.url().replace("http:", "https:");
    let connecting = json!({ "name": "connecting", "base_url": mute, "timeouts": { "connect_ms": 60 } });
    let silent = json!({ "timeouts": { "ttfb_ms": 70 } });
    let setup = TestGateway::setup().upstream(connecting).upstream(bedrock(&silent));
    let gateway = setup.upstream(json!({ "name": "good" })).start().await;
    gateway.upstreams()[1].answer(Answer::stream([Step::from("never")]).after(&Gate::closed()));
    assert_eq!(ask(&gateway).await.status, 200);
    let event = gateway.audit().next("inference").await;
    let tried = event["tried"].as_array().unwrap();
    let ended: Vec<_> = tried.iter().map(|one| [&one["upstream"], &one["ended"]]).collect();
    assert_eq!(ended, [["connecting", "connect"], ["cloud", "timeout"], ["good", "served"]]);
    assert!(tried[0]["ms"].as_u64() >= Some(60) && tried[1]["ms"].as_u64() >= Some(70), "{event}");
}

#[tokio::test]
async fn what_every_attempt_came_to_is_in_audit_and_figures() {
    let port = unused_port();
    let first = json!({ "name": "first", "breaker": { "consecutive_failures": 2 } });
    let setup = TestGateway::setup().config(json!({ "metrics": { "port": port } })).upstream(first);
    let gateway = setup.upstream(json!({ "name": "second" })).start().await;
    gateway.upstream().answer(failing(403));
    gateway.upstream().answer(Answer::error(500, "api_error", "no"));
    gateway.upstream().answer(Answer::none());
    for (ended, status) in [("credential", Some(403)), ("server_error", Some(500)), ("broken", None)] {
        assert_eq!(ask(&gateway).await.status, 200);
        let event = gateway.audit().next("inference").await;
        let [failed, served] = &event["tried"].as_array().unwrap()[..] else { panic!("{event}") };
        assert_eq!((&failed["upstream"], &failed["ended"]), (&json!("first"), &json!(ended)));
        assert_eq!((failed["status"].as_u64(), &served["ended"]), (status, &json!("served")));
        assert!(failed["ms"].is_u64() && event["cost_usd"].as_f64() > Some(0.0), "{event}");
    }
    // Two in a row.
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(asked(&gateway), [3, 4]);
    let figures = http::Request::get(format!("http://127.0.0.1:{port}/metrics")).body(bytes::Bytes::new()).unwrap();
    let figures = Http::new().send(figures).await;
    let of = |upstream: &str| format!("upstream=\"{upstream}\",model=\"claude-haiku-4-5-20251001\"");
    let (first, second) = (of("first"), of("second"));
    for line in [
        format!("tollgate_upstream_attempts_total{{{first},outcome=\"credential\"}} 1"),
        format!("tollgate_upstream_attempts_total{{{first},outcome=\"server_error\"}} 1"),
        format!("tollgate_upstream_attempts_total{{{first},outcome=\"broken\"}} 1"),
        format!("tollgate_upstream_attempts_total{{{second},outcome=\"served\"}} 4"),
        format!("tollgate_upstream_attempt_seconds_total{{{first},outcome=\"broken\"}} "),
        format!("tollgate_circuit_opened_total{{{first}}} 1"),
        format!("tollgate_circuit_state{{{first}}} 2"),
        format!("tollgate_circuit_state{{{second}}} 0"),
        "tollgate_time_to_first_byte_seconds_count 4".to_owned(),
    ] {
        assert!(figures.text().contains(&line), "{line} is not in\n{}", figures.text());
    }
}

#[tokio::test]
async fn an_upstream_that_keeps_failing_is_left_alone_and_the_next_one_serves() {
    let first = json!({ "name": "first", "breaker": { "consecutive_failures": 2 } });
    let gateway = TestGateway::setup().upstream(first).upstream(json!({ "name": "second" })).start().await;
    gateway.upstream().answer_otherwise(|_| Answer::error(500, "api_error", "no"));
    for _ in 0..5 {
        assert_eq!(ask(&gateway).await.status, 200);
    }
    assert_eq!(asked(&gateway), [2, 5]);
}

#[tokio::test]
async fn an_operator_widens_and_narrows_what_leads_to_the_next_upstream() {
    let wide = json!({ "name": "wide", "failover_on": ["default", 408] });
    let narrow = json!({ "name": "narrow", "failover_on": ["connect", 529] });
    let gateway =
        TestGateway::setup().upstream(wide).upstream(narrow).upstream(json!({ "name": "third" })).start().await;
    gateway.upstreams()[0].answer_otherwise(|_| failing(408));
    gateway.upstreams()[1].answer(failing(529));
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(asked(&gateway), [1, 1, 1]);
    let gateway = {
        let narrow = json!({ "name": "narrow", "failover_on": ["connect", 529] });
        TestGateway::setup().upstream(narrow).upstream(json!({ "name": "second" })).start().await
    };
    gateway.upstream().answer(failing(503));
    let reply = ask(&gateway).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (529, Some("7")));
    gateway.upstream().answer(failing(401));
    assert_eq!(ask(&gateway).await.status, 502, "our credential stays our matter");
    assert_eq!(asked(&gateway), [2, 0]);
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_ended_with_an_error_and_charged_as_far_as_it_came() {
    let idle = json!({ "name": "first", "timeouts": { "idle_ms": 50 } });
    let gateway = TestGateway::setup().upstream(idle).start().await;
    gateway.upstream().answer(Answer::stream([Step::from(": hello\n\n"), Gate::closed().step()]));
    let reply = gateway.as_user("alice").messages(PROMPT).await;
    let error = r#"event: error
data: {"type":"error","request_id":"ID","error":{"type":"timeout_error","message":"the upstream has sent nothing for 0.05 s"}}

"#;
    let id = reply.header("request-id").unwrap();
    assert_eq!(reply.text(), format!(": hello\n\n{}", error.replace("ID", id)));
    assert_eq!(gateway.audit().next("inference").await["outcome"], "upstream_aborted");
}

#[tokio::test]
async fn more_requests_than_may_be_served_at_once_are_told_at_once_and_before_their_bodies_are_read() {
    let limits = json!({ "limits": { "max_concurrent_requests": 2, "max_concurrent_per_user": 1 } });
    let gateway = TestGateway::setup().config(limits).start().await;
    let gate = Gate::closed();
    for _ in 0..2 {
        gateway.upstream().answer(Answer::stream([Step::from(": hello\n\n"), gate.step()]));
    }
    let alices = gateway.as_user("alice").stream(PROMPT).await.unwrap();
    let second = gateway.as_user("alice").messages("no JSON").await;
    assert_eq!((second.status.as_u16(), second.header("retry-after")), (429, Some("1")));
    assert_eq!(second.json()["error"]["type"], "rate_limit_error");
    let bobs = gateway.as_user("bob").stream(PROMPT).await.unwrap();
    let third = gateway.as_user("carol").messages("no JSON").await;
    assert_eq!((third.status.as_u16(), third.header("retry-after")), (529, Some("1")));
    assert_eq!(third.json()["error"]["type"], "overloaded_error");
    let refused = gateway.audit().next("inference").await;
    assert_eq!((refused["status"].as_u64(), refused["outcome"].as_str()), (Some(429), Some("rejected")));
    gate.open();
    alices.rest().await.unwrap();
    bobs.rest().await.unwrap();
    gateway.audit().next("inference").await;
    gateway.audit().next("inference").await;
    gateway.audit().next("inference").await;
    assert_eq!(gateway.as_user("alice").messages(PROMPT).await.status, 200);
}

#[tokio::test]
async fn the_usage_limit_of_an_account_goes_on_to_the_next_although_it_is_a_400() {
    let gateway = three().await;
    let message = "You have reached your specified API usage limits. You will regain access on 2026-12-01.";
    gateway.upstream().answer(Answer::error(400, "invalid_request_error", message));
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(asked(&gateway), [1, 1, 0]);
}

#[tokio::test]
async fn when_all_fail_the_client_hears_what_it_can_act_on() {
    let gateway = three().await;
    let cases = [
        [500, 503, 429],
        [429, 529, 500],
        [500, 503, 404],
        [529, 401, 403],
        [404, 501, 500],
        [501, 500, 402],
        [401, 403, 401],
        [500, 502, 504],
    ];
    let mut told = String::new();
    for statuses in cases {
        for (upstream, status) in gateway.upstreams().iter().zip(statuses) {
            upstream.answer(failing(status));
        }
        let reply = ask(&gateway).await;
        let retry_after = reply.header("retry-after").unwrap_or("-");
        let error = &reply.json()["error"];
        told.push_str(&format!("{statuses:?} -> {} retry-after {retry_after}: {error}\n", reply.status.as_u16()));
        let event = gateway.audit().next("inference").await;
        assert_eq!(
            (event["status"].as_u64(), event["attempts"].as_u64()),
            (Some(reply.status.as_u16().into()), Some(3))
        );
        assert!(event["cost_usd"] == 0, "{event}");
    }
    insta::assert_snapshot!(told, @r#"
    [500, 503, 429] -> 429 retry-after 7: {"message":"status 429","type":"some_error"}
    [429, 529, 500] -> 429 retry-after 7: {"message":"status 429","type":"some_error"}
    [500, 503, 404] -> 529 retry-after 7: {"message":"every upstream is overloaded or failed","type":"overloaded_error"}
    [529, 401, 403] -> 529 retry-after 7: {"message":"every upstream is overloaded or failed","type":"overloaded_error"}
    [404, 501, 500] -> 404 retry-after 7: {"message":"status 404","type":"some_error"}
    [501, 500, 402] -> 501 retry-after 7: {"message":"status 501","type":"some_error"}
    [401, 403, 401] -> 502 retry-after -: {"message":"all upstreams failed (3 attempted)","type":"api_error"}
    [500, 502, 504] -> 502 retry-after -: {"message":"all upstreams failed (3 attempted)","type":"api_error"}
    "#);
}

#[tokio::test]
async fn once_a_byte_was_sent_no_other_upstream_is_asked() {
    let gateway = three().await;
    let gate = Gate::closed();
    gateway.upstream().answer(Answer::stream([Step::from(": hello\n\n"), gate.step()]).then_reset());
    let mut answer = gateway.as_user("alice").stream(PROMPT).await.unwrap();
    assert_eq!(answer.next().await.unwrap().unwrap(), ": hello\n\n");
    gate.open();
    answer.rest().await.unwrap_err();
    assert_eq!(gateway.audit().next("inference").await["outcome"], "upstream_aborted");
    assert_eq!(asked(&gateway), [1, 0, 0]);
}

#[tokio::test]
async fn an_upstream_that_closes_an_idle_connection_costs_no_request() {
    let gateway = three().await;
    // The second use of a connection meets its end: a client that asks again by itself would have the model paid twice.
    assert_eq!(ask(&gateway).await.status, 200);
    gateway.upstream().answer(Answer::none());
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(asked(&gateway), [2, 1, 0]);
}
