#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use axum::Extension;
use axum::body::Body;
use control::identity::Principal;
use control::policy::{Config, PolicyConfig};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use wire::catalog::{Catalog, CustomModel};

use super::*;

async fn ask(cli: &Value, custom: Vec<CustomModel>, path: &str) -> (StatusCode, String, String) {
    let policy = PolicyConfig { settings: cli.as_object().cloned(), ..PolicyConfig::default() };
    let config = Config { policies: Some(vec![policy]), ..Config::default() };
    let policies = Policies::compile(config, Arc::new(Catalog::new(custom, true).unwrap())).0;
    let principal = Principal {
        sub: "u-1".to_owned(),
        email: None,
        name: None,
        groups: Vec::new(),
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    };
    let routes = routes(Arc::new(policies), Arc::new(|_, _| true)).layer(Extension(Caller(Arc::new(principal))));
    let answer = routes.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let content_type = answer.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, content_type.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn without_a_list_the_whole_catalogue_is_shown() {
    let (status, content_type, body) = ask(&json!({}), Vec::new(), "/v1/models").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(content_type, "application/json;charset=utf-8");
    insta::assert_snapshot!(body.replace("},{", "},\n{"));
}

#[tokio::test]
async fn the_list_follows_the_callers_policy_and_ignores_a_limit() {
    let cli = json!({"availableModels": ["claude-haiku-4-5"]});
    let (_, _, body) = ask(&cli, Vec::new(), "/v1/models?limit=0").await;
    insta::assert_snapshot!(body);
}

#[tokio::test]
async fn an_empty_list_shows_nothing() {
    let (_, _, body) = ask(&json!({"availableModels": []}), Vec::new(), "/v1/models").await;
    assert_eq!(body, r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
}

#[tokio::test]
async fn the_operators_own_models_come_first_with_label_and_description() {
    let custom = CustomModel {
        id: "house-model".to_owned(),
        label: Some("House model".to_owned()),
        description: Some("Ours".to_owned()),
        upstream_model: HashMap::from([("main".to_owned(), "claude-opus-4-8".to_owned())]),
    };
    let (_, _, body) = ask(&json!({}), vec![custom], "/v1/models").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    let own = json!({"type": "model", "id": "house-model", "display_name": "House model", "description": "Ours"});
    assert_eq!(page["data"][0], own);
    assert_eq!(page["data"][1]["id"], "claude-opus-4-6");
}

#[tokio::test]
async fn there_is_no_page_of_a_single_model() {
    let (status, _, _) = ask(&json!({}), Vec::new(), "/v1/models/claude-opus-4-8").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
