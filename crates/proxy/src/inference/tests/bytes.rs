//! Bytes are not ours: they pass as they came, when they came.

use ::bytes::Bytes;
use http::Request;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::join;

use super::gateway::{Gateway, MODEL, config};
use crate::upstream::Endpoint;
use crate::upstream::scripted::{Server, http};

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Numbers, spaces and bytes that no JSON library would write again as they are.
fn odd(model: &str) -> Vec<u8> {
    let mut body =
        format!("{{ \"max_tokens\" : 1.0e2,\n\t\"model\":\"{model}\" , \"n\":12345678901234567890, \"t\":\"")
            .into_bytes();
    body.extend_from_slice(b"\\u00e4\xff\xfe\"}\r\n");
    body
}

#[tokio::test]
async fn a_body_whose_model_the_upstream_knows_passes_byte_for_byte() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let (answer, exchange) = join!(gateway.messages(odd(MODEL)), server.answer(http(200, "", "{ \"a\" : 1.0 }")));
    assert_eq!(exchange.body, odd(MODEL));
    let body = answer.unwrap().body;
    assert_eq!(body.size_hint().exact(), Some(13));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "{ \"a\" : 1.0 }");
}

#[tokio::test]
async fn only_the_model_and_the_tags_are_cut_out_of_the_bytes() {
    let server = Server::start().await;
    let gateway = Gateway::with(vec![config("a", &format!("{}/prefix/", server.url()))], Some("team")).await;
    let body = |model, tags| format!("{{\"model\": \"{model}\"{tags}, \"n\": 1.0 ,\"max_tokens\":1}}");
    let request = Request::post("/v1/messages?beta=true&x=1%20y&z=%2F")
        .header("anthropic-beta", "a-1, request-tags-2026-08-21,b-2")
        .body(Bytes::from(body("Claude-Sonnet-4-5", ",\"tags\": {\"team\": \"eng\"}")))
        .unwrap();
    let (answer, exchange) = join!(gateway.run(Endpoint::Messages, request), server.answer(http(200, "", "{}")));
    drop(answer);
    assert_eq!(exchange.body, body(MODEL, ""));
    assert!(
        exchange.head.starts_with("POST /prefix/v1/messages?beta=true&x=1%20y&z=%2F HTTP/1.1\r\n"),
        "{}",
        exchange.head
    );
    assert!(exchange.head.contains("anthropic-beta: a-1,b-2\r\n"), "{}", exchange.head);
    assert_eq!(gateway.audit().await[0]["billing_group"], "eng");
}

#[tokio::test]
async fn headers_come_at_once_and_every_chunk_as_it_was_sent() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let chunks = [": comment\r\n\r\nevent: mess", "age_start\r\ndata: {}\r\n\r\n", "data: [\n\n"];
    let (answer, mut exchange) = join!(gateway.messages(odd(MODEL)), async {
        let mut exchange = server.accept().await;
        exchange.send(EVENTS).await;
        exchange
    });
    // Not a byte of the body is there yet.
    let mut answer = answer.unwrap();
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    for chunk in chunks {
        exchange.chunk(chunk).await;
        assert_eq!(answer.body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
    }
    exchange.send("0\r\n\r\n").await;
    assert!(answer.body.frame().await.is_none());
}

#[tokio::test]
async fn a_redirect_is_relayed_and_not_followed() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let redirect = http(307, "location: http://127.0.0.1:1/\r\nset-cookie: a=b\r\nretry-after: 3\r\n", "moved");
    let (answer, _) = join!(gateway.messages(odd(MODEL)), server.answer(redirect));
    let answer = answer.unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!(format!("{:?}", answer.headers), r#"{"retry-after": "3"}"#);
    assert_eq!(answer.body.collect().await.unwrap().to_bytes(), "moved");
}

#[tokio::test]
async fn an_error_of_the_upstream_is_relayed_with_its_body() {
    let server = Server::start().await;
    let gateway = Gateway::before(&[&server]).await;
    let page = "<html>no</html>".repeat(6000);
    let (answer, _) = join!(gateway.messages(odd(MODEL)), server.answer(http(400, "x-should-retry: false\r\n", &page)));
    let answer = answer.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.headers["x-should-retry"]), (400, &"false".parse().unwrap()));
    assert_eq!(answer.body.collect().await.unwrap().to_bytes(), page);
}
