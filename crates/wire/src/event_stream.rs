//! AWS event streams (`application/vnd.amazon.eventstream`) out of arbitrary chunks, and the server-sent events that are in
//! them.
//!
//! Knows the framing (prelude, headers, payload, a checksum of each) and how Bedrock wraps an event of the Messages API;
//! knows nothing of what the events mean. Frame by frame: nothing waits for a later frame.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};

use crate::json;
use crate::usage::event_type;

/// The largest frame that is taken, headers and checksums included. Amazon's own limit of a payload is 16 MiB.
pub const MAX_FRAME_BYTES: usize = (16 << 20) + MAX_HEADER_BYTES + OVERHEAD;
const MAX_HEADER_BYTES: usize = 128 << 10;

/// Total length, length of the headers, checksum of both.
const PRELUDE: usize = 12;
/// What a frame has beside headers and payload: the prelude and the checksum at its end.
const OVERHEAD: usize = PRELUDE + 4;

/// An incremental reader. Memory stays within one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    held: BytesMut,
}

/// The stream ended otherwise than by its last frame. Nothing that follows can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The bytes are no event stream.
    #[error("the event stream is damaged: {0}")]
    Damaged(&'static str),
    /// The service says what went wrong.
    #[error("{kind}: {message}")]
    Exception {
        /// `:exception-type`, such as `throttlingException`, or `:error-code`.
        kind: String,
        /// Its words: for the log.
        message: String,
    },
}

impl Decoder {
    /// Takes the next bytes and appends the events that they complete to `out`, as server-sent events.
    ///
    /// # Errors
    /// [`Broken`]; what came before is in `out`.
    pub fn feed(&mut self, chunk: &[u8], out: &mut BytesMut) -> Result<(), Broken> {
        self.held.extend_from_slice(chunk);
        while let Some(length) = self.frame_length()? {
            let frame = self.held.split_to(length);
            let (body, sum) = frame.split_at(length - 4);
            if crc32fast::hash(body) != word(sum) {
                return Err(Broken::Damaged("a frame's checksum is wrong"));
            }
            read_frame(&body[PRELUDE..], word(&body[4..]) as usize, out)?;
        }
        Ok(())
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn is_within(&self) -> bool {
        !self.held.is_empty()
    }

    /// The length of the frame at the start, once all of it is there. Its prelude is checked before anything is waited for.
    fn frame_length(&self) -> Result<Option<usize>, Broken> {
        let Some(prelude) = self.held.get(..PRELUDE) else { return Ok(None) };
        if crc32fast::hash(&prelude[..8]) != word(&prelude[8..]) {
            return Err(Broken::Damaged("the checksum of a frame's prelude is wrong"));
        }
        let (total, headers) = (word(prelude) as usize, word(&prelude[4..]) as usize);
        if total > MAX_FRAME_BYTES || headers > MAX_HEADER_BYTES || total < OVERHEAD + headers {
            return Err(Broken::Damaged("a frame has an impossible length"));
        }
        Ok((self.held.len() >= total).then_some(total))
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
}

/// The headers that say what a frame is. All are texts.
#[derive(Default)]
struct Heads<'a> {
    message_type: &'a [u8],
    event_type: &'a [u8],
    kind: &'a [u8],
    message: &'a [u8],
}

fn read_frame(frame: &[u8], header_length: usize, out: &mut BytesMut) -> Result<(), Broken> {
    let (headers, payload) = frame.split_at(header_length.min(frame.len()));
    let heads = Heads::read(headers).ok_or(Broken::Damaged("a frame's headers cannot be read"))?;
    match heads.message_type {
        b"event" if heads.event_type == b"chunk" => {
            let event = json::get(payload, "bytes").and_then(json::inner).and_then(|text| STANDARD.decode(text).ok());
            write_event(&event.ok_or(Broken::Damaged("a chunk holds no event"))?, out);
            Ok(())
        }
        b"exception" | b"error" => {
            let told = json::get(payload, "message").and_then(json::text);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Err(Broken::Exception { kind: text(heads.kind), message: told.unwrap_or_else(|| text(heads.message)) })
        }
        // Not an event of the Messages API.
        _ => Ok(()),
    }
}

/// An event as the Messages API writes it.
fn write_event(data: &[u8], out: &mut BytesMut) {
    out.reserve(data.len() + 64);
    if let Some(name) = event_type(data) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name);
        out.extend_from_slice(b"\n");
    }
    // A line feed may stand between the tokens of a JSON text.
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"\n");
}

impl<'a> Heads<'a> {
    fn read(mut rest: &'a [u8]) -> Option<Self> {
        let mut heads = Self::default();
        while !rest.is_empty() {
            let name_length = usize::from(rest.get_u8());
            let name = take(&mut rest, name_length)?;
            let kind = take(&mut rest, 1)?[0];
            let length = match kind {
                0 | 1 => 0,
                2 => 1,
                3 => 2,
                4 => 4,
                5 | 8 => 8,
                9 => 16,
                6 | 7 => {
                    let length = take(&mut rest, 2)?;
                    usize::from(u16::from_be_bytes([length[0], length[1]]))
                }
                _ => return None,
            };
            let value = take(&mut rest, length)?;
            match name {
                b":message-type" => heads.message_type = value,
                b":event-type" => heads.event_type = value,
                b":exception-type" | b":error-code" => heads.kind = value,
                b":error-message" => heads.message = value,
                _ => {}
            }
        }
        Some(heads)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests;
