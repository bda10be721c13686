//! Event streams: the same events however the stream is cut, and a meter that never stops.
#![no_main]

use bytes::Bytes;
use wire::sse::Reader;
use wire::usage::Meter;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((cut, stream)) = data.split_first() else { return };
    let events = |size: usize| {
        let (mut reader, mut events) = (Reader::new(), Vec::new());
        for chunk in stream.chunks(size) {
            reader.feed(chunk, |event| events.push((event.name.to_vec(), event.data.to_vec())));
        }
        events
    };
    assert_eq!(events(usize::from(*cut).max(1)), events(stream.len().max(1)));
    for (kind, encoding) in
        [("text/event-stream", None), ("application/json", None), ("text/event-stream", Some("gzip"))]
    {
        let read = |size: usize| {
            let mut meter = Meter::new(Some(kind), encoding);
            stream.chunks(size).for_each(|chunk| meter.feed(&Bytes::copy_from_slice(chunk)));
            meter.finish().billable()
        };
        assert_eq!(read(usize::from(*cut).max(1)), read(stream.len().max(1)));
    }
});
