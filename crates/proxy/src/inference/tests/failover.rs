//! Which failures send a request on to the next upstream, and what is told when none is left.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::join;

use super::super::Failure;
use super::gateway::{Gateway, MODEL, config};
use crate::upstream::scripted::{Server, http};

const OK: &str = "{}";

fn body() -> String {
    format!(r#"{{"model":"{MODEL}","max_tokens":1}}"#)
}

fn usage_limit() -> String {
    let message = "You have reached your specified API usage limits. You will regain access on 2026-12-01.";
    format!(r#"{{"type":"error","error":{{"type":"invalid_request_error","message":"{message}"}}}}"#)
}

/// The upstream whose answer the client gets when the first answers so, and the second well.
async fn served_by(first_answer: &str) -> String {
    let (first, second) = (Server::start().await, Server::start().await);
    let gateway = Gateway::before(&[&first, &second]).await;
    let ok = http(200, "", OK);
    let asked = gateway.messages(body());
    let scripts = async {
        join!(first.answer(first_answer), second.answer(ok));
        std::future::pending().await
    };
    let answer = tokio::select! {
        answer = asked => answer,
        () = scripts => unreachable!("pending"),
    };
    drop(answer.unwrap().body.collect().await);
    assert!(first.is_idle(), "a request is never sent twice to one upstream");
    gateway.audit().await[0]["upstream"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn failures_that_another_upstream_may_better_go_to_the_next() {
    for status in [401, 402, 403, 404, 429, 500, 503, 529] {
        assert_eq!(served_by(&http(status, "", "no")).await, "b", "{status}");
    }
    assert_eq!(served_by(&http(400, "", &usage_limit())).await, "b", "usage limit");
    assert_eq!(served_by("").await, "b", "closed without an answer");
    assert_eq!(served_by("this is not HTTP\r\n\r\n").await, "b", "garbage");
}

#[tokio::test]
async fn answers_to_the_request_itself_are_final() {
    for status in [400, 405, 408, 413, 422, 302] {
        assert_eq!(served_by(&http(status, "", "no")).await, "a", "{status}");
    }
    let broken_off = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    assert_eq!(served_by(broken_off).await, "a", "a body that broke off");
}

#[tokio::test]
async fn an_upstream_that_is_silent_or_absent_is_passed_over() {
    let (silent, second) = (Server::start().await, Server::start().await);
    let absent = config("absent", &Server::start().await.url());
    let mut first = config("silent", &silent.url());
    first.ttfb_timeout = Some(Duration::from_millis(20));
    let gateway = Gateway::with(vec![absent, first, config("c", &second.url())], None).await;
    let ok = http(200, "", OK);
    let (answer, exchange, _) = join!(gateway.messages(body()), silent.accept(), second.answer(ok));
    drop(answer.unwrap().body.collect().await);
    // Given up means given up: the upstream need not work on.
    exchange.closed().await;
    let event = &gateway.audit().await[0];
    assert_eq!((&event["upstream"], &event["attempts"]), (&"c".into(), &3.into()));
}

/// What the client is told when two upstreams answer so.
async fn told(answers: [&str; 2]) -> Result<(StatusCode, String), Failure> {
    let servers = [Server::start().await, Server::start().await];
    let gateway = Gateway::before(&[&servers[0], &servers[1]]).await;
    let (answer, ..) = join!(gateway.messages(body()), servers[0].answer(answers[0]), servers[1].answer(answers[1]));
    let answer = answer?;
    let body = answer.body.collect().await.unwrap().to_bytes();
    Ok((answer.status, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test]
async fn when_all_failed_the_client_hears_what_it_can_act_on() {
    let limited = http(429, "retry-after: 5\r\n", "slow down");
    let busy = http(529, "retry-after: 7\r\n", "busy");
    let failed = http(500, "", "no");
    let refused = http(401, "", "who are you");
    assert_eq!(told([&limited, &failed]).await.unwrap(), (StatusCode::TOO_MANY_REQUESTS, "slow down".to_owned()));
    let overloaded = told([&busy, &failed]).await.unwrap_err();
    assert!(matches!(&overloaded, Failure::Overloaded { retry_after: Some(value) } if value == "7"), "{overloaded:?}");
    let exhausted = told([&refused, &failed]).await.unwrap_err();
    assert_eq!(exhausted.to_string(), "all upstreams failed (2 attempted)");
}
