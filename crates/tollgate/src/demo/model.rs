//! The demo's model: an upstream that speaks the Messages API, knows a few sentences and can count.
//!
//! Its usage is honest: a token of input is four bytes of the request, a token of output one word of the answer, and no
//! answer is longer than its `max_tokens`. Knows nothing of the gateway's rooms.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::{StreamExt as _, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chance;

/// Between two words of a stream, so that one sees them come.
const WORD: Duration = Duration::from_millis(25);
/// Before a whole answer.
const THOUGHT: Duration = Duration::from_millis(300);
/// It counts no further.
const MOST_NUMBERS: u64 = 10_000;
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// What it reads of a request; everything else is ignored.
#[derive(Debug, Deserialize)]
struct Request {
    model: String,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Value,
}

/// What it says.
#[derive(Debug)]
struct Answer {
    id: String,
    model: String,
    words: Vec<String>,
    input_tokens: u64,
    cut: bool,
}

/// The model. Who may ask is decided by the key alone, as with a real one.
#[derive(Debug)]
pub(super) struct Model {
    api_key: String,
    asked: AtomicUsize,
}

impl Model {
    pub(super) fn new(api_key: String) -> Arc<Self> {
        Arc::new(Self { api_key, asked: AtomicUsize::new(0) })
    }

    /// How many prompts have reached it.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/v1/messages", post(messages))
            .route("/v1/messages/count_tokens", post(count_tokens))
            .with_state(self)
    }
}

async fn messages(State(model): State<Arc<Model>>, headers: HeaderMap, body: Bytes) -> Response {
    model.asked.fetch_add(1, Ordering::Relaxed);
    let request = match read(&model.api_key, &headers, &body) {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let Ok(secret) = chance::token() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let answer = Answer::to(&request, input_tokens(&body), format!("msg_demo_{secret}"));
    let id = [(REQUEST_ID, format!("req_demo_{secret}"))];
    if request.stream {
        let paced = stream::iter(answer.frames()).then(async |frame| {
            tokio::time::sleep(WORD).await;
            Ok::<_, Infallible>(frame)
        });
        let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
        return (id, headers, Body::from_stream(paced)).into_response();
    }
    tokio::time::sleep(THOUGHT).await;
    (id, Json(answer.whole())).into_response()
}

async fn count_tokens(State(model): State<Arc<Model>>, headers: HeaderMap, body: Bytes) -> Response {
    match read(&model.api_key, &headers, &body) {
        Ok(_) => Json(json!({"input_tokens": input_tokens(&body)})).into_response(),
        Err(refusal) => refusal,
    }
}

#[expect(clippy::result_large_err, reason = "the refusal is the response, and rare")]
fn read(key: &str, headers: &HeaderMap, body: &Bytes) -> Result<Request, Response> {
    let refuse = |status, kind, message: &str| {
        let body = json!({"type": "error", "error": {"type": kind, "message": message}});
        (status, Json(body)).into_response()
    };
    if headers.get("x-api-key").is_none_or(|sent| sent != key) {
        // A developer's bearer is no key: only the gateway holds one.
        return Err(refuse(StatusCode::UNAUTHORIZED, "authentication_error", "invalid x-api-key"));
    }
    serde_json::from_slice(body)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, "invalid_request_error", &error.to_string()))
}

fn input_tokens(body: &Bytes) -> u64 {
    u64::try_from(body.len().div_ceil(4)).unwrap_or(u64::MAX)
}

impl Answer {
    fn to(request: &Request, input_tokens: u64, id: String) -> Self {
        let mut words = words(&request.asked());
        let most = usize::try_from(request.max_tokens.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let cut = words.len() > most;
        words.truncate(most);
        Self { id, model: request.model.clone(), words, input_tokens, cut }
    }

    fn stop_reason(&self) -> &'static str {
        if self.cut { "max_tokens" } else { "end_turn" }
    }

    fn usage(&self, output_tokens: usize) -> Value {
        json!({
            "input_tokens": self.input_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": output_tokens,
        })
    }

    fn whole(&self) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": [{"type": "text", "text": self.words.concat()}],
            "stop_reason": self.stop_reason(), "stop_sequence": null, "usage": self.usage(self.words.len()),
        })
    }

    /// The events of a stream in the API's order; the last ones are ready together.
    fn frames(&self) -> Vec<String> {
        let message = json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": self.usage(0),
        });
        let block = json!({"type": "text", "text": ""});
        let mut frames = vec![
            frame("message_start", json!({"message": message}))
                + &frame("content_block_start", json!({"index": 0, "content_block": block})),
        ];
        frames.extend(self.words.iter().map(|word| {
            frame("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": word}}))
        }));
        let ending = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        frames.push(
            frame("content_block_stop", json!({"index": 0}))
                + &frame("message_delta", json!({"delta": ending, "usage": self.usage(self.words.len())}))
                + &frame("message_stop", json!({})),
        );
        frames
    }
}

fn frame(event: &str, mut fields: Value) -> String {
    fields["type"] = json!(event);
    format!("event: {event}\ndata: {fields}\n\n")
}

impl Request {
    /// The last text of the last message a person sent.
    fn asked(&self) -> String {
        let last = self.messages.iter().rev().find(|message| message.role == "user");
        let text = last.and_then(|message| match &message.content {
            Value::String(text) => Some(text.as_str()),
            Value::Array(blocks) => blocks.iter().rev().find_map(|block| block.get("text")?.as_str()),
            _ => None,
        });
        text.unwrap_or_default().trim().to_owned()
    }
}

fn words(asked: &str) -> Vec<String> {
    let up_to = asked.to_lowercase().strip_prefix("count to ").and_then(|rest| rest.trim_end_matches('.').parse().ok());
    if let Some(up_to) = up_to {
        return (1..=u64::min(up_to, MOST_NUMBERS)).map(|number| format!("{number} ")).collect();
    }
    let quoted: String = asked.chars().filter(|c| !c.is_control()).take(60).collect();
    let text = format!(
        "You said: \"{quoted}\" - I am the scripted model of the Tollgate demo: a few sentences and the numbers from one \
         to ten thousand are all I know. What brought your prompt here is real. The gateway knew who you are, checked \
         that you may use this model and can afford it, put its own key in place of your bearer, passed my words on as \
         they came, and counted them. Ask me to \"count to 50\", or ask the gateway what this has cost."
    );
    text.split_inclusive(' ').map(str::to_owned).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn answer(body: &Value) -> Answer {
        let request: Request = serde_json::from_value(body.clone()).unwrap();
        Answer::to(&request, input_tokens(&Bytes::from(body.to_string())), "msg".to_owned())
    }

    #[test]
    fn it_counts_and_bills_a_token_for_a_number() {
        let body = json!({"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Count to 12."}]});
        let whole = answer(&body).whole();
        assert_eq!(whole["content"][0]["text"], "1 2 3 4 5 6 7 8 9 10 11 12 ");
        assert_eq!(whole["usage"]["output_tokens"], 12);
        assert_eq!(whole["stop_reason"], "end_turn");
    }

    #[test]
    fn no_answer_is_longer_than_it_may_be_nor_its_input_than_the_body() {
        let content = json!([{"type": "text", "text": "context"}, {"type": "text", "text": "count to 99"}]);
        let body = json!({"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content": content}]});
        let whole = answer(&body).whole();
        assert_eq!(whole["usage"]["output_tokens"], 7);
        assert_eq!(whole["stop_reason"], "max_tokens");
        let bytes = u64::try_from(body.to_string().len()).unwrap();
        assert!(whole["usage"]["input_tokens"].as_u64().unwrap() <= bytes);
    }

    #[test]
    fn a_stream_says_what_the_whole_answer_says() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": true});
        let answer = answer(&body);
        let mut reader = wire::sse::Reader::new();
        let (mut text, mut names, mut usage) = (String::new(), Vec::new(), Value::Null);
        reader.feed(answer.frames().concat().as_bytes(), |event| {
            let data: Value = serde_json::from_slice(event.data).unwrap();
            assert_eq!(data["type"], std::str::from_utf8(event.name).unwrap());
            text.push_str(data["delta"]["text"].as_str().unwrap_or_default());
            names.push(data["type"].as_str().unwrap().to_owned());
            usage = if data["usage"].is_null() { usage.take() } else { data["usage"].clone() };
        });
        assert_eq!(text, answer.whole()["content"][0]["text"]);
        assert_eq!(usage, answer.whole()["usage"]);
        assert_eq!(names.last().unwrap(), "message_stop");
    }
}
