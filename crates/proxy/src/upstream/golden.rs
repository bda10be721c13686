//! Golden files of every provider: what goes out for a client's requests, and what becomes of its answers.
//!
//! A file that changes is a change on the wire: read it before it is accepted.
#![expect(clippy::unwrap_used, reason = "tests")]

mod answers;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use wire::messages::read_head;

use super::credential::google::Google;
use super::credential::testing::Bench;
use super::*;

/// A client's request.
struct Asked {
    name: &'static str,
    endpoint: Endpoint,
    betas: &'static str,
    /// `MODEL` stands for the client's name of the model.
    body: &'static str,
    strip_tags: bool,
}

impl Asked {
    const fn new(name: &'static str, betas: &'static str, body: &'static str) -> Self {
        Self { name, endpoint: Endpoint::Messages, betas, body, strip_tags: false }
    }

    const fn count(name: &'static str, betas: &'static str, body: &'static str) -> Self {
        Self { name, endpoint: Endpoint::CountTokens, betas, body, strip_tags: false }
    }
}

/// Known everywhere, known to be refused somewhere, and known nowhere.
const BETAS: &str = "claude-code-20250219, request-tags-2026-08-21,interleaved-thinking-2025-05-14,\
    prompt-caching-scope-2026-01-05,oauth-2025-04-20,context-management-2025-06-27,made-up-2030-01-01";

const REQUESTS: [Asked; 9] = [
    Asked::new(
        "a whole answer",
        "",
        r#"{"model":"MODEL","max_tokens":64,"messages":[{"role":"user","content":"hi"}]}"#,
    ),
    Asked::new("a stream", "", r#"{"model":"MODEL","max_tokens":64,"stream":true,"messages":[]}"#),
    Asked::new(
        "betas",
        BETAS,
        r#"{"model":"MODEL","max_tokens":64,"stream":true,"messages":[],"context_management":{"edits":[]}}"#,
    ),
    Asked::new(
        "thinking",
        "interleaved-thinking-2025-05-14",
        r#"{"thinking":{"type":"enabled","budget_tokens":2000},"model":"MODEL","max_tokens":4000,"stream":true,"messages":[
            {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"c2ln"}]}],"output_config":{"effort":"high"}}"#,
    ),
    Asked::new(
        "tools",
        "fine-grained-tool-streaming-2025-05-14",
        r#"{"model":"MODEL","max_tokens":64,"stream":true,"messages":[],"tool_choice":{"type":"auto"},"tools":[
            {"name":"Bash","description":"runs","input_schema":{"type":"object","properties":{}},"eager_input_streaming":true},
            {"type":"web_search_20250305","name":"web_search","max_uses":5}]}"#,
    ),
    Asked::new(
        "unknown fields and numbers that no float holds",
        "",
        "{ \"model\" : \"MODEL\", \"max_tokens\":32000,\"stream\":true ,\"tags\":{\"team\":\"eng\"},\n\
         \"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9llo \\/ \u{1f600}\"}],\"metadata\":{\"user_id\":\"u\"},\
         \"unknown\":12345678901234567890,\"x\":1.0,\"model_\":\"model\"}",
    ),
    Asked {
        strip_tags: true,
        ..Asked::new(
            "tags that are not to pass",
            "request-tags-2026-08-21",
            r#"{"tags":{"team":"eng"},"model":"MODEL","max_tokens":64,"messages":[]}"#,
        )
    },
    Asked::count(
        "a count",
        "",
        r#"{"model":"MODEL","messages":[{"role":"user","content":"hi"}],"tools":[ ],"tags":{}}"#,
    ),
    Asked::count(
        "a count of thinking",
        BETAS,
        r#"{"model":"MODEL","thinking":{"type":"enabled","budget_tokens":2000},"messages":[],"unknown":1.0}"#,
    ),
];

/// One provider, with credentials that give the same bytes each time.
struct Scene {
    bench: Bench,
    upstreams: Upstreams,
    candidate: Candidate,
    /// The client's name of the model.
    model: &'static str,
}

impl Scene {
    /// `base_url`: instead of the provider's own.
    async fn of(provider: Provider, base_url: Option<&str>) -> Self {
        let bench = Bench::new().await;
        let (api, usual) = api(provider, &bench);
        let base_url = base_url.unwrap_or(&usual);
        let config = Config { api, ..super::tests::config("golden", base_url) };
        let catalog = Catalog::new(Vec::new(), true).unwrap();
        let upstreams = Upstreams::new(vec![config], &catalog, &bench.egress, &bench.clock()).unwrap();
        // An id that is another one on most of them.
        let model = if provider == Provider::Mantle { "claude-sonnet-5" } else { "claude-sonnet-4-5" };
        let candidate = upstreams.candidates(catalog.resolve(model).unwrap(), model, &[]).unwrap().remove(0);
        let scene = Self { bench, upstreams, candidate, model };
        if matches!(provider, Provider::Vertex | Provider::AnthropicGoogleCloud) {
            // Fetched once, kept by all that follow.
            let token = json!({ "access_token": "t", "expires_in": 3600 });
            tokio::join!(scene.outgoing(&REQUESTS[0]), scene.bench.answer(200, &token));
        }
        scene
    }

    /// Does something with the request as the gateway knows it.
    async fn with<T>(&self, asked: &Asked, what: impl AsyncFnOnce(&Call<'_>) -> T) -> T {
        let body = Bytes::from(asked.body.replace("MODEL", self.model));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("anthropic-beta", asked.betas),
            ("anthropic-version", "2023-06-01"),
            ("authorization", "Bearer of-the-client"),
            ("user-agent", "claude-cli/2"),
            ("x-app", "cli"),
            ("x-stainless-lang", "js"),
        ] {
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        let call = Call {
            request_id: "r-1",
            endpoint: asked.endpoint,
            query: Some("beta=true"),
            headers: &headers,
            body: &body,
            head: &read_head(&body).unwrap(),
            strip_tags: asked.strip_tags,
            caller: Caller { sub: "u-1", email: None },
        };
        what(&call).await
    }

    /// The request that goes out, as text.
    async fn outgoing(&self, asked: &Asked) -> String {
        let (upstream, id) = (&self.candidate.upstream, self.candidate.model_id.as_str());
        let request = self.with(asked, async |call: &Call<'_>| match &upstream.api {
            Api::Anthropic(api) => api.request(call, id, api.proof().await.unwrap(), Sent::default()).unwrap(),
            Api::Bedrock(cloud) => of_cloud(cloud, call, id).await,
            Api::Mantle(cloud) => of_cloud(cloud, call, id).await,
            Api::AnthropicAws(cloud) => of_cloud(cloud, call, id).await,
            Api::AnthropicGoogleCloud(cloud) => of_cloud(cloud, call, id).await,
            Api::Vertex(cloud) => of_cloud(cloud, call, id).await,
            Api::Foundry(cloud) => of_cloud(cloud, call, id).await,
        });
        let (parts, body) = request.await.into_parts();
        assert_eq!(parts.method, Method::POST);
        let mut lines: Vec<_> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        let body = body.collect().await.unwrap().to_bytes();
        let body = std::str::from_utf8(&body).unwrap();
        let packed: Value = serde_json::from_str(body).unwrap();
        let packed = packed["input"]["invokeModel"]["body"].as_str().map(|packed| STANDARD.decode(packed).unwrap());
        let packed = packed.map_or(String::new(), |inner| format!("\npacked: {}", String::from_utf8(inner).unwrap()));
        let text = format!("POST {}\n{}\n\n{body}{packed}", parts.uri, lines.join("\n"));
        text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }
}

async fn of_cloud<P: cloud::Provider>(cloud: &Cloud<P>, call: &Call<'_>, model_id: &str) -> Request<Parts> {
    cloud.request(call, model_id, &cloud.known(model_id), &Sent::default()).await.unwrap()
}

/// A provider's configuration, and where it is by default.
fn api(provider: Provider, bench: &Bench) -> (ApiConfig, String) {
    let aws = |region: &str| AwsConfig {
        region: region.to_owned(),
        credential: AwsCredential::Keys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: Some("session".into()),
        },
        assume_role: None,
    };
    let person = || {
        let document = json!({
            "type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r",
            "quota_project_id": "quota", "token_uri": bench.server.url(),
        });
        Google::from_file(&bench.file("adc.json", document.to_string()), &Default::default()).unwrap()
    };
    match provider {
        Provider::Anthropic => {
            let credential = Credential::OauthToken("token".into());
            let api = AnthropicConfig { credential, forward_user_identity: false };
            (ApiConfig::Anthropic(api), "https://api.anthropic.com".to_owned())
        }
        Provider::Bedrock => {
            let (id, version) = (HeaderValue::from_static("gr-1"), HeaderValue::from_static("3"));
            let api = BedrockConfig { aws: aws("us-east-1"), guardrail: Some(Guardrail { id, version }) };
            (ApiConfig::Bedrock(api), "https://bedrock-runtime.us-east-1.amazonaws.com".to_owned())
        }
        Provider::Mantle => {
            (ApiConfig::Mantle(aws("us-east-1")), "https://bedrock-mantle.us-east-1.api.aws/anthropic".to_owned())
        }
        Provider::AnthropicAws => {
            let credential = AnthropicAwsCredential::Aws(aws("us-west-2"));
            let api = AnthropicAwsConfig { workspace_id: HeaderValue::from_static("wrkspc_1"), credential };
            (ApiConfig::AnthropicAws(api), "https://aws-external-anthropic.us-west-2.api.aws".to_owned())
        }
        Provider::AnthropicGoogleCloud => {
            (ApiConfig::AnthropicGoogleCloud(person()), anthropic_google_cloud_url("p-1", "wrkspc_1"))
        }
        Provider::Vertex => {
            let region = "europe-west1".to_owned();
            let url = VertexConfig::base_url(&region);
            (ApiConfig::Vertex(VertexConfig { project_id: "p-1".to_owned(), region, google: person() }), url)
        }
        Provider::Foundry => (ApiConfig::Foundry(FoundryCredential::ApiKey("k".into())), foundry_url("the-resource")),
    }
}

async fn requests_of(provider: Provider) {
    let scene = Scene::of(provider, None).await;
    let mut text = String::new();
    for asked in &REQUESTS {
        text.push_str(&format!("== {}\n{}\n\n", asked.name, scene.outgoing(asked).await));
    }
    insta::assert_snapshot!(format!("requests_to_{}", provider.as_str()), text);
}

#[tokio::test]
async fn requests_to_the_claude_api() {
    requests_of(Provider::Anthropic).await;
}

#[tokio::test]
async fn requests_to_bedrock() {
    requests_of(Provider::Bedrock).await;
}

#[tokio::test]
async fn requests_to_mantle() {
    requests_of(Provider::Mantle).await;
}

#[tokio::test]
async fn requests_to_claude_platform_on_aws() {
    requests_of(Provider::AnthropicAws).await;
}

#[tokio::test]
async fn requests_to_claude_platform_on_google_cloud() {
    requests_of(Provider::AnthropicGoogleCloud).await;
}

#[tokio::test]
async fn requests_to_vertex() {
    requests_of(Provider::Vertex).await;
}

#[tokio::test]
async fn requests_to_foundry() {
    requests_of(Provider::Foundry).await;
}
