//! Compressed answers: passed as they came, and metered all the same (contract R26a).

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use super::PROMPT;
use crate::support::gateway::TestGateway;
use crate::support::upstream::{Answer, Gate, Step, message_events};

const EVENTS: &str = "text/event-stream; charset=utf-8";
const TEXT: &str = include_str!("../../../../wire/src/usage/golden/text.sse");
/// As a real encoder writes it.
const TEXT_BR: &[u8] = include_bytes!("../../../../wire/src/usage/golden/text.sse.br");
const MESSAGE: &str = r#"{"type":"message","content":[{"type":"text","text":"hello"}],"usage":{"input_tokens":1000,"output_tokens":200,"cache_read_input_tokens":30}}"#;

fn encoded(body: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    zlib.write_all(body.as_bytes()).unwrap();
    vec![
        ("gzip", gzip.finish().unwrap()),
        ("deflate", zlib.finish().unwrap()),
        ("zstd", zstd::stream::encode_all(body.as_bytes(), 3).unwrap()),
        ("br", stored_brotli(body.as_bytes())),
        ("identity", body.as_bytes().to_vec()),
    ]
}

/// Brotli without compression (RFC 7932, section 9.2): one uncompressed meta-block and the empty last one.
fn stored_brotli(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() - 1).unwrap();
    assert!(length < 1 << 16);
    // From the lowest bit: a window of 64 KiB (1), not the last (1), four nibbles (2), the length (16), uncompressed (1).
    let head = (length << 4 | 1 << 20).to_le_bytes();
    [&head[..3], body, &[3]].concat()
}

/// What an answer's audit event says of what it used.
fn used(event: &Value) -> Value {
    let fields = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cost_usd", "estimated", "outcome"];
    fields.iter().map(|field| event[*field].clone()).collect()
}

#[tokio::test]
async fn every_encoding_passes_untouched_and_costs_what_the_plain_answer_costs() {
    let gateway = TestGateway::start().await;
    let alice = gateway.as_user("alice").header("accept-encoding", "gzip, br, zstd");
    let mut streams = encoded(TEXT);
    streams.push(("br", TEXT_BR.to_vec()));
    for (media_type, plain, bodies) in [(EVENTS, TEXT, streams), ("application/json", MESSAGE, encoded(MESSAGE))] {
        gateway.upstream().answer(Answer::new(200, media_type, plain));
        alice.messages(PROMPT).await;
        let expected = used(&gateway.audit().next("inference").await);
        assert!(expected[0].as_u64() > Some(0) && expected[5] == "complete", "{expected}");
        for (encoding, body) in bodies {
            let pieces = body.chunks(7).map(|piece| Step::from(piece.to_vec())).collect();
            gateway.upstream().answer(Answer::in_steps(media_type, pieces).header("content-encoding", encoding));
            let reply = alice.messages(PROMPT).await;
            assert_eq!(reply.header("content-encoding"), Some(encoding));
            assert!(reply.body == body, "{encoding}: {media_type} was changed");
            assert_eq!(used(&gateway.audit().next("inference").await), expected, "{encoding}: {media_type}");
        }
    }
    let asked = gateway.upstream().request(0).await;
    assert_eq!(asked.header("accept-encoding"), Some("gzip, br, zstd"), "it is the client's choice");
}

#[tokio::test]
async fn a_compressed_stream_that_is_cut_gets_nothing_written_into_it_and_costs_what_came() {
    let gateway = TestGateway::start().await;
    let events = message_events("claude-haiku-4-5-20251001", &[&"x".repeat(400)], 1000, 1);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for event in &events[..4] {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
    }
    let sent = std::mem::take(encoder.get_mut());
    let gate = Gate::closed();
    let answer = Answer::stream([Step::from(sent.clone()), gate.step()]).header("content-encoding", "gzip");
    gateway.upstream().answer(answer.then_reset());
    let mut answer = gateway.as_user("alice").stream(PROMPT).await.unwrap();
    let mut read = Vec::new();
    while read.len() < sent.len() {
        read.extend_from_slice(&answer.next().await.unwrap().unwrap());
    }
    assert_eq!(read, sent);
    gate.open();
    answer.rest().await.unwrap_err();
    let event = gateway.audit().next("inference").await;
    // 400 characters are a hundred tokens of output.
    assert_eq!(used(&event), json!([1000, 100, 0, 0.0015, true, "upstream_aborted"]));
}
