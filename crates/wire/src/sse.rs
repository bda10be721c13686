//! Server-sent-event frames out of arbitrary chunks.
//!
//! Knows the framing of the WHATWG HTML standard, section 9.2; knows nothing of what the events mean.

mod whole;

use std::borrow::Cow;

use memchr::memchr2;

pub use whole::{Oversized, WholeEvents};

/// Events larger than this many bytes (their lines together) are skipped and counted.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event, borrowed from the chunk where it lies whole in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty when there was none.
    pub name: &'a [u8],
    /// The `data` lines joined by line feeds.
    pub data: &'a [u8],
}

/// An incremental reader; memory stays within [`MAX_EVENT_BYTES`] and a small constant.
///
/// An event without a `data` line is none (comments, `retry`, lone names), and an event that the stream leaves unfinished
/// is dropped, as the standard says.
#[derive(Debug, Default)]
pub struct Reader {
    /// The unfinished line of earlier chunks.
    line: Vec<u8>,
    /// Fields of the unfinished event, from earlier chunks.
    name: Vec<u8>,
    data: Option<Vec<u8>>,
    /// Bytes of the finished lines of this event.
    size: usize,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
    /// The first line was begun, so no byte order mark can follow.
    started: bool,
    /// This event is too large: wait for its end.
    skipping: bool,
    oversized: u64,
}

impl Reader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream and hands out every event they complete.
    pub fn feed(&mut self, chunk: &[u8], mut on_event: impl FnMut(Event<'_>)) {
        let mut event =
            Pending { name: Cow::Owned(std::mem::take(&mut self.name)), data: self.data.take().map(Cow::Owned) };
        let mut rest = chunk;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', rest) else {
                self.keep(rest);
                break;
            };
            self.after_cr = rest[end] == b'\r';
            if self.line.is_empty() {
                self.end_line(Cow::Borrowed(&rest[..end]), &mut event, &mut on_event);
            } else {
                self.keep(&rest[..end]);
                let line = std::mem::take(&mut self.line);
                self.end_line(Cow::Owned(line), &mut event, &mut on_event);
            }
            rest = &rest[end + 1..];
        }
        self.name = event.name.into_owned();
        self.data = event.data.map(Cow::into_owned);
    }

    /// How many events were skipped for their size.
    #[must_use]
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// Appends to the unfinished line. Of a line that is too long one byte stays, so that it is not taken for the blank
    /// line that ends the event.
    fn keep(&mut self, part: &[u8]) {
        if !self.skipping && self.size + self.line.len() + part.len() > MAX_EVENT_BYTES + BOM.len() {
            self.skip();
        }
        let part = if self.skipping { &part[..part.len().min(1 - self.line.len().min(1))] } else { part };
        self.line.extend_from_slice(part);
    }

    fn skip(&mut self) {
        self.skipping = true;
        self.oversized += 1;
        self.line = Vec::from(&self.line[..self.line.len().min(1)]);
    }

    fn end_line<'a>(&mut self, line: Cow<'a, [u8]>, event: &mut Pending<'a>, on_event: &mut impl FnMut(Event<'_>)) {
        let line = if std::mem::replace(&mut self.started, true) { line } else { without_bom(line) };
        if line.is_empty() {
            let Pending { name, data } = std::mem::take(event);
            self.size = 0;
            if !std::mem::take(&mut self.skipping)
                && let Some(data) = data
            {
                on_event(Event { name: &name, data: &data });
            }
            return;
        }
        self.size = self.size.saturating_add(line.len());
        if !self.skipping && self.size > MAX_EVENT_BYTES {
            self.skip();
        }
        if self.skipping {
            *event = Pending::default();
        } else {
            event.take_field(line);
        }
    }
}

/// The fields of an event while its lines come in.
#[derive(Default)]
struct Pending<'a> {
    name: Cow<'a, [u8]>,
    data: Option<Cow<'a, [u8]>>,
}

impl<'a> Pending<'a> {
    fn take_field(&mut self, line: Cow<'a, [u8]>) {
        if let Some(value) = value_of(&line, b"data") {
            match &mut self.data {
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(&line[value..]);
                }
                None => self.data = Some(from(line, value)),
            }
        } else if let Some(value) = value_of(&line, b"event") {
            self.name = from(line, value);
        }
    }
}

/// Where the value of that field starts, when the line is that field.
fn value_of(line: &[u8], field: &[u8]) -> Option<usize> {
    match line.strip_prefix(field)? {
        [] => Some(line.len()),
        [b':', b' ', ..] => Some(field.len() + 2),
        [b':', ..] => Some(field.len() + 1),
        _ => None,
    }
}

fn from(line: Cow<'_, [u8]>, at: usize) -> Cow<'_, [u8]> {
    match line {
        Cow::Borrowed(line) => Cow::Borrowed(&line[at..]),
        Cow::Owned(mut line) => {
            line.drain(..at);
            Cow::Owned(line)
        }
    }
}

fn without_bom(line: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if line.starts_with(BOM) { from(line, BOM.len()) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (String, String);

    fn read(chunks: &[&[u8]]) -> (Vec<Owned>, u64) {
        let mut reader = Reader::new();
        let mut events = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for chunk in chunks {
            reader.feed(chunk, |event| events.push((text(event.name), text(event.data))));
        }
        (events, reader.oversized())
    }

    fn events(stream: &str) -> Vec<Owned> {
        let whole = read(&[stream.as_bytes()]).0;
        for size in 1..=17 {
            assert_eq!(read(&stream.as_bytes().chunks(size).collect::<Vec<_>>()).0, whole, "chunks of {size}");
        }
        whole
    }

    fn event(name: &str, data: &str) -> Owned {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!("event: a{end}data: 1{end}{end}event: b{end}data: 2{end}{end}");
            assert_eq!(events(&stream), [event("a", "1"), event("b", "2")], "{end:?}");
        }
        assert_eq!(events("data: 1\r\rdata: 2\n\r\ndata: 3\r\n\n"), [event("", "1"), event("", "2"), event("", "3")]);
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        assert_eq!(
            events("\u{feff}data: a\n: comment\nid: 7\nretry: 5\nunknown\ndata\ndata:b\ndata:  c\n\n"),
            [event("", "a\n\nb\n c")]
        );
        assert_eq!(events("event: lone\n\ndata: x\n\n"), [event("", "x")]);
        assert_eq!(events("data\n\n"), [event("", "")]);
        assert_eq!(events("\n\n:\n\ndatax: 1\n\n"), []);
        assert_eq!(events("event: a\nevent: b\ndata: \u{feff}1\n\n"), [event("b", "\u{feff}1")]);
        assert_eq!(events("data: done\n\ndata: cut\n"), [event("", "done")]);
        assert_eq!(events("data: done\n\ndata: cut"), [event("", "done")]);
    }

    #[test]
    fn an_event_within_a_chunk_is_not_copied() {
        let chunk = b"event: a\ndata: hello\n\n";
        Reader::new().feed(chunk, |event| {
            assert!(chunk.as_ptr_range().contains(&event.data.as_ptr()));
            assert!(chunk.as_ptr_range().contains(&event.name.as_ptr()));
        });
    }

    #[test]
    fn an_absurd_event_is_skipped_and_counted_whatever_the_chunks() {
        let long = "x".repeat(MAX_EVENT_BYTES - "data: ".len());
        let fits = format!("data: {long}\n\ndata: after\n\n");
        let one_more = format!("data: {long}x\n\ndata: after\n\n");
        let by_lines = format!("{}\ndata: after\n\n", "data: 12345678\n".repeat(MAX_EVENT_BYTES / 14 + 1));
        for size in [7_777, MAX_EVENT_BYTES, usize::MAX] {
            let read = |stream: &str| {
                let (events, oversized) = read(&stream.as_bytes().chunks(size).collect::<Vec<_>>());
                (events.len(), events[events.len() - 1].1.clone(), oversized)
            };
            assert_eq!(read(&fits), (2, "after".to_owned(), 0), "{size}");
            assert_eq!(read(&one_more), (1, "after".to_owned(), 1), "{size}");
            assert_eq!(read(&by_lines), (1, "after".to_owned(), 1), "{size}");
        }
    }

    #[test]
    fn memory_stays_bounded_while_an_endless_event_comes_in() {
        let mut reader = Reader::new();
        for _ in 0..100 {
            reader.feed(&[b'x'; 100_000], |_| {});
        }
        assert!(reader.line.capacity() <= MAX_EVENT_BYTES);
        assert_eq!(reader.oversized(), 1);
    }

    proptest! {
        #[test]
        fn chunk_boundaries_change_nothing(
            parts in prop::collection::vec(
                prop::sample::select(vec!["data", ":", " ", "event", "x", "\n", "\r", "\r\n", "data: 1\n", "\n\n", "\u{feff}"]),
                0..30
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)
        ) {
            let stream = parts.concat().into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks), read(&[&stream]));
        }
    }
}
