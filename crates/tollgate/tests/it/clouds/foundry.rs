//! Microsoft Foundry, and Claude Platform on Google Cloud, which both speak the Messages API, through a whole gateway.

use serde_json::{Value, json};

use super::PROMPT;
use crate::support::cloud::azure::{self, Azure};
use crate::support::cloud::google::Google;
use crate::support::gateway::TestGateway;
use crate::support::upstream::Answer;

fn on_foundry(auth: &Value) -> Value {
    let mut auth = auth.clone();
    if auth["api_key"].is_null() {
        auth["api_key"] = Value::Null;
    }
    json!({ "name": "f", "provider": "foundry", "resource": "ab", "path": "/anthropic", "auth": auth })
}

#[tokio::test]
async fn a_key_and_the_canonical_model_id_are_sent() {
    let gateway = TestGateway::setup().upstream(on_foundry(&json!({ "api_key": "k" }))).start().await;
    let body = r#"{ "model":"claude-sonnet-4-5-20250929", "max_tokens":16, "messages":[], "n":12345678901234567890 }"#;
    let reply = gateway.as_user("alice").messages(body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let sent = gateway.upstream().request(0).await;
    assert_eq!((sent.uri.path(), sent.header("x-api-key")), ("/anthropic/v1/messages", Some("k")));
    assert_eq!(sent.body, body.replace("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"));
    let counted = gateway.as_user("alice").post("/v1/messages/count_tokens", body).await;
    assert_eq!(counted.json(), json!({ "input_tokens": 11 }));
}

#[tokio::test]
async fn every_form_of_azures_credentials_reaches_foundry() {
    let azure = Azure::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let application = || {
        vec![
            ("AZURE_AUTHORITY_HOST", azure.url()),
            ("AZURE_TENANT_ID", azure::TENANT.to_owned()),
            ("AZURE_CLIENT_ID", azure::CLIENT.to_owned()),
        ]
    };
    let with = |name, value| [application(), vec![(name, value)]].concat();
    for (environment, token) in [
        (with("AZURE_CLIENT_SECRET", azure::SECRET.to_owned()), "entra-secret"),
        (with("AZURE_CLIENT_CERTIFICATE_PATH", path(azure.certificate_file(folder.path()))), "entra-certificate"),
        (with("AZURE_FEDERATED_TOKEN_FILE", path(Azure::federated_file(folder.path()))), "entra-federated"),
        (
            vec![
                ("IDENTITY_ENDPOINT", format!("{}/msi/token", azure.url())),
                ("IDENTITY_HEADER", azure::IDENTITY_HEADER.to_owned()),
            ],
            "entra-app-service",
        ),
        (vec![("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.url())], "entra-instance"),
    ] {
        let setup = TestGateway::setup().upstream(on_foundry(&json!({ "use_azure_ad": true })));
        let setup = environment.iter().fold(setup, |setup, (name, value)| setup.environment(name, value));
        let gateway = setup.start().await;
        for _ in 0..2 {
            let reply = gateway.as_user("alice").messages(PROMPT).await;
            assert_eq!(reply.status, 200, "{token}: {}", reply.text());
        }
        let sent = gateway.upstream().request(0).await;
        assert_eq!(sent.header("authorization"), Some(format!("Bearer {token}").as_str()));
        assert_eq!(sent.header("x-api-key"), None);
    }
    assert_eq!(azure.server().requests().len(), 5, "each token is fetched once");
}

#[tokio::test]
async fn without_any_credential_the_log_names_the_upstream_and_every_way_to_have_one() {
    let setup = TestGateway::setup().upstream(on_foundry(&json!({ "use_azure_ad": true })));
    // Nobody listens there, and the system has no Azure CLI.
    let setup = setup.environment("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1");
    let mut gateway = setup.start_process().await;
    assert_eq!(gateway.as_user("alice").messages(PROMPT).await.status, 502);
    let line = gateway.process().line("no credentials").await;
    for part in ["upstream=f", "AZURE_CLIENT_ID", "127.0.0.1:1/", "no Azure CLI", "`az login`"] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn what_azure_says_of_an_error_is_not_told() {
    let gateway = TestGateway::setup().upstream(on_foundry(&json!({ "api_key": "k" }))).start().await;
    let denied = json!({ "error": { "code": "PermissionDenied", "message": "subscription 12345" } });
    gateway.upstream().answer(Answer::json(403, &denied));
    let reply = gateway.as_user("alice").messages(PROMPT).await;
    assert_eq!(reply.status, 502);
    assert!(!reply.text().contains("12345"), "{}", reply.text());
}

#[tokio::test]
async fn claude_platform_on_google_cloud_has_the_claude_apis_paths_and_ids_and_lacks_old_models() {
    let google = Google::start().await;
    let platform = json!({
        "provider": "anthropicGoogleCloud", "project_id": "p", "workspace_id": "wrkspc_1", "path": "/v1alpha/invoke",
        "auth": { "api_key": null },
    });
    let setup = TestGateway::setup().upstream(platform).environment("GCE_METADATA_HOST", &google.metadata_host());
    let gateway = setup.start().await;
    let reply = gateway.as_user("alice").messages(PROMPT.replace("sonnet-4-6", "sonnet-4-5")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let sent = gateway.upstream().request(0).await;
    assert_eq!(sent.uri.path(), "/v1alpha/invoke/v1/messages");
    assert_eq!(sent.header("authorization"), Some("Bearer ya29.machine"));
    assert_eq!(sent.json()["model"], "claude-sonnet-4-5-20250929");
    let refused = gateway.as_user("alice").messages(PROMPT.replace("sonnet-4-6", "opus-4-1")).await;
    let error = refused.json();
    assert_eq!(refused.status, 400);
    assert_eq!(error["error"]["message"], "model claude-opus-4-1 is not available on anthropicGoogleCloud");
}
