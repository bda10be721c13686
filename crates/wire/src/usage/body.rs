//! A whole JSON answer, kept by reference until it ends.

use bytes::Bytes;

use super::counts::Counts;
use super::stream::count_characters;
use super::{Reading, Source};
use crate::json;

/// Nothing is read from a larger body.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;

/// Keeps the chunks of an answer and reads them at its end.
#[derive(Default)]
pub(super) struct Body {
    chunks: Vec<Bytes>,
    length: usize,
    pub(super) reading: Reading,
}

impl Body {
    pub(super) fn keep(&mut self, chunk: Bytes) {
        self.length = self.length.saturating_add(chunk.len());
        if self.length > MAX_BODY_BYTES {
            self.chunks = Vec::new();
        } else {
            self.chunks.push(chunk);
        }
    }

    /// Reads the kept chunks, whether the body ended or was cut.
    pub(super) fn finish(&mut self) {
        match std::mem::take(&mut self.chunks).as_slice() {
            [] => {}
            [whole] => self.reading.hear_body(whole),
            chunks => self.reading.hear_body(&chunks.concat()),
        }
    }
}

impl Reading {
    fn hear_body(&mut self, body: &[u8]) {
        let (mut kind, mut model, mut content, mut usage, mut end) = (None, None, None, None, 0);
        let read = json::members(body, |key, member| {
            end = member.value.end;
            let value = &body[member.value];
            match key {
                b"type" => kind = json::inner(value),
                b"model" => model = json::text(value),
                b"content" => content = Some(value),
                b"usage" => usage = Some(value),
                _ => {}
            }
        });
        self.complete = read == Ok(true);
        // What breaks off but began as a message is one that was cut; anything else that is no JSON says nothing.
        if !self.complete && (read.is_ok() || kind != Some(b"message")) {
            return;
        }
        self.model = model;
        if kind == Some(b"error") {
            self.hear_error(body);
        }
        self.text_bytes = match content {
            Some(content) => text_of_blocks(content),
            None if self.complete => 0,
            // It broke off in the middle of the content, which is nearly all text.
            None => count_characters(&body[end..]),
        };
        if let Some(usage) = usage {
            self.hear_counts(&Counts::read(usage), Source::Final);
        }
    }
}

fn text_of_blocks(content: &[u8]) -> u64 {
    let mut characters: u64 = 0;
    for block in json::elements(content) {
        // Part of a document that was scanned as valid.
        let _ = json::members(block, |key, member| {
            let value = &block[member.value];
            let written = match key {
                b"text" | b"thinking" => json::inner(value),
                b"input" => Some(value),
                _ => None,
            };
            characters = characters.saturating_add(written.map_or(0, count_characters));
        });
    }
    characters
}
