//! Token usage, read beside an answer that is relayed untouched.
//!
//! Knows the shapes of Messages answers and their encodings; knows no price and never alters a byte.

mod body;
mod counts;
mod decode;
mod stream;

use std::fmt;

use bytes::Bytes;

use body::Body;
use decode::Decoder;
use stream::Stream;

pub(crate) use stream::event_type;

/// Tokens of one request by price class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Uncached input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Tokens read from the prompt cache.
    pub cache_read_input_tokens: u64,
    /// Tokens written to the prompt cache for five minutes.
    pub cache_creation_5m_tokens: u64,
    /// Tokens written to the prompt cache for one hour.
    pub cache_creation_1h_tokens: u64,
    /// `server_tool_use.web_search_requests`.
    pub web_search_requests: u64,
    /// `usage.speed` was `"fast"`.
    pub fast: bool,
}

impl Usage {
    /// Tokens of the prompt: uncached, read from and written to the cache.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        let Self { input_tokens, cache_read_input_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens, .. } =
            *self;
        [input_tokens, cache_read_input_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// The usage of a cut answer: the input as it was announced, and output of at least one token per four characters of
    /// the text that was seen ([`Reading::text_bytes`]).
    #[must_use]
    pub fn estimate_output(self, text_bytes: u64) -> Self {
        Self { output_tokens: self.output_tokens.max(text_bytes.div_ceil(4)), ..self }
    }
}

/// Where the numbers of a [`Reading`] come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// No usage seen.
    #[default]
    None,
    /// Only `message_start`, or counts without the output: input is known, output is not.
    Start,
    /// A `message_delta` with its output, or a JSON answer with it.
    Final,
}

/// What is known of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The counts, clamped to what is possible.
    pub usage: Usage,
    /// Where they come from.
    pub source: Source,
    /// Characters of text, thinking and tool-input JSON seen; four are about one output token. Counted are Unicode
    /// characters, an escape as one (a surrogate pair written as two escapes as two).
    pub text_bytes: u64,
    /// Of these, how many came before the last counts of output.
    pub counted_text_bytes: u64,
    /// Some count of the prompt was stated: without one, nothing says how large the prompt was.
    pub prompt_stated: bool,
    /// `message_stop` was seen, or the whole JSON answer was read.
    pub complete: bool,
    /// The model the answer names.
    pub model: Option<String>,
    /// The type of an error event or error body.
    pub error_type: Option<String>,
    /// The message of an error event or error body.
    pub error_message: Option<String>,
    /// A count was negative or absurd and was replaced by the nearest possible one.
    pub clamped: bool,
}

impl Reading {
    /// What to charge for: the final counts, else those of `message_start` with the output estimated from the text. Text
    /// that came after the last counts of a stream that was cut is added to them.
    #[must_use]
    pub fn billable(&self) -> Usage {
        let Usage { output_tokens, .. } = self.usage;
        match self.source {
            Source::Final if self.is_final() => self.usage,
            Source::Final => {
                let uncounted = self.text_bytes.saturating_sub(self.counted_text_bytes).div_ceil(4);
                Usage { output_tokens: output_tokens.saturating_add(uncounted), ..self.usage }
            }
            Source::Start | Source::None => self.usage.estimate_output(self.text_bytes),
        }
    }

    /// Whether the counts are the upstream's last word on the output.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.source == Source::Final && (self.complete || self.text_bytes <= self.counted_text_bytes)
    }
}

/// Reads usage beside an answer, from copies of its chunks.
///
/// Encoded answers are decoded as a copy (gzip, deflate, br, zstd; at most 256 MiB of it); from another or a combined
/// encoding nothing is read. An answer that is no event stream is taken for JSON and kept until its end, up to 32 MiB;
/// nothing is read from a larger one.
pub struct Meter {
    decoder: Decoder,
}

impl Meter {
    /// A meter for an answer with these `content-type` and `content-encoding` headers. What it cannot read it ignores.
    #[must_use]
    pub fn new(content_type: Option<&str>, content_encoding: Option<&str>) -> Self {
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        let listener = if media_type.eq_ignore_ascii_case("text/event-stream") {
            Listener::Stream(Stream::default())
        } else {
            Listener::Body(Body::default())
        };
        Self { decoder: Decoder::new(content_encoding.unwrap_or_default(), listener) }
    }

    /// Listens to the next chunk of the body.
    pub fn feed(&mut self, chunk: &Bytes) {
        self.decoder.feed(chunk);
    }

    /// What is known so far. A JSON answer is only read at the end.
    #[must_use]
    pub fn so_far(&self) -> &Reading {
        self.decoder.listener().reading()
    }

    /// What is known now that no more bytes will come, whether the answer ended or was cut.
    pub fn finish(&mut self) -> Reading {
        match self.decoder.listener_mut() {
            Listener::Body(body) => body.finish(),
            Listener::Stream(_) => {}
        }
        self.so_far().clone()
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("so_far", self.so_far()).finish_non_exhaustive()
    }
}

/// Who reads the decoded bytes.
enum Listener {
    Stream(Stream),
    Body(Body),
}

impl Listener {
    fn hear(&mut self, bytes: &Bytes) {
        match self {
            Self::Stream(stream) => stream.hear(bytes),
            Self::Body(body) => body.keep(bytes.clone()),
        }
    }

    fn hear_copy(&mut self, bytes: &[u8]) {
        match self {
            Self::Stream(stream) => stream.hear(bytes),
            Self::Body(body) => body.keep(Bytes::copy_from_slice(bytes)),
        }
    }

    fn reading(&self) -> &Reading {
        match self {
            Self::Stream(stream) => &stream.reading,
            Self::Body(body) => &body.reading,
        }
    }
}

#[cfg(test)]
mod tests;
