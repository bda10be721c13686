//! What the meter reads in answers as upstreams send them, whole, in any chunks, and cut anywhere.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "golden/fixture.rs"]
mod fixture;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use wire::usage::{Meter, Reading, Source, Usage};

use fixture::Fixture;

fn meter(fixture: &Fixture) -> Meter {
    Meter::new(Some(if fixture.is_stream { "text/event-stream; charset=utf-8" } else { "application/json" }), None)
}

fn read<'a>(fixture: &Fixture, chunks: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut meter = meter(fixture);
    for chunk in chunks {
        meter.feed(&Bytes::copy_from_slice(chunk));
    }
    meter.finish()
}

fn classes(usage: &Usage) -> [u64; 6] {
    let Usage { input_tokens, output_tokens, cache_read_input_tokens, .. } = *usage;
    let Usage { cache_creation_5m_tokens, cache_creation_1h_tokens, web_search_requests, .. } = *usage;
    [
        input_tokens,
        output_tokens,
        cache_read_input_tokens,
        cache_creation_5m_tokens,
        cache_creation_1h_tokens,
        web_search_requests,
    ]
}

/// What the usage of an event states, read by another reader than the meter's.
fn announced(event: &[u8]) -> Option<[u64; 6]> {
    let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data: "))?;
    let event: Value = serde_json::from_slice(data).ok()?;
    let usage = match event["type"].as_str()? {
        "message_start" => &event["message"]["usage"],
        "message_delta" => &event["usage"],
        _ => return None,
    };
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    Some([
        count(&usage["input_tokens"]),
        count(&usage["output_tokens"]),
        count(&usage["cache_read_input_tokens"]),
        count(&usage["cache_creation"]["ephemeral_5m_input_tokens"]),
        count(&usage["cache_creation"]["ephemeral_1h_input_tokens"]),
        count(&usage["server_tool_use"]["web_search_requests"]),
    ])
}

#[test]
fn every_golden_answer_reads_as_it_says() {
    for fixture in fixture::all() {
        let reading = read(&fixture, [&*fixture.body]);
        assert_eq!(reading.billable(), fixture.usage, "{}", fixture.name);
        assert_eq!(reading.is_final(), fixture.is_final, "{}", fixture.name);
        assert!(reading.prompt_stated && fixture.charge > 0 && !fixture.model.is_empty(), "{}", fixture.name);
        assert_eq!(reading.clamped, fixture.name == "impossible_counts", "{}", fixture.name);
    }
}

#[test]
fn chunks_change_nothing() {
    for fixture in fixture::all() {
        let whole = read(&fixture, [&*fixture.body]);
        for size in 1..=17 {
            assert_eq!(read(&fixture, fixture.body.chunks(size)), whole, "{} in chunks of {size}", fixture.name);
        }
    }
}

#[test]
fn a_stream_cut_at_any_byte_never_reads_less_than_was_announced() {
    for fixture in fixture::all().iter().filter(|fixture| fixture.is_stream) {
        let mut meter = meter(fixture);
        let mut least = [0; 6];
        let mut event = 0;
        for at in 0..fixture.body.len() {
            meter.feed(&Bytes::copy_from_slice(&fixture.body[at..=at]));
            if fixture.body[..=at].ends_with(b"\n\n") {
                for (least, stated) in least.iter_mut().zip(announced(&fixture.body[event..=at]).unwrap_or_default()) {
                    *least = (*least).max(stated);
                }
                event = at + 1;
            }
            let known = classes(&meter.so_far().billable());
            assert!(
                known.iter().zip(least).all(|(known, least)| *known >= least),
                "{} at {at}: {known:?}",
                fixture.name
            );
        }
        assert_eq!(meter.finish(), read(fixture, [&*fixture.body]), "{}", fixture.name);
    }
}

#[test]
fn a_json_answer_cut_at_any_byte_is_no_last_word_until_its_counts_are_there() {
    for fixture in fixture::all().iter().filter(|fixture| !fixture.is_stream) {
        let counts = fixture.body.windows(8).rposition(|window| window == b"\"usage\":").unwrap();
        for at in 0..fixture.body.len() {
            let reading = read(fixture, [&fixture.body[..at]]);
            assert!(!reading.complete, "{} at {at}", fixture.name);
            match reading.source {
                Source::Final => assert_eq!((reading.billable(), at > counts), (fixture.usage, true)),
                _ => assert!(reading.billable().output_tokens <= at.div_ceil(4) as u64),
            }
        }
    }
}

proptest! {
    #[test]
    fn a_beginning_reads_the_same_in_any_chunks(
        which in any::<prop::sample::Index>(),
        end in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut fixtures = fixture::all();
        let mut fixture = fixtures.swap_remove(which.index(fixtures.len()));
        if let Some((at, byte)) = damage {
            let at = at.index(fixture.body.len());
            fixture.body[at] = byte;
        }
        let beginning = &fixture.body[..end.index(fixture.body.len() + 1)];
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(beginning.len() + 1)).collect();
        at.extend([0, beginning.len()]);
        at.sort_unstable();
        let chunks = at.windows(2).map(|pair| &beginning[pair[0]..pair[1]]);
        prop_assert_eq!(read(&fixture, chunks), read(&fixture, [beginning]));
    }
}
