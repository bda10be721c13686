//! The stock Claude Code client, unmodified, with its models at every provider: it cannot tell which of them answers. One
//! table: for each provider the client streams, uses a tool, counts its context, compacts a conversation that became too
//! long, never notices a failure before the first byte, and says in its own words that a prompt is too long.

use std::any::Any;

use serde_json::{Value, json};

use super::{bedrock, google_error, on_vertex};
use crate::stock_client::{said, signed_in};
use crate::support::client::StockClient;
use crate::support::cloud::aws::{KEYS, check};
use crate::support::cloud::azure::{self, Azure};
use crate::support::cloud::bedrock::{chunk, exception, stream};
use crate::support::cloud::google::Google;
use crate::support::gateway::TestGateway;
use crate::support::idp::{Account, RefreshTokens};
use crate::support::upstream::{Answer, Received, Step, event, message_events};

/// Every provider has it.
const MODEL: &str = "claude-sonnet-5";

/// A provider as far as the client could notice it.
struct Case {
    /// Its entry below `upstreams`, but for the name.
    entry: Value,
    environment: Vec<(&'static str, String)>,
    /// Whether a request shows what the provider takes for ours; else what is wrong.
    admit: fn(&Received) -> Result<(), String>,
    format: Format,
    /// How it says that a prompt is too long.
    too_long: Answer,
    /// How it fails before the first byte.
    failing: Answer,
    /// Who issues its tokens, kept running.
    _issuer: Option<Box<dyn Any>>,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// The Messages API at its own paths.
    Messages,
    Vertex,
    Bedrock,
}

impl Format {
    fn is_count(self, request: &Received) -> bool {
        request.uri.path().ends_with(match self {
            Self::Messages => "/v1/messages/count_tokens",
            Self::Vertex => "/models/count-tokens:rawPredict",
            Self::Bedrock => "/count-tokens",
        })
    }

    fn is_streamed(self, request: &Received) -> bool {
        match self {
            Self::Messages => request.json()["stream"] == true,
            Self::Vertex => request.uri.path().ends_with(":streamRawPredict"),
            Self::Bedrock => request.uri.path().ends_with("/invoke-with-response-stream"),
        }
    }

    fn count(self, tokens: u64) -> Answer {
        let field = if self == Self::Bedrock { "inputTokens" } else { "input_tokens" };
        Answer::json(200, &json!({ field: tokens }))
    }

    /// A streamed answer of these events.
    fn framed(self, events: &[String]) -> Answer {
        match self {
            Self::Bedrock => stream(events.iter().map(|event| chunk(event).into())),
            Self::Messages | Self::Vertex => Answer::stream(events.iter().cloned().map(Step::from)),
        }
    }

    fn says(self, text: &str) -> Answer {
        self.framed(&message_events(MODEL, &[text], 11, 5))
    }

    /// A model that runs one command where it is asked to, and then says what it saw.
    fn working(self, request: &Received) -> Answer {
        if self.is_count(request) {
            return self.count(42);
        }
        if !self.is_streamed(request) {
            return Answer::message(MODEL, "Hello", 11, 5);
        }
        let body = request.json();
        let messages = body["messages"].as_array().into_iter().flatten();
        let mut blocks = messages.flat_map(|message| message["content"].as_array().into_iter().flatten());
        match blocks.find(|block| block["type"] == "tool_result") {
            // Below the command's words the client writes some of its own.
            Some(result) => self.says(&format!("saw {}", text_of(&result["content"]).lines().next().unwrap())),
            None if body["messages"].to_string().contains("run it") => self.framed(&uses_bash()),
            None => self.says("Hello there"),
        }
    }
}

fn text_of(content: &Value) -> String {
    content.as_str().or_else(|| content[0]["text"].as_str()).unwrap().to_owned()
}

/// The events of an answer that wants a command run.
fn uses_bash() -> Vec<String> {
    let mut events = message_events(MODEL, &[], 11, 5);
    let tool = json!({ "type": "tool_use", "id": "toolu_01", "name": "Bash", "input": {} });
    let input = json!({ "command": "echo of-the-tool", "description": "says it" }).to_string();
    let (first, second) = input.split_at(10);
    let delta = |part: &str| {
        let delta = json!({ "type": "input_json_delta", "partial_json": part });
        event(&json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
    };
    events[1] = event(&json!({ "type": "content_block_start", "index": 0, "content_block": tool }));
    events.splice(3..3, [delta(first), delta(second)]);
    let stop = json!({ "stop_reason": "tool_use", "stop_sequence": null });
    let at = events.len() - 2;
    events[at] = event(&json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": 5 } }));
    events
}

/// The client in front of two upstreams of one provider.
struct Developer {
    case: Case,
    gateway: TestGateway,
    client: StockClient,
}

impl Case {
    /// All that the client does, in one session of it.
    async fn walk(self) {
        let developer = Developer::of(self).await;
        developer.streams_and_uses_a_tool().await;
        developer.sees_the_count().await;
        developer.goes_on_after_a_conversation_became_too_long().await;
        developer.never_notices_a_failure_before_the_first_byte().await;
        developer.hears_that_a_prompt_is_too_long().await;
    }
}

impl Developer {
    async fn of(case: Case) -> Self {
        let alice = Account::new("alice").email("alice@example.com");
        let policies = json!({ "managed": { "policies": [{ "match": {}, "cli": { "model": MODEL } }] } });
        let mut setup = TestGateway::setup().config(policies).people(RefreshTokens::Rotated, &[alice]);
        for name in ["a", "b"] {
            let mut entry = case.entry.clone();
            entry["name"] = name.into();
            setup = setup.upstream(entry);
        }
        for (name, value) in &case.environment {
            setup = setup.environment(name, value);
        }
        let gateway = setup.start().await;
        let (admit, format) = (case.admit, case.format);
        for upstream in gateway.upstreams() {
            upstream.answer_otherwise(move |request| match admit(request) {
                Ok(()) => format.working(request),
                Err(why) => Answer::error(401, "authentication_error", &why),
            });
        }
        let client = signed_in(&gateway).await;
        Self { case, gateway, client }
    }

    async fn streams_and_uses_a_tool(&self) {
        let run = self.client.run(&["--allowedTools", "Bash(echo:*)", "-p", "count the apples: run it"]).await;
        assert_eq!(said(&run), (Some(0), "saw of-the-tool".to_owned()), "{run:?}");
        let asked = self.gateway.upstream().requests();
        assert!(asked.len() >= 2 && asked.iter().all(|request| self.case.format.is_streamed(request)), "{asked:?}");
        let event = self.gateway.audit().next("inference").await;
        assert_eq!((&event["upstream"], &event["outcome"]), (&json!("a"), &json!("complete")));
        assert_eq!((&event["input_tokens"], &event["output_tokens"]), (&json!(11), &json!(5)));
    }

    async fn sees_the_count(&self) {
        let before = self.gateway.upstream().requests().len();
        let (status, shown) = said(&self.client.prompt("/context").await);
        assert_eq!(status, Some(0));
        // The count that the provider gives.
        assert!(shown.contains("| Messages | 42 |"), "{shown}");
        let asked = &self.gateway.upstream().requests()[before..];
        assert!(!asked.is_empty() && asked.iter().all(|request| self.case.format.is_count(request)), "{asked:?}");
    }

    async fn goes_on_after_a_conversation_became_too_long(&self) {
        let upstream = self.gateway.upstream();
        let turn = self.client.run(&["-p", "count the pears"]).await;
        assert_eq!(said(&turn), (Some(0), "Hello there".to_owned()), "{turn:?}");
        let before = upstream.requests().len();
        upstream.answer(self.case.too_long.clone());
        upstream.answer(self.case.format.says("<summary>Fruit was counted.</summary>"));
        let turn = self.client.run(&["-c", "-p", "count the plums"]).await;
        assert_eq!(said(&turn), (Some(0), "Hello there".to_owned()), "{turn:?}");
        let asked = &upstream.requests()[before..];
        let messages: Vec<String> = asked.iter().map(|request| request.json()["messages"].to_string()).collect();
        let [too_long, summarize, goes_on] = messages.as_slice() else { panic!("{} requests", messages.len()) };
        assert!(too_long.contains("count the pears") && too_long.contains("count the plums"), "{too_long}");
        // Where the provider says by how much it is too long, the client cuts its beginning off before it asks.
        assert!(summarize.contains("<summary>"), "{summarize}");
        assert!(goes_on.contains("Fruit was counted.") && goes_on.contains("count the plums"), "{goes_on}");
        assert!(!goes_on.contains("count the pears"), "{goes_on}");
    }

    async fn never_notices_a_failure_before_the_first_byte(&self) {
        let [first, second] = self.gateway.upstreams() else { panic!("two upstreams") };
        first.answer(self.case.failing.clone());
        let turn = self.client.prompt("say hello").await;
        assert_eq!(said(&turn), (Some(0), "Hello there".to_owned()), "{turn:?}");
        assert_eq!(second.requests().len(), 1);
    }

    async fn hears_that_a_prompt_is_too_long(&self) {
        for upstream in self.gateway.upstreams() {
            let told = self.case.too_long.clone();
            upstream.answer_otherwise(move |_| told.clone());
        }
        let (status, told) = said(&self.client.prompt("say hello").await);
        assert_eq!(status, Some(1));
        assert!(told.to_lowercase().contains("too long"), "{told}");
    }
}

/// Anthropic's own words.
fn too_long() -> Answer {
    Answer::error(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
}

fn aws_keys() -> Value {
    json!({ "api_key": null, "aws_access_key_id": KEYS.id, "aws_secret_access_key": KEYS.secret })
}

fn shows(request: &Received, header: &str, value: &str) -> Result<(), String> {
    if request.header(header) == Some(value) { Ok(()) } else { Err(format!("another {header}")) }
}

async fn on_a_google_machine(entry: Value, format: Format, too_long: Answer, failing: Answer) -> Case {
    let google = Google::start().await;
    Case {
        entry,
        environment: vec![("GCE_METADATA_HOST", google.metadata_host())],
        admit: |request| shows(request, "authorization", "Bearer ya29.machine"),
        format,
        too_long,
        failing,
        _issuer: Some(Box::new(google)),
    }
}

fn with_keys(entry: Value, admit: fn(&Received) -> Result<(), String>, failing: Answer) -> Case {
    let too_long = too_long();
    Case { entry, environment: Vec::new(), admit, format: Format::Messages, too_long, failing, _issuer: None }
}

#[tokio::test]
async fn a_developer_works_with_the_claude_api() {
    let entry = json!({ "provider": "anthropic" });
    let failing = Answer::error(529, "overloaded_error", "Overloaded");
    with_keys(entry, |request| shows(request, "x-api-key", "sk-of-the-upstream"), failing).walk().await;
}

#[tokio::test]
async fn a_developer_works_with_bedrock() {
    let case = Case {
        entry: bedrock(&json!({})),
        environment: Vec::new(),
        admit: |request| {
            check(request, &KEYS, "us-east-1", "bedrock")?;
            let is_ours = request.uri.path().contains("anthropic.claude-sonnet-5/");
            if is_ours { Ok(()) } else { Err("another model".to_owned()) }
        },
        format: Format::Bedrock,
        too_long: Answer::json(400, &json!({ "message": "Input is too long for requested model." })),
        failing: stream([exception("throttlingException", "Too many tokens").into()]),
        _issuer: None,
    };
    case.walk().await;
}

#[tokio::test]
async fn a_developer_works_with_mantle() {
    let entry = json!({ "provider": "mantle", "region": "us-east-1", "models": [MODEL], "auth": aws_keys() });
    let admit = |request: &Received| {
        check(request, &KEYS, "us-east-1", "bedrock-mantle")?;
        let is_ours = request.json()["model"] == "anthropic.claude-sonnet-5";
        if is_ours { Ok(()) } else { Err("another model".to_owned()) }
    };
    with_keys(entry, admit, Answer::json(500, &json!({ "message": "internal" }))).walk().await;
}

#[tokio::test]
async fn a_developer_works_with_claude_platform_on_aws() {
    let entry = json!({
        "provider": "anthropicAws", "region": "us-west-2", "workspace_id": "wrkspc_1", "auth": aws_keys(),
    });
    let admit = |request: &Received| {
        check(request, &KEYS, "us-west-2", "aws-external-anthropic")?;
        shows(request, "anthropic-workspace-id", "wrkspc_1")
    };
    with_keys(entry, admit, Answer::none()).walk().await;
}

#[tokio::test]
async fn a_developer_works_with_claude_platform_on_google_cloud() {
    let entry = json!({
        "provider": "anthropicGoogleCloud", "project_id": "p", "workspace_id": "wrkspc_1", "auth": { "api_key": null },
    });
    let failing = google_error(503, "UNAVAILABLE", "down");
    on_a_google_machine(entry, Format::Messages, too_long(), failing).await.walk().await;
}

#[tokio::test]
async fn a_developer_works_with_vertex() {
    let too_long = google_error(400, "INVALID_ARGUMENT", "The request size (31457281 bytes) exceeds 30.000MB limit.");
    let failing = google_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded");
    let entry = on_vertex("of the walk", &json!({}));
    on_a_google_machine(entry, Format::Vertex, too_long, failing).await.walk().await;
}

#[tokio::test]
async fn a_developer_works_with_foundry() {
    let azure = Azure::start().await;
    let said = |code: &str, message: &str| json!({ "error": { "code": code, "message": message } });
    let case = Case {
        entry: json!({
            "provider": "foundry", "resource": "ab", "path": "/anthropic",
            "auth": { "use_azure_ad": true, "api_key": null },
        }),
        environment: vec![
            ("IDENTITY_ENDPOINT", format!("{}/msi/token", azure.url())),
            ("IDENTITY_HEADER", azure::IDENTITY_HEADER.to_owned()),
        ],
        admit: |request| shows(request, "authorization", "Bearer entra-app-service"),
        format: Format::Messages,
        too_long: Answer::json(400, &said("BadRequest", "prompt is too long: 210000 tokens > 200000 maximum")),
        failing: Answer::json(429, &said("RateLimitReached", "retry after 60 seconds")),
        _issuer: Some(Box::new(azure)),
    };
    case.walk().await;
}
