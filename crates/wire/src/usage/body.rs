//! A whole JSON answer, kept by reference until it ends.

use bytes::Bytes;

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

    /// Reads the kept chunks. Of a cut body, which is no JSON, nothing is known.
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
        let (mut is_error, mut content) = (false, None);
        let read = json::members(body, |key, member| {
            let value = &body[member.value];
            match key {
                b"type" => is_error = json::inner(value) == Some(b"error"),
                b"model" => self.model = json::text(value),
                b"content" => content = Some(value),
                _ => {}
            }
        });
        if read != Ok(true) {
            self.model = None;
            return;
        }
        self.complete = true;
        if is_error {
            self.hear_error(body);
        }
        self.hear_usage(body, Source::Final);
        self.text_bytes = content.map_or(0, text_of_blocks);
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
