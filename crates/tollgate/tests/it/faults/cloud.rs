//! What a cloud may send that nobody should.

use super::{Body, Cut, Error, ErrorEvent, Fault, JSON, fault};
use crate::support::cloud::bedrock::{chunk, exception};

pub(super) const STREAMED: &str = r#"{"model":"claude-sonnet-4-6","max_tokens":16,"stream":true,"messages":[]}"#;
pub(super) const WHOLE: &str = r#"{"model":"claude-sonnet-4-6","max_tokens":16,"messages":[]}"#;

/// The head of a stream, and the frames of a short one that is whole. It ends with its connection.
pub(super) fn stream() -> (&'static str, Vec<Vec<u8>>) {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#;
    let frames = [start, r#"{"type":"message_stop"}"#].map(|event| chunk(event).to_vec());
    ("HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n\r\n", frames.to_vec())
}

/// With the request that each is an answer to.
pub(super) fn faults() -> Vec<(&'static str, Fault)> {
    let (head, frames) = stream();
    let after = |frames: &[&[u8]]| [head.as_bytes(), &frames.concat()].concat();
    let flipped = |at: usize| {
        let mut frame = frames[1].clone();
        frame[at] ^= 1;
        frame
    };
    let last = frames[1].len() - 1;
    let start = &frames[0];
    let expired = exception("ExpiredTokenException", "The security token included in the request is expired");
    let html = "content-type: text/html\r\ncontent-length: 24\r\n\r\n<html>maintenance</html>";
    let half = r#"{"type":"message","usage":{"input_tok"#;
    let upstream_error = || ErrorEvent("\"upstream error\"");
    let nothing = |log| fault("", 502, Error("api_error"), "error", log);
    vec![
        (
            STREAMED,
            fault(format!("HTTP/1.1 200 OK\r\n{html}"), 502, Error("api_error"), "error", "\"text/html\" in place of"),
        ),
        (
            WHOLE,
            fault(format!("HTTP/1.1 200 OK\r\n{html}"), 502, Error("api_error"), "error", "\"text/html\" in place of"),
        ),
        (
            STREAMED,
            fault(format!("HTTP/1.1 503 No\r\n{html}"), 529, Error("overloaded_error"), "error", "answered 503"),
        ),
        (
            STREAMED,
            fault(format!("HTTP/1.1 400 No\r\n{html}"), 400, Error("invalid_request_error"), "error", "maintenance"),
        ),
        (
            WHOLE,
            fault(
                format!("{JSON}content-length: {}\r\n\r\n{half}", half.len()),
                200,
                Body(half.into()),
                "complete",
                "no whole JSON document",
            ),
        ),
        (WHOLE, fault(format!("{JSON}content-length: 4000\r\n\r\n{half}"), 200, Cut, "upstream_aborted", "broken off")),
        // Checksums: of the prelude and of the frame, first and later.
        (STREAMED, fault(after(&[&flipped(9)]), 502, Error("api_error"), "error", "checksum of a frame's prelude")),
        (STREAMED, fault(after(&[&flipped(last)]), 502, Error("api_error"), "error", "a frame's checksum")),
        (
            STREAMED,
            fault(
                after(&[start, &flipped(9)]),
                200,
                upstream_error(),
                "upstream_aborted",
                "checksum of a frame's prelude",
            ),
        ),
        (
            STREAMED,
            fault(after(&[start, &flipped(last)]), 200, upstream_error(), "upstream_aborted", "a frame's checksum"),
        ),
        (STREAMED, fault(after(&[start, b"<html>"]), 200, upstream_error(), "upstream_aborted", "within an event")),
        // Credentials that end while the answer comes, and before.
        (
            STREAMED,
            fault(
                after(&[start, &expired]),
                200,
                upstream_error(),
                "upstream_aborted",
                "ExpiredTokenException: The security",
            ),
        ),
        (STREAMED, fault(after(&[&expired]), 502, Error("api_error"), "error", "ExpiredTokenException: The security")),
        // An encoding that nobody asked for.
        (
            STREAMED,
            fault(
                head.replace("\r\n\r\n", "\r\ncontent-encoding: gzip\r\n\r\n\u{1f}"),
                502,
                Error("api_error"),
                "error",
                "in the encoding \"gzip\"",
            ),
        ),
        (STREAMED, nothing("no answer")),
        (
            STREAMED,
            fault(
                "HTTP/1.1 307 No\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
                502,
                Error("api_error"),
                "error",
                "answered 307",
            ),
        ),
    ]
}
