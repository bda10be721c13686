//! Frames in, server-sent events out. The frames are made by Amazon's own encoder.
#![expect(clippy::unwrap_used, reason = "tests")]

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

use super::*;

fn frame(headers: &[(&'static str, HeaderValue)], payload: &str) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| Header::new(*name, value.clone())).collect();
    let mut bytes = Vec::new();
    write_message_to(&Message::new_from_parts(headers, payload.to_owned()), &mut bytes).unwrap();
    bytes
}

fn text(value: &'static str) -> HeaderValue {
    HeaderValue::String(value.into())
}

fn chunk(event: &str) -> Vec<u8> {
    let headers =
        [(":event-type", text("chunk")), (":content-type", text("application/json")), (":message-type", text("event"))];
    frame(&headers, &format!("{{\"bytes\":\"{}\",\"p\":\"abcdefgh\"}}", STANDARD.encode(event)))
}

fn exception(kind: &'static str, message: &str) -> Vec<u8> {
    let headers = [(":exception-type", text(kind)), (":message-type", text("exception"))];
    frame(&headers, &format!("{{\"message\":\"{message}\"}}"))
}

fn decoded(stream: &[u8], size: usize) -> (String, Result<(), Broken>, bool) {
    let (mut decoder, mut out) = (Decoder::default(), BytesMut::new());
    let end = stream.chunks(size.max(1)).try_for_each(|chunk| decoder.feed(chunk, &mut out));
    (String::from_utf8_lossy(&out).into_owned(), end, decoder.is_within())
}

fn answer() -> Vec<u8> {
    [
        chunk(
            r#"{"type":"message_start","message":{"id":"msg_bdrk_1","usage":{"input_tokens":12345678901234567890}}}"#,
        ),
        frame(&[(":event-type", text("later")), (":message-type", text("event"))], "{}"),
        chunk(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße \u2728"}}"#),
        chunk("{\n  \"type\": \"of_tomorrow\",\r\n  \"n\": 1.0\n}"),
        chunk(r#"{"no":"type"}"#),
        chunk(r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":8}}"#),
    ]
    .concat()
}

#[test]
fn an_answer_becomes_server_sent_events_however_it_is_cut() {
    let (events, end, is_within) = decoded(&answer(), usize::MAX);
    assert_eq!((end, is_within), (Ok(()), false));
    insta::assert_snapshot!(events, @r#"
    event: message_start
    data: {"type":"message_start","message":{"id":"msg_bdrk_1","usage":{"input_tokens":12345678901234567890}}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße \u2728"}}

    event: of_tomorrow
    data: {
    data:   "type": "of_tomorrow",
    data: 
    data:   "n": 1.0
    data: }

    data: {"no":"type"}

    event: message_stop
    data: {"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":8}}

    "#);
    for size in 1..200 {
        assert_eq!(decoded(&answer(), size).0, events, "chunks of {size}");
    }
    for at in 0..answer().len() {
        let (mut decoder, mut out) = (Decoder::default(), BytesMut::new());
        decoder.feed(&answer()[..at], &mut out).unwrap();
        decoder.feed(&answer()[at..], &mut out).unwrap();
        assert_eq!(out, events.as_bytes(), "cut at {at}");
    }
}

#[test]
fn an_exception_ends_the_stream_behind_what_came_before() {
    let stream = [chunk(r#"{"type":"ping"}"#), exception("throttlingException", "Too many"), answer()].concat();
    let (events, end, _) = decoded(&stream, 7);
    assert_eq!(events, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
    assert_eq!(end.unwrap_err().to_string(), "throttlingException: Too many");
    let headers = [(":message-type", text("error")), (":error-code", text("Internal")), (":error-message", text("oh"))];
    assert_eq!(decoded(&frame(&headers, ""), 1).1.unwrap_err().to_string(), "Internal: oh");
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let whole = chunk(r#"{"type":"ping"}"#);
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        let (events, end, is_within) = decoded(&bad, 5);
        assert_eq!(events, "", "{at}");
        assert!(end.is_err() || is_within, "{at}");
    }
}

#[test]
fn every_kind_of_header_is_skipped_and_no_other() {
    let headers = [
        ("a", HeaderValue::Bool(true)),
        ("b", HeaderValue::Bool(false)),
        ("c", HeaderValue::Byte(1)),
        ("d", HeaderValue::Int16(1)),
        ("e", HeaderValue::Int32(1)),
        ("f", HeaderValue::Int64(1)),
        ("g", HeaderValue::ByteArray(vec![1, 2, 3].into())),
        ("h", HeaderValue::Uuid(1)),
        (":message-type", text("exception")),
        (":exception-type", text("x")),
    ];
    assert_eq!(decoded(&frame(&headers, "{}"), 3).1.unwrap_err().to_string(), "x: ");
}

#[test]
fn absurd_lengths_are_refused_before_they_are_waited_for() {
    let prelude = |total: u32, headers: u32| {
        let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    };
    for bad in [prelude(u32::MAX, 0), prelude(15, 0), prelude(100, 100), prelude(1 << 20, 1 << 19)] {
        assert!(decoded(&bad, 4).1.is_err());
    }
    assert!(decoded(b"<html>not an event stream</html>", 4).1.is_err());
}
