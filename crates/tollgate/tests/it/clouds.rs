//! Upstreams on clouds: how the gateway proves who it is there, and what a developer sees of it.

mod federation;
mod foundry;
mod proof;
mod stock_client;
mod vertex;

use serde_json::{Value, json};

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
