//! Amazon Bedrock's runtime: it serves who signs well, takes the bodies that it documents, and frames its streams.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::aws::{self, Keys};
use crate::support::upstream::{Answer, Received, Step, message_events};

const AMAZON: &str = "application/vnd.amazon.eventstream";

/// Serves whoever signs with these keys for that region.
pub(crate) fn signed(keys: Keys, region: &'static str) -> impl Fn(&Received) -> Answer {
    move |received| match aws::check(received, &keys, region, "bedrock") {
        Ok(()) => serve(received),
        Err(why) => aws::refused(&why),
    }
}

/// Answers a request that is let in.
pub(crate) fn serve(received: &Received) -> Answer {
    let path = received.uri.path();
    let Some((model, verb)) = path.strip_prefix("/model/").and_then(|rest| rest.rsplit_once('/')) else {
        return Answer::json(404, &json!({ "message": "UnknownOperationException" }));
    };
    if model.contains('/') {
        return Answer::json(400, &json!({ "message": "The provided model identifier is invalid." }));
    }
    let body = received.json();
    match verb {
        "invoke" | "invoke-with-response-stream" => {
            if let Some(why) = fault(&body) {
                return Answer::json(400, &json!({ "message": why }));
            }
            if verb == "invoke" {
                return Answer::message(model, "Hello there", 11, 5).header("x-amzn-requestid", "amzn-1");
            }
            stream(message_events(model, &["Hello", " there"], 11, 5).iter().map(|event| chunk(event).into()))
                .header("x-amzn-requestid", "amzn-1")
        }
        "count-tokens" => {
            let packed = body["input"]["invokeModel"]["body"].as_str().unwrap();
            let inner: Value = serde_json::from_slice(&STANDARD.decode(packed).unwrap()).unwrap();
            match fault(&inner) {
                Some(why) => Answer::json(400, &json!({ "message": why })),
                None => Answer::json(200, &json!({ "inputTokens": 42 })),
            }
        }
        _ => Answer::json(404, &json!({ "message": "UnknownOperationException" })),
    }
}

fn fault(body: &Value) -> Option<String> {
    if body["anthropic_version"] != "bedrock-2023-05-31" {
        return Some("anthropic_version: Field required".to_owned());
    }
    if body["max_tokens"].as_u64().is_none() {
        return Some("max_tokens: Field required".to_owned());
    }
    let foreign = ["model", "stream", "tags"].into_iter().find(|name| !body[*name].is_null());
    foreign.map(|name| format!("{name}: Extra inputs are not permitted"))
}

/// A stream of frames.
pub(crate) fn stream(steps: impl IntoIterator<Item = Step>) -> Answer {
    Answer::in_steps(AMAZON, steps.into_iter().collect())
}

/// An event of the Messages API, as `event: ..\ndata: ..\n\n` or the data alone, in a frame.
pub(crate) fn chunk(event: &str) -> Bytes {
    let data = event.split_once("data: ").map_or(event, |(_, data)| data).trim_end();
    let payload = json!({ "bytes": STANDARD.encode(data), "p": "abcdefghijk" }).to_string();
    frame(&[(":event-type", "chunk"), (":content-type", "application/json"), (":message-type", "event")], payload)
}

/// An exception in a frame.
pub(crate) fn exception(kind: &'static str, message: &str) -> Bytes {
    let headers = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
    frame(&headers, json!({ "message": message }).to_string())
}

fn frame(headers: &[(&'static str, &'static str)], payload: String) -> Bytes {
    let header =
        |(name, value): &(&'static str, &'static str)| Header::new(*name, HeaderValue::String((*value).into()));
    let message = Message::new_from_parts(headers.iter().map(header).collect(), payload);
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes.into()
}
