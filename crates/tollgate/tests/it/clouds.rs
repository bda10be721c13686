//! Upstreams on clouds: how the gateway proves who it is there, what they are sent, and that a client never notices which one
//! answered.

mod aws;
mod bedrock;
mod chain;
mod expiry;
mod federation;
mod foundry;
mod mocks;
mod proof;
mod stock_client;
mod vertex;

use serde_json::{Value, json};

use crate::support::cloud::aws::KEYS;
use crate::support::upstream::{Answer, Received, Step, message_events};

/// A request of a model that every cloud has.
const PROMPT: &str = r#"{"model":"claude-sonnet-4-6","max_tokens":16,"stream":true,"messages":[]}"#;

/// An upstream on Vertex AI, whose address is the test's.
fn on_vertex(name: &str, auth: &Value) -> Value {
    let mut auth = auth.clone();
    auth["api_key"] = Value::Null;
    json!({ "name": name, "provider": "vertex", "project_id": "p", "region": "europe-west1", "path": "/v1", "auth": auth })
}

/// Answers as Vertex AI does, whose addresses say what is asked.
fn vertex(request: &Received) -> Answer {
    let path = request.uri.path();
    if path.ends_with("/count-tokens:rawPredict") {
        return Answer::json(200, &json!({ "input_tokens": 42 }));
    }
    if path.ends_with(":streamRawPredict") {
        return Answer::stream(message_events("claude", &["Hello", " there"], 11, 5).into_iter().map(Step::from));
    }
    Answer::message("claude", "Hello there", 11, 5)
}

/// An error as Google writes it in streams.
fn google_error(code: u16, status: &str, message: &str) -> Answer {
    let error = json!({ "code": code, "message": message, "status": status });
    Answer::json(code, &json!([{ "error": error }]))
}

/// The keys of an upstream entry for Bedrock, signed with [`KEYS`].
pub(crate) fn bedrock(more: &Value) -> Value {
    let auth = json!({ "api_key": null, "aws_access_key_id": KEYS.id, "aws_secret_access_key": KEYS.secret });
    let mut entry = json!({ "name": "cloud", "provider": "bedrock", "region": "us-east-1", "auth": auth });
    for (key, value) in more.as_object().into_iter().flatten() {
        entry[key] = value.clone();
    }
    entry
}

/// A request of the stock client's shape.
pub(crate) fn prompt(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-4-6", "max_tokens": 64, "stream": stream,
        "messages": [{ "role": "user", "content": "say hello" }],
    })
}
