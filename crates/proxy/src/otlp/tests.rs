//! Posts through the relay to scripted collectors.
#![expect(clippy::unwrap_used, reason = "tests")]

use control::clock::TestClock;
use control::connect;

use super::*;
use crate::upstream::scripted::{Server, http};

fn destination(url: &str) -> Destination {
    let key = (HeaderName::from_static("x-key"), HeaderValue::from_static("k"));
    Destination { url: url.parse().unwrap(), headers: vec![key], metrics: true, logs: false, traces: false }
}

fn relay(destinations: Vec<Destination>) -> (Relay, Arc<TestClock>, TaskTracker) {
    let egress = Egress::new(&connect::Config { allow_loopback: true, proxy: None }).unwrap();
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let tasks = TaskTracker::new();
    (Relay::new(destinations, &egress, clock.clone(), tasks.clone()).unwrap(), clock, tasks)
}

/// Waits for the posts that are on their way.
async fn settle(tasks: &TaskTracker) {
    tasks.close();
    tasks.wait().await;
    tasks.reopen();
}

#[tokio::test]
async fn a_post_passes_verbatim_and_takes_nothing_else_of_the_client_along() {
    let server = Server::start().await;
    let (relay, _, tasks) = relay(vec![destination(&format!("{}/otel/", server.url()))]);
    let client = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
        (CONTENT_ENCODING, HeaderValue::from_static("gzip")),
        (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer client")),
        (HeaderName::from_static("traceparent"), HeaderValue::from_static("00")),
    ]);
    relay.forward(Signal::Metrics, &client, &Bytes::from_static(b"\x0a\x00\xff"));
    let exchange = server.answer(http(200, "", "")).await;
    settle(&tasks).await;
    assert_eq!(exchange.body, &b"\x0a\x00\xff"[..]);
    let mut lines: Vec<_> = exchange.head.trim_end().lines().filter(|line| !line.starts_with("host: ")).collect();
    lines[1..].sort_unstable();
    let agent = format!("user-agent: tollgate/{}", env!("CARGO_PKG_VERSION"));
    let expected = [
        "POST /otel/v1/metrics HTTP/1.1",
        "content-encoding: gzip",
        "content-length: 3",
        "content-type: application/x-protobuf",
        agent.as_str(),
        "x-key: k",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_destination_gets_the_signals_it_wants() {
    let (metrics, traces) = (Server::start().await, Server::start().await);
    let only_traces = Destination { metrics: false, traces: true, ..destination(&traces.url()) };
    let (relay, _, tasks) = relay(vec![destination(&metrics.url()), only_traces]);
    for signal in [Signal::Logs, Signal::Traces] {
        relay.forward(signal, &HeaderMap::new(), &Bytes::new());
    }
    let exchange = traces.answer(http(200, "", "")).await;
    settle(&tasks).await;
    assert!(exchange.head.starts_with("POST /v1/traces "));
    assert!(metrics.is_idle() && traces.is_idle());
}

#[tokio::test]
async fn five_failures_in_a_row_stop_the_posts_for_thirty_seconds() {
    let server = Server::start().await;
    let (relay, clock, tasks) = relay(vec![destination(&server.url())]);
    let post = || relay.forward(Signal::Metrics, &HeaderMap::new(), &Bytes::new());
    for _ in 0..5 {
        post();
        server.answer(http(404, "", "no")).await;
        settle(&tasks).await;
    }
    post();
    settle(&tasks).await;
    assert!(server.is_idle());
    clock.advance(breaker::REST);
    post();
    server.answer(http(200, "", "")).await;
    settle(&tasks).await;
    post();
    server.answer(http(200, "", "")).await;
}

#[tokio::test]
async fn what_there_is_no_room_for_is_dropped_and_counted() {
    let server = Server::start().await;
    let (relay, _, tasks) = relay(vec![destination(&server.url())]);
    let half = Bytes::from(vec![0; (ROOM_KIB as usize / 2 + 1) * 1024]);
    relay.forward(Signal::Metrics, &HeaderMap::new(), &half);
    relay.forward(Signal::Metrics, &HeaderMap::new(), &half);
    assert_eq!(relay.dropped(), 1);
    server.answer(http(200, "", "")).await;
    settle(&tasks).await;
    relay.forward(Signal::Metrics, &HeaderMap::new(), &half);
    assert_eq!(relay.dropped(), 1);
}
