//! Prompts: request bodies like those of the real client, in sizes that matter.
//! Knows the shape of a Messages request; knows nothing of connections.

use clap::ValueEnum;
use serde_json::{Value, json};

/// The model every request asks for. Its client name is also its upstream name, so no gateway has a reason to rewrite the body.
pub(crate) const MODEL: &str = "claude-sonnet-4-6";

/// The model of [`Prompt::Capped`]: where output costs the most and the prompt the least, a bound is nearest to the price.
pub(crate) const CAPPED_MODEL: &str = "claude-haiku-4-5";

/// The prompts a load may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Prompt {
    /// About 20 KB: system blocks, tools, a conversation, 32000 output tokens allowed, like the terminal client.
    Code,
    /// About 200 bytes: one short question.
    Short,
    /// 500 bytes and 1100 output tokens: an honest upper bound of what the overshoot script bills (500 in, 1100 out).
    Capped,
}

impl Prompt {
    /// The JSON body, compact, its keys in the order of the real client: `model` first, `stream` last.
    pub(crate) fn body(self, stream: bool) -> Vec<u8> {
        let open = match self {
            Self::Code => code(),
            Self::Short => one_message(MODEL, "What does the borrow checker check?", 1024),
            Self::Capped => {
                let rest = one_message(CAPPED_MODEL, "", 1100).len() + format!(",\"stream\":{stream}}}").len();
                one_message(CAPPED_MODEL, &prose(500 - rest, 7), 1100)
            }
        };
        format!("{open},\"stream\":{stream}}}").into_bytes()
    }
}

/// A body without its closing brace.
fn one_message(model: &str, text: &str, max_tokens: u32) -> String {
    let messages = json!([{"role": "user", "content": text}]);
    format!("{{\"model\":\"{model}\",\"max_tokens\":{max_tokens},\"messages\":{messages}")
}

/// A body without its closing brace.
fn code() -> String {
    let ephemeral = json!({"type": "ephemeral"});
    let messages = json!([
        {"role": "user", "content": [
            {"type": "text", "text": prose(1800, 1)},
            {"type": "text", "text": "Why does \"cargo test\" fail in `src/ledger.rs`?\n", "cache_control": ephemeral},
        ]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "I will read the file first."},
            {"type": "tool_use", "id": "toolu_01A09q90qw90lq917835lq9", "name": "Read", "input": {"file_path": "src/ledger.rs"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_01A09q90qw90lq917835lq9", "content": source(4500), "cache_control": ephemeral},
        ]},
    ]);
    let system = json!([
        {"type": "text", "text": "You are a coding assistant in a terminal.", "cache_control": ephemeral},
        {"type": "text", "text": prose(6000, 2), "cache_control": ephemeral},
    ]);
    let tools = Value::Array((0..8).map(tool).collect());
    let user = "{\"device_id\":\"bench\",\"session_id\":\"4d4f7a1c-5f0e-4f0f-9a55-2f7f0c1d8f11\"}";
    let metadata = json!({"user_id": user});
    format!(
        "{{\"model\":\"{MODEL}\",\"messages\":{messages},\"system\":{system},\"tools\":{tools},\
         \"metadata\":{metadata},\"max_tokens\":32000,\"temperature\":1"
    )
}

fn tool(index: usize) -> Value {
    const NAMES: [&str; 8] = ["Read", "Edit", "Write", "Bash", "Grep", "Glob", "WebFetch", "Task"];
    json!({
        "name": NAMES[index % NAMES.len()],
        "description": prose(500, index + 3),
        "input_schema": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "The absolute path to work on"},
                "limit": {"type": "number", "description": "How many lines to return"},
            },
            "required": ["path"],
            "additionalProperties": false,
        },
    })
}

/// Words and line breaks, the same for the same seed, exactly `bytes` long before JSON escapes and free of any.
fn prose(bytes: usize, seed: usize) -> String {
    const WORDS: [&str; 12] =
        ["the", "request", "is", "checked", "before", "it", "leaves", "and", "every", "answer", "settled", "once"];
    let mut text = String::with_capacity(bytes + 8);
    let mut word = seed;
    while text.len() < bytes {
        text.push_str(WORDS[word % WORDS.len()]);
        text.push(' ');
        word = word * 5 + 1;
        word %= 9973;
    }
    text.truncate(bytes);
    text
}

/// Text with the escapes that source code needs in JSON: quotes, tabs, line breaks.
fn source(bytes: usize) -> String {
    "\t1\u{2192}let answer = reply.get(\"usage\").ok_or(Error::Missing)?; // may fail\n"
        .chars()
        .cycle()
        .take(bytes)
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_capped_prompt_bounds_what_its_script_bills() {
        let body = Prompt::Capped.body(false);
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.len(), 500);
        assert_eq!(value["max_tokens"], 1100);
    }

    #[test]
    fn the_code_prompt_is_about_twenty_kilobytes() {
        let body = Prompt::Code.body(true);
        assert!((18_000..22_000).contains(&body.len()), "{}", body.len());
    }
}
