//! The events of a streamed answer.

use super::counts::Counts;
use super::{Reading, Source};
use crate::{json, sse};

/// Listens to an event stream.
#[derive(Default)]
pub(super) struct Stream {
    frames: sse::Reader,
    pub(super) reading: Reading,
}

impl Stream {
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        let Self { frames, reading } = self;
        frames.feed(bytes, |event| reading.hear(event.data));
    }
}

impl Reading {
    /// Takes one event. Its `type` says what it is, not the name of the frame: that may be missing.
    fn hear(&mut self, data: &[u8]) {
        match event_type(data) {
            Some(b"content_block_delta") => self.text_bytes = self.text_bytes.saturating_add(delta_text(data)),
            Some(b"message_start") => {
                let message = json::get(data, "message").unwrap_or_default();
                self.model = json::get(message, "model").and_then(json::text).or_else(|| self.model.take());
                self.hear_usage(message, Source::Start);
            }
            Some(b"message_delta") => self.hear_usage(data, Source::Final),
            Some(b"message_stop") => self.complete = true,
            Some(b"error") => self.hear_error(data),
            _ => {}
        }
    }

    /// Takes the `error` of an error event or body.
    pub(super) fn hear_error(&mut self, data: &[u8]) {
        let error = json::get(data, "error").unwrap_or_default();
        self.error_type = json::get(error, "type").and_then(json::text);
        self.error_message = json::get(error, "message").and_then(json::text);
    }

    fn hear_usage(&mut self, message: &[u8], source: Source) {
        if let Some(usage) = json::get(message, "usage") {
            self.hear_counts(&Counts::read(usage), source);
        }
    }

    /// Takes a `usage`. `source` applies when it holds any count; without the output it is no last word.
    pub(super) fn hear_counts(&mut self, counts: &Counts, source: Source) {
        if counts.states_output() {
            self.source = self.source.max(source);
            self.counted_text_bytes = self.text_bytes;
        } else if counts.states_prompt() {
            self.source = self.source.max(Source::Start);
        }
        self.prompt_stated |= counts.states_prompt();
        self.clamped |= counts.clamped;
        let known = self.usage;
        counts.lay_over(&mut self.usage);
        if counts.clamped {
            // What makes no sense takes nothing back.
            self.usage = self.usage.at_least(&known);
        }
    }
}

/// The `type` of an event: nearly always its first member.
pub(crate) fn event_type(data: &[u8]) -> Option<&[u8]> {
    match data.strip_prefix(br#"{"type":""#) {
        Some(rest) => rest.split(|byte| *byte == b'"').next(),
        None => json::inner(json::get(data, "type")?),
    }
}

/// Characters of the text in a content delta. Of these there are hundreds in an answer, so only the delta is scanned.
fn delta_text(data: &[u8]) -> u64 {
    let Some(delta) = usual_delta(data).or_else(|| json::get(data, "delta")) else {
        return 0;
    };
    let mut characters = 0;
    let found = json::members_ahead(delta, |key, member| {
        if matches!(key, b"text" | b"thinking" | b"partial_json") {
            characters += json::inner(&delta[member.value]).map_or(0, count_characters);
        }
    });
    if found.is_ok() { characters } else { 0 }
}

/// What follows `"delta":` in an event that is written as the API writes it.
fn usual_delta(data: &[u8]) -> Option<&[u8]> {
    let index = data.strip_prefix(br#"{"type":"content_block_delta","index":"#)?;
    let digits = index.iter().take_while(|byte| byte.is_ascii_digit()).count();
    index[digits..].strip_prefix(br#","delta":"#)
}

/// Characters of an escaped string: bytes that start a UTF-8 character, each escape as one.
pub(super) fn count_characters(escaped: &[u8]) -> u64 {
    let starts = escaped.iter().fold(0, |count, byte| count + u64::from(byte & 0xC0 != 0x80));
    let mut extra = 0;
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let length = if rest.get(at + 1) == Some(&b'u') { 6 } else { 2 };
        extra += length - 1;
        rest = rest.get(at + length as usize..).unwrap_or_default();
    }
    starts.saturating_sub(extra)
}
