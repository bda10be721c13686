//! What becomes of a provider's answers: streams, counts, and errors in the shapes of each.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

use super::*;
use crate::upstream::scripted::Server;

/// A provider's answer.
struct Given {
    name: &'static str,
    asked: &'static Asked,
    status: u16,
    headers: &'static str,
    body: Vec<u8>,
}

const WHOLE: &Asked = &REQUESTS[0];
const STREAM: &Asked = &REQUESTS[1];
const COUNT: &Asked = &REQUESTS[7];

/// Ids of requests, accounts and infrastructure, as the clouds send them along.
const FOREIGN: &str = "x-amzn-requestid: amzn-1\r\nx-request-id: up-1\r\nrequest-id: req_up\r\nanthropic-organization-id: org\r\n\
    x-goog-project: p-1\r\napim-request-id: apim-1\r\nx-ms-region: East US\r\nset-cookie: a=b\r\nserver: s\r\nvia: v\r\n";

/// Events as a provider writes them: one of a kind that nobody knows yet, and a number that no float holds.
const EVENTS: [&str; 5] = [
    r#"{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":12345678901234567890}}}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"of_tomorrow","n":1.0}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße \u2728"}}"#,
    r#"{"type":"message_stop"}"#,
];

fn framed(provider: Provider, events: &[&str]) -> (&'static str, Vec<u8>) {
    if provider == Provider::Bedrock {
        let chunk = |event: &&str| {
            let heads = [(":event-type", "chunk"), (":message-type", "event")];
            frame(&heads, &format!("{{\"bytes\":\"{}\"}}", STANDARD.encode(event)))
        };
        return ("content-type: application/vnd.amazon.eventstream\r\n", events.iter().flat_map(chunk).collect());
    }
    let written = |event: &&str| {
        let data: Value = serde_json::from_str(event).unwrap();
        format!("event: {}\ndata: {event}\n\n", data["type"].as_str().unwrap())
    };
    let text = events.iter().map(written).collect::<Vec<_>>().join(": a comment\n\n");
    ("content-type: text/event-stream; charset=utf-8\r\n", text.into_bytes())
}

fn frame(headers: &[(&'static str, &'static str)], payload: &str) -> Vec<u8> {
    let header =
        |(name, value): &(&'static str, &'static str)| Header::new(*name, HeaderValue::String((*value).into()));
    let mut bytes = Vec::new();
    let headers = headers.iter().map(header).collect();
    write_message_to(&Message::new_from_parts(headers, payload.to_owned()), &mut bytes).unwrap();
    bytes
}

/// An error in the shape of this provider.
fn error(provider: Provider, status: u16, message: &str) -> Vec<u8> {
    let body = match provider {
        Provider::Bedrock | Provider::Mantle => json!({ "message": message }),
        Provider::Vertex | Provider::AnthropicGoogleCloud => {
            json!([{ "error": { "code": status, "message": message, "status": "STATUS" } }])
        }
        Provider::Foundry => json!({ "error": { "code": "Code", "message": message } }),
        Provider::Anthropic | Provider::AnthropicAws => {
            json!({ "type": "error", "error": { "type": "invalid_request_error", "message": message }, "request_id": "req_up" })
        }
    };
    body.to_string().into_bytes()
}

fn answers(provider: Provider) -> Vec<Given> {
    let json = "content-type: application/json\r\n";
    let given = |name, asked, headers, body: Vec<u8>| Given { name, asked, status: 200, headers, body };
    let (stream, events) = framed(provider, &EVENTS);
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let late = framed(provider, &[EVENTS[0], overloaded]).1;
    let count = if provider == Provider::Bedrock { r#"{"inputTokens":42}"# } else { r#"{"input_tokens":42}"# };
    let mut all = vec![
        given("a whole answer", WHOLE, json, br#"{ "id":"msg_1","n":12345678901234567890, "f": 1.0 }"#.to_vec()),
        given("a stream", STREAM, stream, events.clone()),
        given("an error in the place of the first event", STREAM, stream, framed(provider, &[overloaded]).1),
        given("an error later", STREAM, stream, late),
        given("a stream that ends within an event", STREAM, stream, events[..events.len() - 9].to_vec()),
        given("a count", COUNT, json, count.as_bytes().to_vec()),
        given(
            "a page in the place of an answer",
            WHOLE,
            "content-type: text/html\r\n",
            b"<p>account 111122223333".to_vec(),
        ),
    ];
    if provider == Provider::Bedrock {
        let exception = |kind| {
            let heads = [(":exception-type", kind), (":message-type", "exception")];
            frame(&heads, r#"{"message":"account 111122223333"}"#)
        };
        all.push(given("an exception in the first frame", STREAM, stream, exception("throttlingException")));
        all.push(given("an exception of another kind", STREAM, stream, exception("modelStreamErrorException")));
        let damaged = [&events[..events.len() - 1], &[0]].concat();
        all.push(given("a checksum that is wrong", STREAM, stream, damaged));
    }
    let anthropics = br#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too large"},"request_id":"req_up"}"#;
    all.push(Given { status: 400, ..given("400 in Anthropic's envelope", WHOLE, json, anthropics.to_vec()) });
    let refusals = [
        ("a prompt that is too long, in Anthropic's words", 400, "prompt is too long: 210000 tokens > 200000 maximum"),
        ("a prompt that is too long, in Amazon's words", 400, "Input is too long for requested model."),
        (
            "a prompt that is too long, in Google's words",
            400,
            "The request size (31457281 bytes) exceeds 30.000MB limit.",
        ),
        ("400 of a model that is not there", 400, "The provided model identifier is invalid."),
        ("400 of any other kind", 400, "account 111122223333 may not"),
        ("401", 401, "key of account 111122223333"),
        ("402", 402, "account 111122223333 owes"),
        ("403", 403, "arn:aws:iam::111122223333:user/x is not authorized"),
        ("404", 404, "project 111122223333 has no such model"),
        ("413", 413, "too large for 111122223333"),
        ("422", 422, "account 111122223333"),
        ("429", 429, "quota of 111122223333"),
        ("500", 500, "trace of 111122223333"),
        ("501", 501, "not for 111122223333"),
        ("503", 503, "cell of 111122223333"),
        ("529", 529, "cell of 111122223333"),
    ];
    for (name, status, message) in refusals {
        let body = error(provider, status, message);
        all.push(Given {
            name,
            asked: WHOLE,
            status,
            headers: "content-type: application/json\r\nretry-after: 7\r\n",
            body,
        });
    }
    all
}

/// What a client would be sent, or why the next upstream is asked, and what the client is told when there is none.
async fn outcome(scene: &Scene, server: &Server, given: &Given) -> String {
    let head = format!(
        "HTTP/1.1 {} Text\r\nconnection: close\r\n{}{FOREIGN}content-length: {}\r\n\r\n",
        given.status,
        given.headers,
        given.body.len()
    );
    let bytes = [head.as_bytes(), &given.body].concat();
    let asking = scene
        .with(given.asked, async |call: &Call<'_>| scene.upstreams.ask(&scene.candidate, call, &Sent::default()).await);
    let (asked, _) = tokio::join!(asking, server.answer(bytes));
    match asked {
        Ok(answer) => shown(answer).await,
        Err(failure) => {
            let why = format!("leads on as {}: {failure}", failure.class().as_str());
            match failure {
                Failure::Credential(_) => why,
                Failure::Spent(answer) | Failure::NoModel(answer) | Failure::Status(answer) => {
                    format!("{why}\nif it is the last word:\n{}", shown(*answer).await)
                }
                _ => why,
            }
        }
    }
}

async fn shown(answer: Answer) -> String {
    let status = answer.status();
    let mut lines: Vec<String> = answer_headers(answer.headers())
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort();
    let mut body = answer.into_body();
    let (mut read, mut end) = (Vec::new(), String::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => read.extend_from_slice(&frame.into_data().unwrap()),
            Err(broken) => end = format!("\nbreaks off: {broken}"),
        }
    }
    format!("{}\n{}\n{}{end}", status.as_u16(), lines.concat(), String::from_utf8(read).unwrap())
}

async fn answers_of(provider: Provider) {
    let server = Server::start().await;
    let scene = Scene::of(provider, Some(&server.url())).await;
    let mut text = String::new();
    for given in answers(provider) {
        text.push_str(&format!("== {}\n{}\n\n", given.name, outcome(&scene, &server, &given).await));
    }
    insta::assert_snapshot!(format!("answers_of_{}", provider.as_str()), text);
    // No cloud's own words of an account, and no id of its infrastructure, are for a client. What leads on is for the log.
    let told = || text.lines().filter(|line| !line.starts_with("leads on as "));
    if provider != Provider::Anthropic && provider != Provider::AnthropicAws {
        assert!(told().all(|line| !line.contains("111122223333")), "{text}");
    }
    for foreign in ["amzn-1", "up-1", "org", "apim-1", "East US", "a=b"] {
        assert!(!told().any(|line| line.ends_with(&format!(": {foreign}"))), "{foreign}: {text}");
    }
}

#[tokio::test]
async fn answers_of_the_claude_api() {
    answers_of(Provider::Anthropic).await;
}

#[tokio::test]
async fn answers_of_bedrock() {
    answers_of(Provider::Bedrock).await;
}

#[tokio::test]
async fn answers_of_mantle() {
    answers_of(Provider::Mantle).await;
}

#[tokio::test]
async fn answers_of_claude_platform_on_aws() {
    answers_of(Provider::AnthropicAws).await;
}

#[tokio::test]
async fn answers_of_claude_platform_on_google_cloud() {
    answers_of(Provider::AnthropicGoogleCloud).await;
}

#[tokio::test]
async fn answers_of_vertex() {
    answers_of(Provider::Vertex).await;
}

#[tokio::test]
async fn answers_of_foundry() {
    answers_of(Provider::Foundry).await;
}
