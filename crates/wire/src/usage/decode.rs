//! Content encodings (RFC 9110, section 8.4.1), undone incrementally on a copy.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::{Body, Listener};

/// Decoded bytes after which nothing more is read: a small answer must not keep us busy forever.
pub(super) const MAX_DECODED_BYTES: u64 = 256 << 20;

/// The largest window a zstd sender may use (RFC 9659): 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Undoes one encoding and hands the bytes to a listener. Once the data makes no sense it stops, and keeps what was heard.
pub(super) struct Decoder {
    encoding: Encoding,
    broken: bool,
}

enum Encoding {
    Identity(Listener),
    Gzip(Box<MultiGzDecoder<Sink>>),
    /// `deflate` before its first byte, which tells the zlib format from the raw one that some senders use.
    Deflate(Sink),
    Zlib(Box<ZlibDecoder<Sink>>),
    Raw(Box<DeflateDecoder<Sink>>),
    Brotli(Box<DecompressorWriter<Sink>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
}

impl Decoder {
    /// A decoder for that `content-encoding`.
    pub(super) fn new(content_encoding: &str, listener: Listener) -> Self {
        let sink = Sink { listener, decoded: 0 };
        let encoding = match content_encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Encoding::Identity(sink.listener),
            "gzip" | "x-gzip" => Encoding::Gzip(Box::new(MultiGzDecoder::new(sink))),
            "deflate" => Encoding::Deflate(sink),
            "br" => Encoding::Brotli(Box::new(DecompressorWriter::new(sink, 16 << 10))),
            "zstd" => return Self::zstd(sink),
            _ => return Self::deaf(),
        };
        Self { encoding, broken: false }
    }

    pub(super) fn feed(&mut self, chunk: &Bytes) {
        if self.broken || chunk.is_empty() {
            return;
        }
        if let Encoding::Identity(listener) = &mut self.encoding {
            listener.hear(chunk);
        } else {
            self.broken = self.decode(chunk).is_err();
        }
    }

    pub(super) fn listener(&self) -> &Listener {
        match &self.encoding {
            Encoding::Identity(listener) => listener,
            Encoding::Deflate(sink) => &sink.listener,
            Encoding::Gzip(decoder) => &decoder.get_ref().listener,
            Encoding::Zlib(decoder) => &decoder.get_ref().listener,
            Encoding::Raw(decoder) => &decoder.get_ref().listener,
            Encoding::Brotli(decoder) => &decoder.get_ref().listener,
            Encoding::Zstd(decoder) => &decoder.get_ref().listener,
        }
    }

    pub(super) fn listener_mut(&mut self) -> &mut Listener {
        match &mut self.encoding {
            Encoding::Identity(listener) => listener,
            Encoding::Deflate(sink) => &mut sink.listener,
            Encoding::Gzip(decoder) => &mut decoder.get_mut().listener,
            Encoding::Zlib(decoder) => &mut decoder.get_mut().listener,
            Encoding::Raw(decoder) => &mut decoder.get_mut().listener,
            Encoding::Brotli(decoder) => &mut decoder.get_mut().listener,
            Encoding::Zstd(decoder) => &mut decoder.get_mut().listener,
        }
    }

    fn zstd(sink: Sink) -> Self {
        let Ok(mut decoder) = zstd::stream::write::Decoder::new(sink) else {
            return Self::deaf();
        };
        let broken = decoder.window_log_max(ZSTD_WINDOW_LOG).is_err();
        Self { encoding: Encoding::Zstd(Box::new(decoder)), broken }
    }

    /// Hears nothing: the encoding is not one we undo.
    fn deaf() -> Self {
        Self { encoding: Encoding::Identity(Listener::Body(Body::default())), broken: true }
    }

    /// Decodes a chunk and flushes, so that what has arrived is known at once.
    fn decode(&mut self, chunk: &[u8]) -> io::Result<()> {
        if let Encoding::Deflate(sink) = &mut self.encoding {
            let sink = std::mem::take(sink);
            self.encoding = if looks_like_zlib(chunk) {
                Encoding::Zlib(Box::new(ZlibDecoder::new(sink)))
            } else {
                Encoding::Raw(Box::new(DeflateDecoder::new(sink)))
            };
        }
        let decoder: &mut dyn Write = match &mut self.encoding {
            Encoding::Identity(_) | Encoding::Deflate(_) => return Ok(()),
            Encoding::Gzip(decoder) => decoder,
            Encoding::Zlib(decoder) => decoder,
            Encoding::Raw(decoder) => decoder,
            Encoding::Brotli(decoder) => decoder,
            Encoding::Zstd(decoder) => decoder,
        };
        decoder.write_all(chunk)?;
        decoder.flush()
    }
}

/// The first byte of the zlib format (RFC 1950, section 2.2) names method 8 and a window of at most 32 KiB; a raw stream
/// that starts with it would be a stored block, which no sender writes first.
fn looks_like_zlib(chunk: &[u8]) -> bool {
    chunk.first().is_some_and(|first| first & 0x0F == 8 && first >> 4 <= 7)
}

/// Where the decoders write.
struct Sink {
    listener: Listener,
    decoded: u64,
}

impl Default for Sink {
    fn default() -> Self {
        Self { listener: Listener::Body(Body::default()), decoded: 0 }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.decoded = self.decoded.saturating_add(bytes.len() as u64);
        if self.decoded > MAX_DECODED_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.listener.hear_copy(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Stream;
    use super::*;

    /// Feeds a gzipped event to a decoder that has decoded so many bytes before.
    fn decoded_after(before: u64) -> bool {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"data: {\"type\":\"message_stop\"}\n\n").unwrap();
        let sink = Sink { listener: Listener::Stream(Stream::default()), decoded: before };
        let encoding = Encoding::Gzip(Box::new(MultiGzDecoder::new(sink)));
        let mut decoder = Decoder { encoding, broken: false };
        decoder.feed(&encoder.finish().unwrap().into());
        decoder.listener().reading().complete
    }

    #[test]
    fn a_bomb_is_left_alone_past_the_bound() {
        assert!(decoded_after(MAX_DECODED_BYTES - 32));
        assert!(!decoded_after(MAX_DECODED_BYTES - 10));
    }
}
