//! Token usage, read beside an answer that is relayed untouched.
//!
//! Knows the shapes of Messages answers and their encodings; knows no price and never alters a byte.

use bytes::Bytes;

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
        todo!()
    }

    /// The usage of a cut answer: the input as it was announced, and output of at least one token per four characters of
    /// the text that was seen ([`Reading::text_bytes`]).
    #[must_use]
    pub fn estimate_output(self, _text_bytes: u64) -> Self {
        todo!()
    }
}

/// Where the numbers of a [`Reading`] come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// No usage seen.
    #[default]
    None,
    /// Only `message_start`: input is known, output is not.
    Start,
    /// A `message_delta` with usage, or a whole JSON answer.
    Final,
}

/// What is known of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The counts, clamped to what is possible.
    pub usage: Usage,
    /// Where they come from.
    pub source: Source,
    /// Characters of text, thinking and tool-input JSON seen; four are about one output token.
    pub text_bytes: u64,
    /// `message_stop` was seen, or the whole JSON answer was read.
    pub complete: bool,
    /// The model the answer names.
    pub model: Option<String>,
    /// The type of an error event or error body.
    pub error_type: Option<String>,
    /// A count was negative or absurd and was replaced by the nearest possible one.
    pub clamped: bool,
}

/// Reads usage beside an answer, from copies of its chunks.
#[derive(Debug)]
pub struct Meter {}

impl Meter {
    /// A meter for an answer with these `content-type` and `content-encoding` headers. What it cannot read it ignores.
    #[must_use]
    pub fn new(_content_type: Option<&str>, _content_encoding: Option<&str>) -> Self {
        todo!()
    }

    /// Listens to the next chunk of the body.
    pub fn feed(&mut self, _chunk: &Bytes) {
        todo!()
    }

    /// What is known so far. A JSON answer is only read at the end.
    #[must_use]
    pub fn so_far(&self) -> &Reading {
        todo!()
    }

    /// What is known now that no more bytes will come, whether the answer ended or was cut.
    pub fn finish(&mut self) -> Reading {
        todo!()
    }
}
