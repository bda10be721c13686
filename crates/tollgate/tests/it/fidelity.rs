//! What passes unchanged in either direction, however it is framed, and how an answer ends that does not come to its end.

mod encodings;
mod json;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::gateway::TestGateway;
use crate::support::http::Streamed;
use crate::support::raw::{Raw, chunk};
use crate::support::upstream::{Answer, Step};

const DATED: &str = "claude-haiku-4-5-20251001";
const PROMPT: &str = r#"{"model":"claude-haiku-4-5-20251001","max_tokens":16,"messages":[]}"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// A byte order mark, both line ends, comments, an event in several lines, unknown fields, no end of line at the end.
const ODD: &str = "\u{feff}:\r\n\r\nevent: message_start\r\ndata: {\"type\":\"message_start\",\ndata: \"message\":{\"usage\":\
                   {\"input_tokens\":3}}}\r\n\r\n: ping\n\nid: 7\nretry: 1\nodd\n\ndata: \u{1f600}\n\ndata: {\"type\":\"message_stop\"}";

/// A gateway in front of an upstream of which the test writes every byte.
async fn raw() -> (Raw, TestGateway) {
    let raw = Raw::start().await;
    let upstream = json!({ "name": "raw", "base_url": raw.url(), "breaker": { "enabled": false } });
    let gateway = TestGateway::setup().upstream(upstream).start().await;
    (raw, gateway)
}

/// Reads until so many bytes have come.
async fn read(answer: &mut Streamed, bytes: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < bytes {
        read.extend_from_slice(&answer.next().await.unwrap().unwrap());
    }
    read
}

#[tokio::test]
async fn the_largest_bodies_and_the_deepest_ones_arrive_as_they_were_sent() {
    let gateway = TestGateway::start().await;
    gateway.upstream().answer_otherwise(|_| Answer::message(DATED, "hi", 1, 1));
    let large = format!(r#"{{"messages":"{}","model":"{DATED}"}}"#, "\u{fc}\\u00fc\\n\\ud834\\udd1e".repeat(1_450_000));
    assert!((30 << 20..32 << 20).contains(&large.len()), "{}", large.len());
    let deep = format!(r#"{{"model":"{DATED}","x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for (number, body) in [large, deep].into_iter().map(Bytes::from).enumerate() {
        assert_eq!(gateway.as_user("alice").messages(body.clone()).await.status, 200);
        assert!(gateway.upstream().request(number).await.body == body, "body {number} was changed");
    }
}

#[tokio::test]
async fn a_stream_that_is_split_at_any_byte_is_handed_over_as_it_comes() {
    let (raw, gateway) = raw().await;
    let alice = gateway.as_user("alice");
    for at in 1..ODD.len() {
        let (before, after) = ODD.as_bytes().split_at(at);
        let (answer, mut stream) = tokio::join!(alice.stream(PROMPT), async {
            let mut stream = raw.accept().await;
            stream.write_all(EVENTS.as_bytes()).await.unwrap();
            stream
        });
        let mut answer = answer.unwrap();
        stream.write_all(&chunk(before)).await.unwrap();
        // It has come before the rest was sent.
        assert_eq!(read(&mut answer, at).await, before);
        stream.write_all(&[chunk(after), b"0\r\n\r\n".to_vec()].concat()).await.unwrap();
        assert_eq!(answer.rest().await.unwrap(), after, "split at {at}");
    }
}

#[tokio::test]
async fn a_stream_that_comes_byte_for_byte_passes_and_is_metered() {
    let (raw, gateway) = raw().await;
    let alice = gateway.as_user("alice");
    for end_of_line in ["\n", "\r\n", "\r"] {
        let delta = r#"data: {"type":"message_delta","usage":{"output_tokens":7}}"#;
        let events = format!("{}\n\n{delta}\n\n", ODD.trim_start_matches('\u{feff}')).replace("\r\n", "\n");
        let events = format!("\u{feff}{}", events.replace('\n', end_of_line));
        let bytes: Vec<u8> = events.bytes().flat_map(|byte| chunk([byte])).chain(*b"0\r\n\r\n").collect();
        let (reply, ()) = tokio::join!(alice.messages(PROMPT), raw.answer([EVENTS.as_bytes(), &bytes].concat()));
        assert_eq!(reply.text(), events, "{end_of_line:?}");
        let event = gateway.audit().next("inference").await;
        let told = [&event["input_tokens"], &event["output_tokens"], &event["outcome"]];
        assert_eq!(told, [&json!(3), &json!(7), &json!("complete")], "{end_of_line:?}");
    }
}

#[tokio::test]
async fn an_event_of_a_megabyte_passes() {
    let gateway = TestGateway::start().await;
    let event = format!("event: content_block_delta\r\ndata: \"{}\"\r\n\r\n", "\u{20ac}".repeat(350_000));
    gateway.upstream().answer(Answer::stream([Step::from(event.clone()), Step::from(ODD)]));
    assert_eq!(gateway.as_user("alice").messages(PROMPT).await.body, [event.as_bytes(), ODD.as_bytes()].concat());
}

#[tokio::test]
async fn interim_answers_trailers_and_missing_lengths_do_not_reach_the_client() {
    let (raw, gateway) = raw().await;
    let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let trailers = "2\r\n{}\r\n0\r\nset-cookie: a=b\r\nx-odd: 1\r\n\r\n";
    let answers = [
        format!("{hints}HTTP/1.1 200 OK\r\ntrailer: x-odd\r\ntransfer-encoding: chunked\r\n\r\n{trailers}"),
        "HTTP/1.0 200 OK\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}".to_owned(),
    ];
    for script in answers {
        let alice = gateway.as_user("alice");
        let (reply, ()) = tokio::join!(alice.messages(PROMPT), async {
            raw.accept().await.write_all(script.as_bytes()).await.unwrap();
        });
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "{}"), "{script}");
        for absent in ["link", "set-cookie", "x-odd", "trailer"] {
            assert!(!reply.headers.contains_key(absent), "{absent} passed");
        }
    }
}

#[tokio::test]
async fn pages_and_halves_of_documents_are_relayed_as_they_are() {
    let mut gateway = TestGateway::start().await;
    for (status, kind, body) in [
        (200, "text/html", "<html>maintenance</html>"),
        (422, "text/html; charset=iso-8859-1", "<h1>no"),
        (200, "application/json", r#"{"type":"message","usage":{"input_tok"#),
        (400, "application/json", r#"{"error":"#),
    ] {
        gateway.upstream().answer(Answer::new(status, kind, body));
        let reply = gateway.as_user("alice").messages(PROMPT).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type"), reply.text()), (status, Some(kind), body));
        gateway.audit().next("inference").await;
    }
    gateway.stop().await;
    assert_eq!(gateway.books().await.reserved, 0);
}

#[tokio::test]
async fn error_bodies_without_end_are_neither_read_for_a_verdict_nor_kept() {
    let (raw, gateway) = raw().await;
    let head = |status: u16| format!("HTTP/1.1 {status} No\r\ncontent-length: 104857600\r\n\r\n");
    // The verdict needs the status only.
    let alice = gateway.as_user("alice");
    let (reply, stream) = tokio::join!(alice.messages(PROMPT), async {
        let mut stream = raw.accept().await;
        stream.write_all(head(500).as_bytes()).await.unwrap();
        stream
    });
    assert_eq!(reply.status, 502);
    drop(stream);
    // What is relayed passes through.
    let (answer, ()) = tokio::join!(
        async {
            let mut answer = alice.stream(PROMPT).await.unwrap();
            let mut seen = 0;
            while let Some(piece) = answer.next().await {
                seen += piece.unwrap().len();
            }
            (answer.status, seen)
        },
        async {
            let mut stream = raw.accept().await;
            stream.write_all(head(400).as_bytes()).await.unwrap();
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..100 {
                stream.write_all(&piece).await.unwrap();
            }
        }
    );
    assert_eq!((answer.0.as_u16(), answer.1), (400, 100 << 20));
}

#[tokio::test]
async fn an_upstream_that_closes_at_any_byte_leaves_one_answer_one_end_and_one_settlement() {
    let (raw, mut gateway) = raw().await;
    let alice = gateway.as_user("alice");
    let start = br#"data: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#;
    let stop = b"\n\ndata: {\"type\":\"message_stop\"}\n\n";
    let script = [EVENTS.as_bytes(), &chunk(start), &chunk(stop), b"0\r\n\r\n"].concat();
    let (mut failed, mut cut, mut whole) = (0, 0, 0);
    for at in 0..=script.len() {
        let (answer, ()) = tokio::join!(alice.stream(PROMPT), async {
            raw.accept().await.write_all(&script[..at]).await.unwrap();
        });
        let answer = answer.unwrap_or_else(|error| panic!("at {at}: {error:?}"));
        let (status, body) = (answer.status.as_u16(), answer.rest().await);
        match (status, body) {
            (502, Ok(body)) => {
                assert!(String::from_utf8(body.to_vec()).unwrap().contains("all upstreams failed"));
                failed += 1;
            }
            (200, Err(_)) => cut += 1,
            (200, Ok(body)) => {
                assert_eq!(body, [&start[..], stop].concat());
                whole += 1;
            }
            other => panic!("at {at}: {other:?}"),
        }
        let event = gateway.audit().next("inference").await;
        assert_eq!(event["status"], status, "at {at}");
    }
    assert_eq!((failed, cut, whole), (EVENTS.len(), script.len() - EVENTS.len(), 1));
    gateway.stop().await;
    let books = gateway.books().await;
    assert_eq!(books.reserved, 0);
    assert_eq!(books.usage.iter().filter(|usage| usage.charge > 0).count(), cut + whole);
}

#[tokio::test]
async fn an_upstream_is_not_read_faster_than_its_client_reads() {
    const OFFERED: usize = 256 << 20;
    let (raw, gateway) = raw().await;
    let alice = gateway.as_user("alice");
    let (answer, stream) = tokio::join!(alice.stream(PROMPT), async {
        let mut stream = raw.accept().await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {OFFERED}\r\n\r\n").as_bytes()).await.unwrap();
        stream
    });
    let answer = answer.unwrap();
    // As much as goes while nobody reads. To stop asking too early can only make it less.
    let (piece, mut taken, mut refusals) = (vec![b'x'; 1 << 20], 0, 0);
    while taken < OFFERED && refusals < 20_000 {
        match stream.try_write(&piece[..piece.len().min(OFFERED - taken)]) {
            Ok(count) => (taken, refusals) = (taken + count, 0),
            Err(_) => {
                refusals += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(taken < 64 << 20, "{taken} bytes were taken from the upstream for a client that reads nothing");
    // Who reads gets all of it.
    let sent = Arc::new(AtomicUsize::new(taken));
    let sending = tokio::spawn({
        let sent = Arc::clone(&sent);
        let mut stream = stream;
        async move {
            while sent.load(Ordering::Relaxed) < OFFERED {
                let count =
                    stream.write(&piece[..piece.len().min(OFFERED - sent.load(Ordering::Relaxed))]).await.unwrap();
                sent.fetch_add(count, Ordering::Relaxed);
            }
            stream
        }
    });
    let mut answer = answer;
    let mut seen = 0;
    while let Some(piece) = answer.next().await {
        seen += piece.unwrap().len();
    }
    assert_eq!(seen, OFFERED);
    drop(sending.await.unwrap());
}
