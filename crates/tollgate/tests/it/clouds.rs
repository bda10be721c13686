//! Upstreams on clouds: what they are sent, and that a client never notices which one answered.

mod aws;
mod bedrock;
mod chain;
mod client;
mod mocks;

use serde_json::{Value, json};

use crate::support::cloud::aws::KEYS;

/// The keys of an upstream entry for Bedrock, signed with [`KEYS`].
fn bedrock(more: &Value) -> Value {
    let auth = json!({ "api_key": null, "aws_access_key_id": KEYS.id, "aws_secret_access_key": KEYS.secret });
    let mut entry = json!({ "name": "cloud", "provider": "bedrock", "region": "us-east-1", "auth": auth });
    for (key, value) in more.as_object().into_iter().flatten() {
        entry[key] = value.clone();
    }
    entry
}

/// A request of the stock client's shape.
fn prompt(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-4-6", "max_tokens": 64, "stream": stream,
        "messages": [{ "role": "user", "content": "say hello" }],
    })
}
