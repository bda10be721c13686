#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;

use super::*;

const SSE: Option<&str> = Some("text/event-stream; charset=utf-8");
const JSON: Option<&str> = Some("application/json");

const TEXT: &str = include_str!("golden/text.sse");
const THINKING: &str = include_str!("golden/thinking.sse");
const TOOL_USE: &str = include_str!("golden/tool_use.sse");
const SERVER_TOOLS: &str = include_str!("golden/server_tools.sse");
const REFUSAL: &str = include_str!("golden/refusal.sse");
const PAUSE_TURN: &str = include_str!("golden/pause_turn.sse");
const ERROR: &str = include_str!("golden/error.sse");
const BARE: &str = include_str!("golden/bare.sse");

fn read_chunks<'a>(kind: Option<&str>, encoding: Option<&str>, chunks: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut meter = Meter::new(kind, encoding);
    for chunk in chunks {
        meter.feed(&Bytes::copy_from_slice(chunk));
    }
    meter.finish()
}

/// The reading of a body, which must be the same whatever its chunks.
fn read(kind: Option<&str>, body: &str) -> Reading {
    let whole = read_chunks(kind, None, [body.as_bytes()]);
    for size in 1..=17 {
        assert_eq!(read_chunks(kind, None, body.as_bytes().chunks(size)), whole, "chunks of {size}");
    }
    whole
}

fn stream(body: &str) -> Reading {
    read(SSE, body)
}

fn sonnet(usage: Usage, text_bytes: u64) -> Reading {
    Reading {
        usage,
        source: Source::Final,
        text_bytes,
        counted_text_bytes: text_bytes,
        prompt_stated: true,
        complete: true,
        model: Some("claude-sonnet-4-5-20250929".to_owned()),
        ..Reading::default()
    }
}

fn tokens(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage { input_tokens, output_tokens, ..Usage::default() }
}

fn text_usage() -> Usage {
    Usage {
        cache_read_input_tokens: 1000,
        cache_creation_5m_tokens: 100,
        cache_creation_1h_tokens: 200,
        ..tokens(25, 15)
    }
}

#[test]
fn a_text_answer_is_metered_and_a_usage_inside_its_text_is_not_believed() {
    assert_eq!(stream(TEXT), sonnet(text_usage(), 78));
}

#[test]
fn thinking_counts_as_output_text_and_signatures_do_not() {
    assert_eq!(stream(THINKING), sonnet(tokens(40, 120), 13 + 2));
}

#[test]
fn tool_input_counts_as_output_text() {
    assert_eq!(stream(TOOL_USE), sonnet(tokens(472, 89), 4 + 12 + 9));
}

#[test]
fn server_tools_raise_the_input_and_their_searches_are_counted() {
    assert_eq!(stream(SERVER_TOOLS), sonnet(Usage { web_search_requests: 3, ..tokens(10_682, 510) }, 19 + 6));
}

#[test]
fn a_refusal_is_a_complete_answer() {
    assert_eq!(stream(REFUSAL), sonnet(tokens(564, 1), 0));
}

#[test]
fn the_last_of_several_message_deltas_wins() {
    let usage = Usage { cache_read_input_tokens: 80, cache_creation_5m_tokens: 60, fast: true, ..tokens(95, 11) };
    assert_eq!(stream(PAUSE_TURN), sonnet(usage, 9));
}

#[test]
fn an_error_event_leaves_the_start_and_the_text_to_estimate_from() {
    let reading = stream(ERROR);
    let expected = Reading {
        source: Source::Start,
        counted_text_bytes: 0,
        complete: false,
        error_type: Some("overloaded_error".to_owned()),
        error_message: Some("Overloaded".to_owned()),
        ..sonnet(tokens(1200, 1), 11)
    };
    assert_eq!(reading, expected);
    assert_eq!(reading.billable(), tokens(1200, 3));
}

#[test]
fn nulls_unnamed_events_and_split_data_lines_are_tolerated() {
    let expected = Reading { model: Some("m".to_owned()), ..sonnet(tokens(7, 2), 4) };
    assert_eq!(stream(BARE), expected);
}

#[test]
fn a_stream_cut_anywhere_never_reads_more_than_the_whole() {
    let whole = stream(TEXT);
    for cut in 0..TEXT.len() {
        let reading = read_chunks(SSE, None, [&TEXT.as_bytes()[..cut]]);
        assert!(reading.text_bytes <= whole.text_bytes);
        assert!(!reading.complete, "{cut}");
        match reading.source {
            Source::None => assert_eq!(reading, Reading::default()),
            Source::Start => assert_eq!(reading.usage.output_tokens, 1),
            Source::Final => assert_eq!(reading.usage, whole.usage),
        }
    }
}

#[test]
fn a_meter_can_move_between_threads() {
    fn needs_send<T: Send>(_: T) {}
    needs_send(Meter::new(SSE, Some("br")));
}

#[test]
fn what_is_known_grows_with_the_stream() {
    let mut meter = Meter::new(SSE, None);
    let mut seen = Vec::new();
    for event in TEXT.split_inclusive("\n\n") {
        meter.feed(&Bytes::copy_from_slice(event.as_bytes()));
        seen.push((meter.so_far().source, meter.so_far().text_bytes));
    }
    assert_eq!(seen[0], (Source::Start, 0));
    assert_eq!(seen[3], (Source::Start, 5));
    assert_eq!(seen[seen.len() - 1], (Source::Final, 78));
}

#[test]
fn a_cut_stream_is_estimated_by_four_characters_a_token() {
    assert_eq!(tokens(10, 1).estimate_output(4000), tokens(10, 1000));
    assert_eq!(tokens(10, 1).estimate_output(4001), tokens(10, 1001));
    assert_eq!(tokens(10, 50).estimate_output(4), tokens(10, 50));
    assert_eq!(text_usage().prompt_tokens(), 1325);
    let reading = Reading { text_bytes: 9, ..Reading::default() };
    assert_eq!(reading.billable(), tokens(0, 3));
}

#[test]
fn escaped_text_is_counted_in_characters() {
    let event = |text: &str| {
        format!(r#"data: {{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{text}"}}}}"#)
    };
    for (text, characters) in
        [("", 0), (r"\n\n", 2), (r#"a\"b"#, 3), (r"\u00e9x", 2), (r"\\u00e9", 6), ("é😀", 2), (r"\ud83d\ude00", 2)]
    {
        assert_eq!(stream(&format!("{}\n\n", event(text))).text_bytes, characters, "{text}");
    }
}

fn start_with(usage: &str) -> Reading {
    stream(&format!("data: {{\"type\":\"message_start\",\"message\":{{\"usage\":{usage}}}}}\n\n"))
}

#[test]
fn impossible_counts_are_clamped_and_said_to_be() {
    for (value, count, clamped) in [
        ("5", 5, false),
        ("-1", 0, true),
        ("-0", 0, false),
        ("12.9", 12, false),
        ("1e3", 1000, false),
        ("1e400", 100_000_000, true),
        ("-1e400", 0, true),
        ("100000001", 100_000_000, true),
        ("99999999999999999999999", 100_000_000, true),
    ] {
        let reading = start_with(&format!("{{\"input_tokens\":{value}}}"));
        assert_eq!(
            (reading.usage.input_tokens, reading.clamped, reading.source),
            (count, clamped, Source::Start),
            "{value}"
        );
    }
    for usage in
        [r#"{"input_tokens":null}"#, r#"{"input_tokens":"5"}"#, "{}", "null", "[]", "7", r#"{"input_tokens":true}"#]
    {
        assert_eq!(start_with(usage), Reading::default(), "{usage}");
    }
}

#[test]
fn a_split_of_the_cache_writes_beats_the_five_minute_default() {
    let writes = |usage: &str| {
        let usage = start_with(usage).usage;
        (usage.cache_creation_5m_tokens, usage.cache_creation_1h_tokens)
    };
    assert_eq!(writes(r#"{"cache_creation_input_tokens":9}"#), (9, 0));
    assert_eq!(writes(r#"{"cache_creation_input_tokens":9,"cache_creation":null}"#), (9, 0));
    assert_eq!(
        writes(r#"{"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_1h_input_tokens":null}}"#),
        (9, 0)
    );
    assert_eq!(writes(r#"{"cache_creation":{"ephemeral_1h_input_tokens":7},"cache_creation_input_tokens":9}"#), (0, 7));
    assert_eq!(writes(r#"{"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":7}}"#), (2, 7));
}

#[test]
fn a_final_total_without_a_split_does_not_turn_one_hour_into_five_minutes() {
    let writes = |split: &str, total: u64| {
        let usage = stream(&format!(
            "data: {{\"type\":\"message_start\",\"message\":{{\"usage\":{{\"cache_creation\":{split}}}}}}}\n\n\
             data: {{\"type\":\"message_delta\",\"usage\":{{\"cache_creation_input_tokens\":{total}}}}}\n\n"
        ))
        .usage;
        (usage.cache_creation_5m_tokens, usage.cache_creation_1h_tokens)
    };
    let only_1h = r#"{"ephemeral_1h_input_tokens":50,"ephemeral_5m_input_tokens":0}"#;
    let both = r#"{"ephemeral_1h_input_tokens":50,"ephemeral_5m_input_tokens":10}"#;
    assert_eq!((writes(only_1h, 50), writes(only_1h, 80)), ((0, 50), (0, 80)));
    assert_eq!((writes(both, 60), writes(both, 80), writes(both, 20)), ((10, 50), (30, 50), (0, 20)));
}

const MESSAGE: &str = r#"{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[
    {"type":"thinking","thinking":"hm","signature":"abc"},{"type":"text","text":"H\u00e9llo\n"},
    {"type":"tool_use","id":"t","name":"n","input":{"a":1}}],"stop_reason":"tool_use",
    "usage":{"input_tokens":25,"cache_creation_input_tokens":300,"cache_read_input_tokens":1000,
    "cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"output_tokens":15}}"#;

#[test]
fn a_json_answer_is_read_at_its_end() {
    assert_eq!(read(JSON, MESSAGE), sonnet(text_usage(), 2 + 6 + 7));
    assert_eq!(read(None, MESSAGE), sonnet(text_usage(), 15));
    let mut meter = Meter::new(JSON, None);
    meter.feed(&Bytes::from_static(MESSAGE.as_bytes()));
    assert_eq!(meter.so_far(), &Reading::default());
    assert_eq!(meter.finish(), meter.finish());
}

#[test]
fn a_json_answer_without_usage_says_how_much_text_it_had() {
    let reading =
        read(JSON, r#"{"type":"message","model":"m","content":[{"type":"text","text":"12345"}],"usage":null}"#);
    assert_eq!((reading.source, reading.complete, reading.text_bytes), (Source::None, true, 5));
    assert_eq!(reading.billable(), tokens(0, 2));
}

#[test]
fn an_error_body_gives_its_type_and_a_broken_body_nothing() {
    let reading = read(JSON, r#"{"type":"error","error":{"type":"rate_limit_error","message":"x"}}"#);
    assert_eq!((reading.error_type.as_deref(), reading.complete), (Some("rate_limit_error"), true));
    for body in ["", "<html>", r#"{"type":"mess"#, r#"{"id":"x","content":[{"text":"abcd"#] {
        assert_eq!(read(JSON, body), Reading::default(), "{body}");
    }
    for body in ["[]", "null", "{}"] {
        assert_eq!(read(JSON, body).billable(), Usage::default(), "{body}");
    }
}

#[test]
fn a_json_answer_that_was_cut_says_what_came_of_it() {
    let cut = |at: &str| read(JSON, &MESSAGE[..MESSAGE.find(at).unwrap()]);
    let counted = cut("\"ephemeral_5m"); // Within the counts: none of them is believed.
    assert_eq!((counted.source, counted.complete, counted.text_bytes), (Source::None, false, 15));
    let whole = read(JSON, &format!("{},", &MESSAGE[..MESSAGE.len() - 1]));
    assert_eq!((whole.source, whole.complete, whole.billable()), (Source::Final, false, text_usage()));
    let text = cut("llo");
    assert_eq!((text.source, text.billable().input_tokens), (Source::None, 0));
    assert!((80..110).contains(&text.text_bytes), "{text:?}");
}

#[test]
fn text_after_the_last_counts_is_added_when_the_stream_is_cut() {
    let start = r#"data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#;
    let text = r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"12345"}}"#;
    let counts = r#"data: {"type":"message_delta","usage":{"output_tokens":40}}"#;
    let stop = r#"data: {"type":"message_stop"}"#;
    let read = |events: &[&str]| stream(&events.iter().map(|event| format!("{event}\n\n")).collect::<String>());
    let cut = read(&[start, text, counts, text]);
    assert_eq!((cut.billable(), cut.is_final()), (tokens(9, 42), false));
    let whole = read(&[start, text, counts, text, stop]);
    assert_eq!((whole.billable(), whole.is_final()), (tokens(9, 40), true));
    let at_counts = read(&[start, text, counts]);
    assert_eq!((at_counts.billable(), at_counts.is_final()), (tokens(9, 40), true));
}

#[test]
fn counts_without_the_output_are_no_last_word_and_without_the_prompt_say_so() {
    let json = |usage: &str| read(JSON, &format!(r#"{{"content":[{{"text":"12345678"}}],"usage":{usage}}}"#));
    let input = json(r#"{"input_tokens":5,"output_tokens":null}"#);
    assert_eq!((input.source, input.billable(), input.prompt_stated), (Source::Start, tokens(5, 2), true));
    let output = json(r#"{"input_tokens":null,"output_tokens":5}"#);
    assert_eq!((output.source, output.billable(), output.prompt_stated), (Source::Final, tokens(0, 5), false));
    assert!(json(r#"{"cache_read_input_tokens":0,"output_tokens":5}"#).prompt_stated);
}

#[test]
fn counts_are_taken_from_their_places_only() {
    let usage = start_with(
        &r#"{"input_tokens":3,"cache_creation":{"input_tokens":70,"output_tokens":70,"ephemeral_5m_input_tokens":1},
        "server_tool_use":{"web_search_requests":2,"web_fetch_requests":9,"output_tokens":70},"ephemeral_1h_input_tokens":70,
        "iterations":[{"input_tokens":70,"output_tokens":70}],"web_search_requests":70}"#
        .replace('\n', ""),
    )
    .usage;
    assert_eq!(usage, Usage { cache_creation_5m_tokens: 1, web_search_requests: 2, ..tokens(3, 0) });
    let absurd = start_with(r#"{"input_tokens":1,"server_tool_use":{"web_search_requests":10001}}"#);
    assert_eq!((absurd.usage.web_search_requests, absurd.clamped), (10_000, true));
}

#[test]
fn a_json_body_past_the_bound_is_not_kept() {
    let mut meter = Meter::new(JSON, None);
    meter.feed(&Bytes::from(vec![b' '; body::MAX_BODY_BYTES]));
    meter.feed(&Bytes::from_static(MESSAGE.as_bytes()));
    assert_eq!(meter.finish(), Reading::default());
}

fn encodings(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let level = flate2::Compression::default();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), level);
    for encoder in [&mut gzip as &mut dyn Write, &mut zlib, &mut raw] {
        encoder.write_all(body).unwrap();
    }
    vec![
        ("gzip", gzip.finish().unwrap()),
        ("deflate", zlib.finish().unwrap()),
        ("deflate", raw.finish().unwrap()),
        ("zstd", zstd::stream::encode_all(body, 3).unwrap()),
    ]
}

#[test]
fn an_encoded_answer_reads_like_the_plain_one() {
    let mut streams = encodings(TEXT.as_bytes());
    streams.push(("br", include_bytes!("golden/text.sse.br").to_vec()));
    for (encoding, encoded) in streams {
        for size in (1..=17).chain([usize::MAX]) {
            let reading = read_chunks(SSE, Some(encoding), encoded.chunks(size));
            assert_eq!(reading, stream(TEXT), "{encoding} in chunks of {size}");
        }
    }
    for (encoding, encoded) in encodings(MESSAGE.as_bytes()) {
        assert_eq!(read_chunks(JSON, Some(encoding), encoded.chunks(7)), read(JSON, MESSAGE), "{encoding}");
    }
    assert_eq!(read_chunks(SSE, Some(" GZIP "), [&*encodings(TEXT.as_bytes())[0].1]), stream(TEXT));
    assert_eq!(read_chunks(SSE, Some("identity"), [TEXT.as_bytes()]), stream(TEXT));
}

#[test]
fn what_an_encoded_stream_has_flushed_is_known_at_once() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut meter = Meter::new(SSE, Some("gzip"));
    for event in TEXT.split_inclusive("\n\n") {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
        meter.feed(&std::mem::take(encoder.get_mut()).into());
        assert_ne!(meter.so_far().source, Source::None, "{event}");
    }
    assert!(meter.so_far().complete);
}

#[test]
fn nothing_is_read_from_an_encoding_that_is_not_understood() {
    for encoding in ["compress", "gzip, br", "aws-chunked", "gzip"] {
        assert_eq!(read_chunks(SSE, Some(encoding), [TEXT.as_bytes()]), Reading::default(), "{encoding}");
    }
}

#[test]
fn damaged_data_keeps_what_was_heard_and_never_panics() {
    for (encoding, encoded) in encodings(TEXT.repeat(20).as_bytes()) {
        for at in (0..encoded.len()).step_by(3) {
            let mut damaged = encoded.clone();
            damaged[at] ^= 0x55;
            let reading = read_chunks(SSE, Some(encoding), damaged.chunks(50));
            assert!(reading.usage.output_tokens <= counts::MOST, "{encoding} {at}");
            let cut = read_chunks(SSE, Some(encoding), [&encoded[..at]]);
            assert!(matches!(cut.source, Source::None | Source::Start | Source::Final));
        }
    }
}

#[test]
fn a_delta_written_in_another_order_counts_the_same() {
    for delta in [
        r#"{"type":"content_block_delta","index":12,"delta":{"type":"text_delta","text":"abc"}}"#,
        r#"{"type":"content_block_delta","index":0, "delta":{"text":"abc","type":"text_delta"}}"#,
        r#"{"delta":{"thinking":"abc"},"index":0,"type":"content_block_delta"}"#,
        r#"{"type":"content_block_delta","index":-1,"delta":{"partial_json":"abc"}}"#,
    ] {
        assert_eq!(stream(&format!("data: {delta}\n\n")).text_bytes, 3, "{delta}");
    }
    for delta in [
        r#"{"type":"content_block_delta","index":0,"delta":{"text":"abc"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"text":3}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":"text"}"#,
        r#"{"type":"content_block_delta","index":0}"#,
    ] {
        assert_eq!(stream(&format!("data: {delta}\n\n")).text_bytes, 0, "{delta}");
    }
}
