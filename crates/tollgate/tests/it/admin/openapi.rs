//! `/v1/openapi.json`: the document says what the API does.

use serde_json::{Value, json};

use crate::support::gateway::TestGateway;
use crate::support::http::Reply;
use crate::support::upstream::Answer;

mod fuzzed;
mod shape;

use shape::Document;

const CAPS: &str = "/v1/organizations/spend_limits";

async fn document(gateway: &TestGateway) -> Document {
    let reply = gateway.auditor().get("/v1/openapi.json").await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some("application/json;charset=utf-8")));
    Document(reply.json())
}

#[tokio::test]
async fn real_answers_have_the_shapes_of_the_document() {
    let gateway = TestGateway::start().await;
    let document = document(&gateway).await;
    let answered = std::cell::Cell::new(0);
    let holds = |method: &str, path: &str, reply: Reply| {
        document
            .holds(method, path, &reply)
            .unwrap_or_else(|fault| panic!("{method} {path}: {fault}\n{}", reply.text()));
        answered.set(answered.get() + usize::from(reply.status == 200));
        reply
    };
    gateway.upstream().answer(Answer::message("claude-sonnet-4-6", "hi", 4_000, 7));
    let body = r#"{"model":"claude-sonnet-4-6","max_tokens":16}"#;
    assert_eq!(gateway.as_member("alice", &["eng"]).messages(body).await.status, 200);
    let mut ids = Vec::new();
    for cap in [
        json!({"scope": {"type": "organization"}, "amount": null}),
        json!({"scope": {"type": "user", "user_id": "alice"}, "amount": "5", "period": "daily"}),
        json!({"scope": {"type": "rbac_group", "rbac_group_id": "eng"}, "amount": "7"}),
        json!({"scope": {"type": "rbac_group", "rbac_group_id": "ops"}, "amount": "7", "pooled_budget": {"amount": "9"}}),
    ] {
        let set = holds("post", CAPS, gateway.admin().post(CAPS, cap.to_string()).await);
        assert_eq!(set.status, 200, "{}", set.text());
        ids.push(set.json()["id"].as_str().unwrap().to_owned());
    }
    let one = format!("{CAPS}/{{id}}");
    holds("get", &one, gateway.auditor().get(&format!("{CAPS}/{}", ids[3])).await);
    holds("delete", &one, gateway.admin().delete(&format!("{CAPS}/{}", ids[0])).await);
    let since = "starting_at=2026-01-01T00:00:00Z";
    for (path, query) in [
        (CAPS, String::new()),
        (CAPS, "?scope_type=user".to_owned()),
        ("/v1/organizations/spend_limits/effective", String::new()),
        ("/v1/organizations/spend_limits/effective", "?user_ids[]=nobody&period[]=daily".to_owned()),
        ("/v1/organizations/spend_limits/audit", "?limit=3".to_owned()),
        ("/v1/organizations/usage_report/messages", format!("?{since}&group_by[]=model&limit=31")),
        ("/v1/organizations/usage_report/messages", format!("?{since}&format=csv")),
        ("/v1/organizations/cost_report", format!("?{since}&group_by[]=description")),
        ("/v1/organizations/sessions", "?active=true".to_owned()),
        ("/v1/openapi.json", String::new()),
    ] {
        let reply = holds("get", path, gateway.auditor().get(&format!("{path}{query}")).await);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let revoke = "/v1/organizations/sessions/revoke";
    holds("post", revoke, gateway.admin().post(revoke, r#"{"user_id":"alice"}"#).await);
    let erase = "/v1/organizations/principals/{sub}";
    holds("delete", erase, gateway.admin().delete("/v1/organizations/principals/alice").await);
    assert_eq!(answered.get(), 18, "an answer that was to be a success is none");

    let large = vec![b' '; 3_000_000];
    for (status, method, path, reply) in [
        (400, "post", CAPS, gateway.admin().post(CAPS, "{}").await),
        (400, "get", CAPS, gateway.admin().get(&format!("{CAPS}?q=%00")).await),
        (401, "get", CAPS, gateway.anyone().get(CAPS).await),
        (403, "post", CAPS, gateway.auditor().post(CAPS, "{}").await),
        (404, "get", &one, gateway.admin().get(&format!("{CAPS}/%FF")).await),
        (404, "delete", erase, gateway.admin().delete("/v1/organizations/principals/nobody").await),
        (413, "post", revoke, gateway.admin().post(revoke, large).await),
    ] {
        let reply = holds(method, path, reply);
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
    }
}

#[tokio::test]
async fn the_documents_examples_have_their_shapes_and_wrong_ones_have_not() {
    let gateway = TestGateway::start().await;
    let document = document(&gateway).await;
    let mut examples = 0;
    for (name, schema) in document.0["components"]["schemas"].as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            document.fits(schema, example).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            examples += 1;
        }
    }
    assert!(examples >= 7, "{examples}");
    let cap = &document.0["components"]["schemas"]["SpendLimitSetting"];
    for wrong in [
        json!({}),
        json!([]),
        json!({"scope": {"type": "user", "user_id": "a"}, "amount": 5}),
        json!({"scope": {"type": "team"}, "amount": "5"}),
        json!({"scope": {"type": "organization"}, "amount": "5", "period": "hourly"}),
    ] {
        assert!(document.fits(cap, &wrong).is_err(), "{wrong}");
    }
}

/// What a caller may read without a key is told elsewhere; the document is an administrator's, as its API is.
#[tokio::test]
async fn the_document_is_for_administrators() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.anyone().get("/v1/openapi.json").await.status, 401);
    assert_eq!(gateway.as_user("alice").get("/v1/openapi.json").await.status, 401);
    let served = gateway.auditor().get("/v1/openapi.json").await.json();
    let written: Value = include_str!("../../../../../docs/admin.openapi.json").parse().unwrap();
    assert_eq!(served, written);
}
