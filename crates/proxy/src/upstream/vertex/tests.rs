//! What goes out to Google Cloud and to Foundry for a client's request, whole.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use http_body_util::BodyExt;
use wire::catalog::Catalog;
use wire::messages::read_head;

use super::*;
use crate::upstream::cloud::Cloud;
use crate::upstream::credential::testing::{Bench, rsa};
use crate::upstream::messages_api::{AnthropicGoogleCloud, Foundry, anthropic_google_cloud_url, foundry_url};
use crate::upstream::tests::config;
use crate::upstream::{FoundryCredential, Sent};

/// As a client writes it: numbers that no float holds, escapes, spaces, and a field that nobody knows.
const BODY: &str = "{ \"model\" : \"MODEL\", \"max_tokens\":32000,\"stream\":true ,\"tags\":{\"team\":\"eng\"},\n\
    \"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9llo \\/ \u{1f600}\"}],\"unknown\":12345678901234567890,\"x\":1.0}";

const BETAS: &str = "claude-code-20250219, request-tags-2026-08-21,prompt-caching-scope-2026-01-05,made-up-2030-01-01";

/// The request that a client's becomes, as text.
async fn outgoing<P: Provider>(
    api: P,
    kind: catalog::Provider,
    base_url: &str,
    endpoint: Endpoint,
    body: &str,
) -> String {
    let body = Bytes::from(body.to_owned());
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("anthropic-beta", BETAS),
        ("anthropic-version", "2023-06-01"),
        ("authorization", "Bearer of-the-client"),
        ("user-agent", "claude-cli/2"),
        ("x-app", "cli"),
        ("x-stainless-lang", "js"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let head = read_head(&body).unwrap();
    let call = Call {
        request_id: "r-1",
        endpoint,
        query: Some("beta=true"),
        headers: &headers,
        body: &body,
        head: &head,
        strip_tags: false,
        caller: Caller { sub: "u-1", email: None },
    };
    let catalog = Catalog::new(Vec::new(), true).unwrap();
    let model_id = catalog.resolve(&head.model).unwrap().id_for("a", kind, None).unwrap().into_owned();
    let cloud = Cloud::new(&config("a", base_url), api).unwrap();
    let without = cloud.known(&model_id);
    let request = cloud.request(&call, &model_id, &without, &Sent::default()).await.unwrap();
    let (parts, body) = request.into_parts();
    let mut lines: Vec<_> =
        parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    let body = body.collect().await.unwrap().to_bytes();
    let text =
        format!("{} {}\n{}\n\n{}", parts.method, parts.uri, lines.join("\n"), std::str::from_utf8(&body).unwrap());
    text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

/// Someone whose token is `t`, and who has a project for quotas.
async fn person(bench: &Bench) -> Google {
    let document = serde_json::json!({
        "type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r",
        "quota_project_id": "quota", "token_uri": bench.server.url(),
    });
    Google::from_file(&bench.file("adc.json", document.to_string()), &Default::default()).unwrap()
}

async fn vertex(endpoint: Endpoint, model: &str, body: &str) -> String {
    let bench = Bench::new().await;
    let config = VertexConfig { project_id: "p-1".into(), region: "europe-west1".into(), google: person(&bench).await };
    let api = bench.vertex(config);
    let token = serde_json::json!({ "access_token": "t", "expires_in": 3600 });
    let base_url = VertexConfig::base_url("europe-west1");
    let body = body.replace("MODEL", model);
    let sending = outgoing(api, catalog::Provider::Vertex, &base_url, endpoint, &body);
    tokio::join!(sending, bench.answer(200, &token)).0
}

#[tokio::test]
async fn a_stream_of_vertex() {
    insta::assert_snapshot!(vertex(Endpoint::Messages, "claude-sonnet-4-5", BODY).await);
}

#[tokio::test]
async fn a_whole_answer_of_vertex() {
    let body = r#"{"messages":[],"model":"MODEL"}"#;
    insta::assert_snapshot!(vertex(Endpoint::Messages, "claude-opus-5-5", body).await);
}

#[tokio::test]
async fn a_count_of_vertex() {
    let body = r#"{"model":"MODEL","messages":[],"tags":{},"tools":[]}"#;
    insta::assert_snapshot!(vertex(Endpoint::CountTokens, "claude-haiku-4-5", body).await);
}

#[tokio::test]
async fn a_stream_of_claude_platform_on_google_cloud() {
    let bench = Bench::new().await;
    let api = AnthropicGoogleCloud::new(person(&bench).await, &bench.egress, &bench.clock());
    let token = serde_json::json!({ "access_token": "t", "expires_in": 3600 });
    let base_url = anthropic_google_cloud_url("p-1", "wrkspc_1");
    let body = BODY.replace("MODEL", "claude-sonnet-4-5");
    let kind = catalog::Provider::AnthropicGoogleCloud;
    let sending = outgoing(api, kind, &base_url, Endpoint::Messages, &body);
    insta::assert_snapshot!(tokio::join!(sending, bench.answer(200, &token)).0);
}

#[tokio::test]
async fn a_stream_and_a_count_of_foundry() {
    let bench = Bench::new().await;
    let key = || FoundryCredential::ApiKey("k".into());
    let foundry = || Foundry::new("a", key(), &bench.egress, &bench.clock()).unwrap();
    let body = BODY.replace("MODEL", "claude-sonnet-4-5-20250929");
    let base_url = foundry_url("the-resource");
    let kind = catalog::Provider::Foundry;
    let stream = outgoing(foundry(), kind, &base_url, Endpoint::Messages, &body).await;
    let count = outgoing(foundry(), kind, &base_url, Endpoint::CountTokens, r#"{"model":"claude-opus-5"}"#).await;
    insta::assert_snapshot!(format!("{stream}\n---\n{count}"));
}

#[tokio::test]
async fn foundry_takes_a_token_of_entra() {
    let bench = Bench::new().await;
    let environment = crate::upstream::credential::azure::AzureEnvironment {
        metadata_host: Some(bench.server.url()),
        ..Default::default()
    };
    let azure = crate::upstream::credential::azure::Azure::from_environment(&environment).unwrap();
    let foundry = Foundry::new("a", FoundryCredential::Entra(azure), &bench.egress, &bench.clock()).unwrap();
    let token = serde_json::json!({ "access_token": "t", "expires_in": "3600" });
    let base_url = foundry_url("r");
    let body = r#"{"model":"claude-opus-5"}"#;
    let sending = outgoing(foundry, catalog::Provider::Foundry, &base_url, Endpoint::Messages, body);
    let (text, _) = tokio::join!(sending, bench.answer(200, &token));
    assert!(text.contains("authorization: Bearer t\n") && !text.contains("x-api-key"), "{text}");
}

#[test]
fn every_kind_of_region_has_its_host() {
    for (region, url) in [
        ("europe-west1", "https://europe-west1-aiplatform.googleapis.com/v1"),
        ("global", "https://aiplatform.googleapis.com/v1"),
        ("us", "https://aiplatform.us.rep.googleapis.com/v1"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com/v1"),
    ] {
        assert_eq!(VertexConfig::base_url(region), url);
    }
}

#[tokio::test]
async fn a_credential_that_is_refused_names_its_cause() {
    let bench = Bench::new().await;
    let (pem, _) = rsa();
    let key = serde_json::json!({
        "type": "service_account", "private_key": pem, "client_email": "e", "token_uri": bench.server.url(),
    });
    let google = Google::from_file(&bench.file("key.json", key.to_string()), &Default::default()).unwrap();
    let authority = GoogleAuthority::new(google, &bench.egress, &bench.clock());
    let refusal = serde_json::json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." });
    let mut headers = HeaderMap::new();
    let (refused, _) = tokio::join!(authority.authorize(&mut headers), bench.answer(400, &refusal));
    let said = refused.unwrap_err().to_string();
    assert!(said.ends_with("refused a token with 400: invalid_grant: Invalid JWT Signature."), "{said}");
}
