//! AWS event streams: the same events and the same end however the stream is cut.
#![no_main]

use bytes::BytesMut;
use wire::event_stream::Decoder;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((cut, stream)) = data.split_first() else { return };
    let decoded = |size: usize| {
        let (mut decoder, mut events) = (Decoder::default(), BytesMut::new());
        let end = stream.chunks(size).try_for_each(|chunk| decoder.feed(chunk, &mut events));
        (events, end)
    };
    assert_eq!(decoded(usize::from(*cut).max(1)), decoded(stream.len().max(1)));
});
