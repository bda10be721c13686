//! HTTP/1.1 framing, just enough for loopback, so that neither end of the benchmark costs more than its system calls.
//! Knows where heads and bodies end; refuses to know what they mean. Not for hostile peers.

use anyhow::{Context, Result, bail};
use memchr::memmem;

/// How the end of a body is told (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Content-Length, in bytes; zero when a request names no framing at all.
    Exact(usize),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// A response without either: it ends with the connection.
    UntilClose,
}

/// What was read from the head of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// The request line or status line, without its line break.
    pub(crate) start: &'a str,
    /// How the body ends.
    pub(crate) framing: Framing,
    /// The sender closes the connection after this message.
    pub(crate) close: bool,
}

impl Head<'_> {
    /// The status code, when this is the head of a response.
    pub(crate) fn status(&self) -> Result<u16> {
        let code = self.start.split(' ').nth(1).context("a status line without a code")?;
        code.parse().with_context(|| format!("a status that is no number: {code}"))
    }
}

/// Where the head ends in the bytes received so far: the offset of the first byte of the body.
pub(crate) fn end_of_head(received: &[u8]) -> Option<usize> {
    memmem::find(received, b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head that `end_of_head` found complete.
pub(crate) fn parse_head(head: &[u8]) -> Result<Head<'_>> {
    let text = std::str::from_utf8(head).context("a head that is not UTF-8")?;
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let response = start.starts_with("HTTP/");
    let bodiless = response && matches!(start.split(' ').nth(1), Some("204" | "304"));
    let mut framing = if response && !bodiless { Framing::UntilClose } else { Framing::Exact(0) };
    let mut close = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Exact(value.parse().context("a Content-Length that is no number")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            close = true;
        }
    }
    Ok(Head { start, framing, close })
}

/// An incremental reader of the chunked coding (RFC 9112 section 7.1).
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    at: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Size(usize),
    Extension(usize),
    Payload(usize),
    AfterPayload,
    Trailer { empty: bool },
    Done,
}

impl Default for Place {
    fn default() -> Self {
        Self::Size(0)
    }
}

impl Chunks {
    /// Whether the last chunk and its trailer were seen.
    pub(crate) const fn done(&self) -> bool {
        matches!(self.at, Place::Done)
    }

    /// Takes the next bytes of the connection and hands out the payload in them.
    /// Bytes after the end of the body are ignored: neither end of this harness pipelines.
    pub(crate) fn feed(&mut self, mut input: &[u8], mut payload: impl FnMut(&[u8])) -> Result<()> {
        while let Some((&byte, rest)) = input.split_first() {
            if let Place::Payload(left) = self.at {
                let (now, later) = input.split_at(left.min(input.len()));
                payload(now);
                input = later;
                self.at = if now.len() == left { Place::AfterPayload } else { Place::Payload(left - now.len()) };
                continue;
            }
            input = rest;
            self.at = match (self.at, byte) {
                (Place::Size(size), b'\n') => Self::after_size(size),
                (Place::Size(size), b';' | b'\r' | b' ') => Place::Extension(size),
                (Place::Size(size), digit) => match char::from(digit).to_digit(16) {
                    Some(value) if size < 1 << 32 => Place::Size(size * 16 + value as usize),
                    _ => bail!("a chunk size that is no hexadecimal number"),
                },
                (Place::Extension(size), b'\n') => Self::after_size(size),
                (Place::AfterPayload, b'\n') => Place::Size(0),
                (Place::Trailer { empty: true }, b'\n') => Place::Done,
                (Place::Trailer { empty: false }, b'\n') => Place::Trailer { empty: true },
                (Place::Trailer { empty }, byte) => Place::Trailer { empty: empty && byte == b'\r' },
                (unchanged, _) => unchanged,
            };
        }
        Ok(())
    }

    const fn after_size(size: usize) -> Place {
        if size == 0 { Place::Trailer { empty: true } } else { Place::Payload(size) }
    }
}

/// Appends one chunk holding `payload`.
pub(crate) fn push_chunk(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// The chunk that ends a body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_cut_anywhere_gives_the_same_payload() {
        let mut coded = Vec::new();
        push_chunk(&mut coded, b"event: message_start\n");
        push_chunk(&mut coded, &[b'x'; 300]);
        coded.extend_from_slice(b"3;name=value\r\nabc\r\n0\r\nTrailer: yes\r\n\r\n");
        for step in 1..coded.len() {
            let (mut chunks, mut seen) = (Chunks::default(), Vec::new());
            for piece in coded.chunks(step) {
                assert!(!chunks.done());
                chunks.feed(piece, |data| seen.extend_from_slice(data)).unwrap();
            }
            assert!(chunks.done());
            assert_eq!(seen.len(), 21 + 300 + 3);
            assert!(seen.ends_with(b"xabc"));
        }
    }

    #[test]
    fn a_head_tells_how_its_body_ends() {
        let framing = |head: &[u8]| parse_head(head).unwrap().framing;
        assert_eq!(framing(b"POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n"), Framing::Exact(7));
        assert_eq!(framing(b"GET / HTTP/1.1\r\n\r\n"), Framing::Exact(0));
        assert_eq!(framing(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), Framing::Chunked);
        assert_eq!(framing(b"HTTP/1.1 200 OK\r\n\r\n"), Framing::UntilClose);
        assert_eq!(framing(b"HTTP/1.1 204 No Content\r\n\r\n"), Framing::Exact(0));
    }

    #[test]
    fn a_status_line_gives_its_code() {
        assert_eq!(parse_head(b"HTTP/1.1 429 Too Many Requests\r\n\r\n").unwrap().status().unwrap(), 429);
    }
}
