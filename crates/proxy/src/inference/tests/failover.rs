//! Which failures send a request on to the next upstream, and what is told when none is left.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::join;

use super::super::Failure;
use super::gateway::{Gateway, MODEL, config};
use crate::upstream::scripted::{Server, http};
use crate::upstream::{self, Endpoint};

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
    first.timeouts.first_byte = Duration::from_millis(20);
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

/// Who serves a request of a session, when a server answers everything that comes so.
async fn ask_in(gateway: &Gateway, session: &str, servers: &[(&Server, &str)]) -> Result<String, Failure> {
    let request =
        Request::post("/v1/messages").header("x-claude-code-session-id", session).body(body().into()).unwrap();
    let asked = gateway.run(Endpoint::Messages, request);
    let scripts = futures_util::future::join_all(servers.iter().map(|(server, answer)| async move {
        loop {
            server.answer(answer).await;
        }
    }));
    let answer = tokio::select! {
        answer = asked => answer?,
        _ = scripts => unreachable!("they answer for ever"),
    };
    drop(answer.body.collect().await);
    let events = gateway.audit().await;
    Ok(events.last().unwrap()["upstream"].as_str().unwrap_or("-").to_owned())
}

#[tokio::test]
async fn a_session_stays_where_its_cache_is_until_that_is_gone() {
    let (first, second) = (Server::start().await, Server::start().await);
    let gateway = Gateway::before(&[&first, &second]).await;
    let (ok, busy) = (http(200, "", OK), http(529, "retry-after: 30\r\n", "busy"));
    assert_eq!(ask_in(&gateway, "s-1", &[(&first, &ok)]).await.unwrap(), "a");
    assert_eq!(ask_in(&gateway, "s-1", &[(&first, &busy), (&second, &ok)]).await.unwrap(), "b");
    // The first has recovered, as another session finds out.
    gateway.clock.advance(Duration::from_secs(31));
    assert_eq!(ask_in(&gateway, "s-2", &[(&first, &ok)]).await.unwrap(), "a");
    assert_eq!(ask_in(&gateway, "s-1", &[(&second, &ok)]).await.unwrap(), "b");
    // Each use keeps the cache for another five minutes.
    gateway.clock.advance(Duration::from_secs(299));
    assert_eq!(ask_in(&gateway, "s-1", &[(&second, &ok)]).await.unwrap(), "b");
    gateway.clock.advance(Duration::from_secs(300));
    assert_eq!(ask_in(&gateway, "s-1", &[(&first, &ok)]).await.unwrap(), "a");
}

#[tokio::test]
async fn a_cache_written_for_an_hour_keeps_its_session_for_an_hour() {
    let (first, second) = (Server::start().await, Server::start().await);
    let gateway = Gateway::before(&[&first, &second]).await;
    let (ok, busy) = (http(200, "", OK), http(529, "retry-after: 30\r\n", "busy"));
    let usage = r#"{"type":"message","usage":{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":9}}}"#;
    let cached = http(200, "content-type: application/json\r\n", usage);
    assert_eq!(ask_in(&gateway, "s-1", &[(&first, &busy), (&second, &cached)]).await.unwrap(), "b");
    gateway.clock.advance(Duration::from_secs(3599));
    assert_eq!(ask_in(&gateway, "s-2", &[(&first, &ok)]).await.unwrap(), "a");
    assert_eq!(ask_in(&gateway, "s-1", &[(&second, &ok)]).await.unwrap(), "b");
}

#[tokio::test]
async fn counting_tokens_elsewhere_moves_no_session() {
    let (first, second) = (Server::start().await, Server::start().await);
    let gateway = Gateway::before(&[&first, &second]).await;
    let count = Request::post("/v1/messages/count_tokens").header("x-claude-code-session-id", "s-1");
    let count = count.body(body().into()).unwrap();
    let (refused, counted) = (http(501, "", "no"), http(200, "", "{}"));
    let (answer, ..) = join!(gateway.run(Endpoint::CountTokens, count), first.answer(refused), second.answer(counted));
    drop(answer.unwrap().body.collect().await);
    assert_eq!(ask_in(&gateway, "s-1", &[(&first, &http(200, "", OK))]).await.unwrap(), "a");
}

#[tokio::test]
async fn a_session_leaves_its_home_when_that_fails() {
    let (first, second) = (Server::start().await, Server::start().await);
    let gateway = Gateway::before(&[&first, &second]).await;
    let (ok, busy) = (http(200, "", OK), http(529, "retry-after: 30\r\n", "busy"));
    assert_eq!(ask_in(&gateway, "s-1", &[(&first, &busy), (&second, &ok)]).await.unwrap(), "b");
    gateway.clock.advance(Duration::from_secs(31));
    assert_eq!(ask_in(&gateway, "s-1", &[(&second, &busy), (&first, &ok)]).await.unwrap(), "a");
    gateway.clock.advance(Duration::from_secs(31));
    assert_eq!(ask_in(&gateway, "s-1", &[(&first, &ok)]).await.unwrap(), "a");
}

#[tokio::test]
async fn when_all_rest_the_one_due_soonest_is_asked_rather_than_nobody() {
    let (first, second) = (Server::start().await, Server::start().await);
    let gateway = Gateway::before(&[&first, &second]).await;
    let (late, soon) = (http(529, "retry-after: 60\r\n", "busy"), http(529, "retry-after: 30\r\n", "busy"));
    let refused = ask_in(&gateway, "s-1", &[(&first, &late), (&second, &soon)]).await.unwrap_err();
    assert!(matches!(refused, Failure::Overloaded { .. }));
    let ok = http(200, "", OK);
    assert_eq!(ask_in(&gateway, "s-1", &[(&second, &ok)]).await.unwrap(), "b");
    assert!(first.is_idle());
}

#[tokio::test]
async fn who_waits_for_a_connection_goes_on_when_others_have_found_the_upstream_dead() {
    // It never says a word of TLS, so that no connection is ever made.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut dead = config("dead", &format!("https://{}", listener.local_addr().unwrap()));
    dead.timeouts.connect = Duration::from_secs(10);
    let second = Server::start().await;
    let gateway = Gateway::with(vec![dead, config("b", &second.url())], None).await;
    let asked = gateway.messages(body());
    let others = async {
        let _connecting = listener.accept().await.unwrap();
        let upstreams = &gateway.inference.upstreams;
        let catalog = wire::catalog::Catalog::new(Vec::new(), true).unwrap();
        let candidates = upstreams.candidates(catalog.resolve(MODEL).unwrap(), MODEL, &[]).unwrap();
        for _ in 0..5 {
            let (_, trial) = upstream::Round::new(&candidates, None).next().unwrap();
            trial.failed(&upstream::Failure::Silent(Duration::ZERO), true);
        }
        second.answer(http(200, "", OK)).await
    };
    // Long before there is no connection in time.
    let served = tokio::time::timeout(Duration::from_secs(8), async { join!(asked, others) }).await;
    drop(served.unwrap().0.unwrap().body.collect().await);
    let event = &gateway.audit().await[0];
    assert_eq!((&event["upstream"], &event["tried"][0]["ended"]), (&"b".into(), &"connect".into()));
}
