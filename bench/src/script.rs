//! Scripts: what the mock upstream answers, prepared once so that an answer costs one write.
//! Knows the Messages API's JSON and event names; knows nothing of connections.

use crate::{http1, prompt};
use clap::Args;
use serde::{Deserialize, Serialize};

/// What to answer. Also the JSON body of `PUT /bench/script`.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Script {
    /// Milliseconds between a request and the first byte of its answer.
    #[arg(long, default_value_t = 0)]
    pub(crate) delay_ms: u64,
    /// How many text deltas a stream has.
    #[arg(long, default_value_t = 40)]
    pub(crate) events: usize,
    /// Milliseconds between two events of a stream; 0 sends the whole stream in one write.
    #[arg(long, default_value_t = 0)]
    pub(crate) spacing_ms: u64,
    /// Bytes of text in each delta; a JSON answer holds the text of all of them.
    #[arg(long, default_value_t = 24)]
    pub(crate) event_bytes: usize,
    /// Uncached input tokens that the usage reports.
    #[arg(long, default_value_t = 25)]
    pub(crate) input_tokens: u64,
    /// Input tokens read from the prompt cache that the usage reports.
    #[arg(long, default_value_t = 5200)]
    pub(crate) cache_read_tokens: u64,
    /// Output tokens that the final usage reports.
    #[arg(long, default_value_t = 240)]
    pub(crate) output_tokens: u64,
    /// The model that answers say they come from.
    #[arg(long, default_value = prompt::MODEL)]
    pub(crate) model: String,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            delay_ms: 0,
            events: 40,
            spacing_ms: 0,
            event_bytes: 24,
            input_tokens: 25,
            cache_read_tokens: 5200,
            output_tokens: 240,
            model: prompt::MODEL.to_owned(),
        }
    }
}

/// A script turned into bytes.
pub(crate) struct Answers {
    /// The script these bytes came from.
    pub(crate) script: Script,
    /// Head and body of the plain answer.
    pub(crate) json: Vec<u8>,
    /// Writes of a stream, in order; the spacing lies between two of them.
    pub(crate) stream: Vec<Vec<u8>>,
}

impl Answers {
    /// Prepares the bytes of a script.
    pub(crate) fn prepare(script: Script) -> Self {
        let json = json_answer(&script);
        let mut frames = frames(&script).into_iter();
        let mut opening = response_head("text/event-stream; charset=utf-8", "transfer-encoding: chunked");
        for frame in frames.by_ref().take(4) {
            // What a model sends at once: start, block start, ping and the first words.
            http1::push_chunk(&mut opening, frame.as_bytes());
        }
        let mut stream = vec![opening];
        for frame in frames {
            let mut chunk = Vec::new();
            http1::push_chunk(&mut chunk, frame.as_bytes());
            stream.push(chunk);
        }
        if let Some(last) = stream.last_mut() {
            last.extend_from_slice(http1::LAST_CHUNK);
        }
        if script.spacing_ms == 0 {
            stream = vec![stream.concat()];
        }
        Self { script, json, stream }
    }
}

/// The events of a stream, one text each, ends of the frame included. Keys stand in the order of the real API.
fn frames(script: &Script) -> Vec<String> {
    let start = message(script, "[]", "null", &usage(script, 1));
    let block = r#""index":0,"content_block":{"type":"text","text":""}"#;
    let delta = format!(r#""index":0,"delta":{{"type":"text_delta","text":"{}"}}"#, text(script.event_bytes));
    let Script { input_tokens, cache_read_tokens, output_tokens, .. } = script;
    let closing = format!(
        r#""delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{{"input_tokens":{input_tokens},"cache_creation_input_tokens":0,"cache_read_input_tokens":{cache_read_tokens},"output_tokens":{output_tokens}}}"#
    );
    let mut frames = vec![
        frame("message_start", &format!(r#","message":{start}"#)),
        frame("content_block_start", &format!(",{block}")),
        frame("ping", ""),
    ];
    frames.extend((0..script.events).map(|_| frame("content_block_delta", &format!(",{delta}"))));
    // The end of the block, the final usage and the end of the message are ready together.
    frames.push(
        frame("content_block_stop", r#","index":0"#)
            + &frame("message_delta", &format!(",{closing}"))
            + &frame("message_stop", ""),
    );
    frames
}

fn frame(event: &str, fields: &str) -> String {
    format!("event: {event}\ndata: {{\"type\":\"{event}\"{fields}}}\n\n")
}

fn json_answer(script: &Script) -> Vec<u8> {
    let content = format!(r#"[{{"type":"text","text":"{}"}}]"#, text(script.event_bytes * script.events));
    let body = message(script, &content, r#""end_turn""#, &usage(script, script.output_tokens));
    let mut answer = response_head("application/json", &format!("content-length: {}", body.len()));
    answer.extend_from_slice(body.as_bytes());
    answer
}

fn message(script: &Script, content: &str, stop_reason: &str, usage: &str) -> String {
    format!(
        r#"{{"model":"{}","id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","content":{content},"stop_reason":{stop_reason},"stop_sequence":null,"usage":{usage}}}"#,
        script.model
    )
}

fn usage(script: &Script, output: u64) -> String {
    let Script { input_tokens, cache_read_tokens, .. } = script;
    format!(
        r#"{{"input_tokens":{input_tokens},"cache_creation_input_tokens":0,"cache_read_input_tokens":{cache_read_tokens},"cache_creation":{{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0}},"output_tokens":{output},"service_tier":"standard"}}"#
    )
}

fn text(bytes: usize) -> String {
    "a word and then another ".chars().cycle().take(bytes).collect()
}

/// A head with the headers a gateway must judge: some to pass on, some to drop.
fn response_head(content_type: &str, framing: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\ncontent-type: {content_type}\r\n{framing}\r\n\
         cache-control: no-cache\r\nrequest-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\n\
         anthropic-organization-id: 3e0a2c54-0a43-4b8e-9c1a-2f3d6c1b7a90\r\n\
         anthropic-ratelimit-requests-limit: 4000\r\nanthropic-ratelimit-requests-remaining: 3999\r\n\
         strict-transport-security: max-age=31536000\r\nserver: mock\r\nvia: 1.1 mock\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_event_of_a_stream_is_json_and_names_itself() {
        for frame in frames(&Script::default()).concat().split_terminator("\n\n") {
            let (event, data) = frame.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["type"], event.strip_prefix("event: ").unwrap());
        }
    }

    #[test]
    fn a_stream_spaced_or_not_is_the_same_bytes() {
        let spaced = Answers::prepare(Script { spacing_ms: 20, ..Script::default() });
        let at_once = Answers::prepare(Script::default());
        assert_eq!(at_once.stream.len(), 1);
        assert_eq!(spaced.stream.len(), 41);
        assert_eq!(spaced.stream.concat(), at_once.stream.concat());
    }

    #[test]
    fn the_plain_answer_is_json_of_the_declared_length() {
        let answer = Answers::prepare(Script::default()).json;
        let start = http1::end_of_head(&answer).unwrap();
        let head = http1::parse_head(&answer[..start]).unwrap();
        assert_eq!(head.framing, http1::Framing::Exact(answer.len() - start));
        let body: Value = serde_json::from_slice(&answer[start..]).unwrap();
        assert_eq!(body["usage"]["output_tokens"], 240);
    }
}
