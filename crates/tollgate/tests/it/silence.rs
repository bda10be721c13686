//! What happens when nothing happens: pings, and how long anybody is waited for. Real connections on a clock that does not
//! wait.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clouds::{bedrock, prompt};
use crate::support::cloud::bedrock::{chunk, stream};
use crate::support::gateway::{Caller, TestGateway};
use crate::support::time::wait_for;
use crate::support::upstream::{Answer, Gate, Step, message_events};

const PROMPT: &str = r#"{"model":"claude-haiku-4-5","max_tokens":16,"stream":true,"messages":[]}"#;
const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Some of it may have passed before the waiting began.
fn is_about(waited: Duration, expected: u64) -> bool {
    (seconds(expected - 5)..seconds(expected + 1)).contains(&waited)
}

/// What this caller sends before a body of that length.
fn head(caller: &Caller, length: usize) -> String {
    let request = caller.request("POST", "/v1/messages", "");
    let bearer = request.headers()["authorization"].to_str().unwrap();
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: gateway\r\nauthorization: {bearer}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    )
}

#[tokio::test]
async fn a_silent_stream_of_a_cloud_gets_a_ping_every_15_seconds_between_whole_events() {
    let gateway = TestGateway::setup().upstream(bedrock(&json!({}))).start().await;
    let events = message_events("claude-sonnet-4-6", &["Hello"], 11, 5);
    let frames: Vec<_> = events.iter().map(|event| chunk(event)).collect();
    let (half, rest) = (frames[1].slice(..30), [&frames[1][30..], &frames[2..].concat()].concat());
    let gate = Gate::closed();
    gateway.upstream().answer(stream([frames[0].clone().into(), half.into(), gate.step(), rest.into()]));
    let mut answer = gateway.as_user("alice").stream(prompt(true).to_string()).await.unwrap();
    assert_eq!(answer.next().await.unwrap().unwrap(), events[0]);
    gate.reached().await;
    for _ in 0..3 {
        let (ping, waited) = wait_for(answer.next()).await;
        assert_eq!(ping.unwrap().unwrap(), PING);
        assert!(is_about(waited, 15), "{waited:?}");
    }
    gate.open();
    assert_eq!(answer.rest().await.unwrap(), events[1..].concat());
    let event = gateway.audit().next("inference").await;
    assert_eq!((&event["outcome"], &event["output_tokens"]), (&json!("complete"), &json!(5)));
}

#[tokio::test]
async fn a_cloud_that_says_nothing_yet_holds_the_head_back_until_the_first_ping() {
    let gateway = TestGateway::setup().upstream(bedrock(&json!({}))).start().await;
    let gate = Gate::closed();
    gateway.upstream().answer(stream([gate.step(), Step::from(chunk(r#"{"type":"message_stop"}"#))]));
    let alice = gateway.as_user("alice");
    let asking = tokio::spawn(async move { alice.stream(prompt(true).to_string()).await });
    gate.reached().await;
    let (answer, waited) = wait_for(asking).await;
    assert!(is_about(waited, 15), "{waited:?}");
    let mut answer = answer.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.next().await.unwrap().unwrap()), (200, PING.into()));
    gate.open();
    assert_eq!(answer.rest().await.unwrap(), "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

#[tokio::test]
async fn silence_of_an_upstream_of_anthropics_format_is_relayed_as_silence() {
    let gateway = TestGateway::start().await;
    let gate = Gate::closed();
    gateway.upstream().answer(Answer::stream([Step::from(": hello\n\n"), gate.step(), Step::from(": again\n\n")]));
    let mut answer = gateway.as_user("alice").stream(PROMPT).await.unwrap();
    assert_eq!(answer.next().await.unwrap().unwrap(), ": hello\n\n");
    gate.reached().await;
    let (came, _) = wait_for(tokio::time::timeout(seconds(120), answer.next())).await;
    assert!(came.is_err(), "{came:?}");
    gate.open();
    assert_eq!(answer.rest().await.unwrap(), ": again\n\n");
}

#[tokio::test]
async fn an_upstream_is_waited_for_as_long_as_the_defaults_say() {
    let gateway = TestGateway::start().await;
    let gate = Gate::closed();
    gateway.upstream().answer(Answer::message("m", "never", 1, 1).after(&gate));
    let alice = gateway.as_user("alice");
    let asking = tokio::spawn(async move { alice.messages(PROMPT).await });
    gate.reached().await;
    let (reply, waited) = wait_for(asking).await;
    assert!(reply.unwrap().status == 502 && is_about(waited, 120), "{waited:?}");

    gateway.upstream().answer(Answer::stream([Step::from(": hello\n\n"), Gate::closed().step()]));
    let mut answer = gateway.as_user("alice").stream(PROMPT).await.unwrap();
    assert_eq!(answer.next().await.unwrap().unwrap(), ": hello\n\n");
    let (end, waited) = wait_for(answer.rest()).await;
    let end = String::from_utf8(end.unwrap().to_vec()).unwrap();
    assert!(end.starts_with("event: error\n") && end.contains("timeout_error"), "{end}");
    assert!(is_about(waited, 300), "{waited:?}");
}

#[tokio::test]
async fn a_client_that_does_not_finish_the_head_of_its_request_is_let_go() {
    let gateway = TestGateway::start().await;
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(b"POST /v1/messages HTTP/1.1\r\nhost: gate").await.unwrap();
    let mut told = String::new();
    let (_, waited) = wait_for(client.read_to_string(&mut told)).await;
    assert!(is_about(waited, 12), "{waited:?}");
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_told_and_gives_up_its_seat() {
    let limits = json!({ "limits": { "max_concurrent_per_user": 1 } });
    let gateway = TestGateway::setup().config(limits).start().await;
    let alice = gateway.as_user("alice");
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(head(&alice, PROMPT.len()).as_bytes()).await.unwrap();
    // A byte a minute is little, but not nothing.
    for byte in &PROMPT.as_bytes()[..3] {
        wait_for(tokio::time::sleep(seconds(59))).await;
        client.write_all(&[*byte]).await.unwrap();
    }
    let mut told = Vec::new();
    let (_, waited) = wait_for(client.read_to_end(&mut told)).await;
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("timeout_error"), "{told}");
    assert!(is_about(waited, 60), "{waited:?}");
    let event = gateway.audit().next("inference").await;
    assert_eq!((&event["status"], &event["outcome"]), (&json!(408), &json!("client_aborted")));
    assert_eq!(alice.messages(PROMPT).await.status, 200);
}
