//! The whole events at the start of a stream that comes in arbitrary chunks: what may be passed on so that something can be
//! written behind it at any time.

use bytes::{Bytes, BytesMut};

use super::MAX_EVENT_BYTES;

/// Passes whole events and holds back the one that is unfinished. Bytes are not copied but for an event that came in
/// pieces.
#[derive(Debug, Default)]
pub struct WholeEvents {
    held: BytesMut,
}

/// An event larger than [`MAX_EVENT_BYTES`] would have to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {MAX_EVENT_BYTES} bytes")]
pub struct Oversized;

impl WholeEvents {
    /// The bytes that are now known to be whole events; empty when none ended.
    ///
    /// # Errors
    /// [`Oversized`]; nothing more can be passed then.
    pub fn feed(&mut self, chunk: &Bytes) -> Result<Bytes, Oversized> {
        if self.held.is_empty() {
            let end = ended(chunk);
            self.hold(&chunk[end..])?;
            return Ok(chunk.slice(..end));
        }
        let before = self.held.len();
        self.held.extend_from_slice(chunk);
        // The blank line may be cut in two, so the search starts in what was held.
        let from = before.saturating_sub(3);
        let end = match ended(&self.held[from..]) {
            0 => 0,
            end => from + end,
        };
        if end == 0 {
            return if self.held.len() > MAX_EVENT_BYTES { Err(Oversized) } else { Ok(Bytes::new()) };
        }
        let whole = self.held.split_to(end).freeze();
        if self.held.len() > MAX_EVENT_BYTES { Err(Oversized) } else { Ok(whole) }
    }

    /// Whether an event has begun and not ended.
    #[must_use]
    pub fn is_within(&self) -> bool {
        !self.held.is_empty()
    }

    fn hold(&mut self, rest: &[u8]) -> Result<(), Oversized> {
        if rest.len() > MAX_EVENT_BYTES {
            return Err(Oversized);
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }
}

/// Where the last blank line ends; 0 without one. A line feed that belongs to a carriage return at the very end of the bytes
/// is not waited for: standing at the start of an event, it is a blank line of its own and means nothing.
fn ended(bytes: &[u8]) -> usize {
    let mut at = bytes.len();
    while let Some(end) = memchr::memrchr2(b'\n', b'\r', &bytes[..at]) {
        let before = &bytes[..=end];
        if [&b"\n\n"[..], b"\r\r", b"\n\r", b"\r\n\r\n"].iter().any(|blank| before.ends_with(blank)) {
            return end + 1;
        }
        at = end;
    }
    0
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::Reader;
    use super::*;

    fn fed(chunks: &[&[u8]]) -> (Vec<Bytes>, WholeEvents) {
        let mut whole = WholeEvents::default();
        let passed = chunks.iter().map(|chunk| whole.feed(&Bytes::copy_from_slice(chunk)).unwrap()).collect();
        (passed, whole)
    }

    #[test]
    fn events_pass_when_they_end_and_not_before() {
        let (passed, whole) = fed(&[b"event: a\ndata: 1\n\nevent: b\nda", b"ta: 2\n", b"\ndata: 3", b"\r\n\r\n"]);
        assert_eq!(passed, ["event: a\ndata: 1\n\n", "", "event: b\ndata: 2\n\n", "data: 3\r\n\r\n"]);
        assert!(!whole.is_within());
        assert!(fed(&[b"data: 1\n\ndata"]).1.is_within());
    }

    #[test]
    fn a_chunk_of_whole_events_is_not_copied() {
        let chunk = Bytes::from_static(b"data: 1\n\ndata: 2\n\n");
        assert_eq!(WholeEvents::default().feed(&chunk).unwrap().as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut whole = WholeEvents::default();
        let chunk = Bytes::from(vec![b'x'; MAX_EVENT_BYTES / 2]);
        assert!(whole.feed(&chunk).unwrap().is_empty());
        assert!(whole.feed(&chunk).unwrap().is_empty());
        assert_eq!(whole.feed(&chunk), Err(Oversized));
    }

    proptest! {
        #[test]
        fn every_byte_passes_once_and_only_between_events(
            parts in prop::collection::vec(prop::sample::select(vec!["data: 1", "\n", "\r", "\r\n", "x", "\n\n"]), 0..30),
            size in 1_usize..9
        ) {
            let stream = parts.concat().into_bytes();
            let (passed, whole) = fed(&stream.chunks(size).collect::<Vec<_>>());
            let events = |bytes: &[u8]| {
                let mut events = Vec::new();
                Reader::new().feed(bytes, |event| events.push(event.data.to_vec()));
                events
            };
            let together = passed.concat();
            prop_assert_eq!([&together[..], &whole.held].concat(), stream);
            // Whatever is written behind what has passed is an event of its own.
            let mut so_far = Vec::new();
            for part in &passed {
                so_far.extend_from_slice(part);
                let mut marked = so_far.clone();
                marked.extend_from_slice(b"data: ours\n\n");
                let found = events(&marked);
                prop_assert_eq!(found.last().map(Vec::as_slice), Some(&b"ours"[..]));
                prop_assert_eq!(&found[..found.len() - 1], &events(&so_far)[..]);
            }
        }
    }
}
