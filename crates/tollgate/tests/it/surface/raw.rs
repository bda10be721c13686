//! Requests that no client library would send.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PROMPT;
use crate::support::gateway::{Caller, TestGateway};
use crate::support::upstream::{Answer, Gate, Step};

/// The whole answer to these bytes, until the gateway closes the connection.
async fn answer(gateway: &TestGateway, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn get(gateway: &TestGateway, target: &str) -> String {
    answer(gateway, format!("GET {target} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn a_path_means_the_same_to_the_gateway_as_to_a_proxy_in_front() {
    let gateway = TestGateway::start().await;
    for target in ["/healthz", "/x/../healthz", "/./healthz", "/../healthz", "/healthz?x=/../y"] {
        assert!(get(&gateway, target).await.starts_with("HTTP/1.1 200 "), "{target}");
    }
    // Not decoded, not folded, not guessed.
    for target in
        ["/%68ealthz", "/healthz/../v1/models", "/healthz%2f..%2fx", "/HealthZ", "//healthz", "/healthz/", "/healthz;x"]
    {
        assert!(get(&gateway, target).await.starts_with("HTTP/1.1 401 "), "{target}");
    }
}

#[tokio::test]
async fn a_request_that_two_servers_could_read_differently_is_refused() {
    let gateway = TestGateway::start().await;
    let post = "POST /v1/messages HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n";
    let requests = [
        (411, format!("{post}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        // The server library has dropped the length by the time we see the request, and closes the connection after it.
        (411, format!("{post}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n")),
        (400, format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")),
        (400, format!("{post}content-length: two\r\n\r\n{{}}")),
        (400, format!("{post}transfer-encoding: odd\r\n\r\n{{}}")),
        (400, "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned()),
        (400, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned() + "\r\n\r\n"),
    ];
    for (status, request) in requests {
        let told = answer(&gateway, &request).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} -> {told}");
    }
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn a_body_that_is_refused_by_its_length_is_not_waited_for() {
    let gateway = TestGateway::start().await;
    let head = "POST /v1/messages HTTP/1.1\r\nhost: gateway\r\ncontent-length: 33554433\r\n\r\n";
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let limits = json!({ "limits": { "max_concurrent_requests": 1 } });
    let gateway = TestGateway::setup().config(limits).start().await;
    gateway.cap("blocked", 0).await;
    let gate = Gate::closed();
    gateway.upstream().answer(Answer::stream([Step::from(": hello\n\n"), gate.step()]));
    let blocked = bearer(&gateway.as_user("blocked"));
    let others = bearer(&gateway.as_user("alice"));
    // More than any socket holds, so that it cannot all be sent unless somebody reads it.
    let most = 40 << 20;
    for (status, authorization, length) in [
        (401, "", 30 << 20),
        (413, &*others, most),
        (404, &*others, 30 << 20),
        (429, &*blocked, 30 << 20),
        (529, &*others, 30 << 20),
    ] {
        let path = if status == 404 { "/nowhere" } else { "/v1/messages" };
        let serving = match status {
            529 => Some(gateway.as_user("bob").stream(PROMPT).await.unwrap()),
            _ => None,
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{authorization}content-length: {length}\r\n\r\n"
        );
        let told = answer(&gateway, [head.as_bytes(), &vec![b'x'; length]].concat()).await;
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")) && told.ends_with('}'), "{status}: {told}");
        drop(serving);
    }
}

#[tokio::test]
async fn who_is_known_to_be_blocked_is_told_before_the_body_has_come() {
    let gateway = TestGateway::start().await;
    gateway.cap("alice", 0).await;
    let alice = gateway.as_user("alice");
    assert_eq!(alice.messages(PROMPT).await.status, 429);
    let authorization = bearer(&alice);
    let head = format!("POST /v1/messages HTTP/1.1\r\nhost: gateway\r\n{authorization}content-length: 1000\r\n\r\n");
    let told = answer(&gateway, head).await;
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("billing_error"), "{told}");
}

fn bearer(caller: &Caller) -> String {
    let request = caller.request("POST", "/", "");
    format!("authorization: {}\r\n", request.headers()["authorization"].to_str().unwrap())
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let gateway = TestGateway::start().await;
    let head = "POST /oauth/token HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 100");
    stream.write_all(b"a=").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 400 "), "{rest}");
}
