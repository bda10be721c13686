//! Server-sent-event frames out of arbitrary chunks.
//!
//! Knows the framing of the WHATWG HTML standard, section 9.2; knows nothing of what the events mean.

/// Events larger than this many bytes (their lines together) are skipped and counted.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// One event, borrowed from the chunk where it lies whole in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty when there was none.
    pub name: &'a [u8],
    /// The `data` lines joined by line feeds.
    pub data: &'a [u8],
}

/// An incremental reader; memory stays within [`MAX_EVENT_BYTES`] and a small constant.
#[derive(Debug, Default)]
pub struct Reader {}

impl Reader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream and hands out every event they complete.
    pub fn feed(&mut self, _chunk: &[u8], _on_event: impl FnMut(Event<'_>)) {
        todo!()
    }

    /// How many events were skipped for their size.
    #[must_use]
    pub fn oversized(&self) -> u64 {
        todo!()
    }
}
