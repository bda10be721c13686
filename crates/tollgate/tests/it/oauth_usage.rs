//! `GET /api/oauth/usage`: the dollars that the stock client shows beside its percent.

use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::TestGateway;
use crate::support::upstream::Answer;

/// $3 and $15 per million tokens.
const MODEL: &str = "claude-sonnet-4-6";

on_both_databases!(a_caller_learns_what_it_has_spent_of_which_cap);

async fn limit(gateway: &TestGateway, sub: &str, period: &str, cents: Value) {
    let scope = json!({ "type": "user", "user_id": sub });
    let body = json!({ "scope": scope, "amount": cents, "period": period });
    let reply = gateway.admin().post("/v1/organizations/spend_limits", body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

async fn a_caller_learns_what_it_has_spent_of_which_cap(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    for (period, cents) in [("daily", "300"), ("weekly", "30000"), ("monthly", "300000")] {
        limit(&gateway, "alice", period, json!(cents)).await;
    }
    // $2.895: 289.5 cents; then nothing, by a request that is decided after the first was settled.
    gateway.upstream().answer(Answer::message(MODEL, "hi", 0, 193_000));
    gateway.upstream().answer(Answer::message(MODEL, "hi", 0, 0));
    let alice = gateway.as_user("alice");
    let body = json!({ "model": MODEL, "max_tokens": 16, "messages": [] }).to_string();
    for _ in 0..2 {
        assert_eq!(alice.messages(body.clone()).await.status, 200);
    }
    let reply = alice.get("/api/oauth/usage").await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let mut shown = reply.json();
    for row in shown["limits"].as_array_mut().unwrap() {
        let reset = row["resets_at"].take();
        assert!(reset.as_str().unwrap().ends_with("T00:00:00.000Z"), "{reset}");
    }
    insta::allow_duplicates! {
        insta::assert_json_snapshot!(shown, @r#"
        {
          "extra_usage": {
            "currency": "USD",
            "is_enabled": true,
            "monthly_limit": 300,
            "used_credits": 289,
            "utilization": 97
          },
          "limits": [
            {
              "group": "daily",
              "is_active": true,
              "kind": "spend",
              "percent": 97,
              "resets_at": null,
              "severity": "critical"
            },
            {
              "group": "weekly",
              "is_active": false,
              "kind": "spend",
              "percent": 1,
              "resets_at": null,
              "severity": "normal"
            },
            {
              "group": "monthly",
              "is_active": false,
              "kind": "spend",
              "percent": 0,
              "resets_at": null,
              "severity": "normal"
            }
          ]
        }
        "#);
    }
    let uncapped = gateway.as_user("bob").get("/api/oauth/usage").await.json();
    let nothing = json!({ "limit": null, "used_credits": 0, "utilization": null });
    let expected = json!({
        "extra_usage": {
            "is_enabled": true, "monthly_limit": null, "used_credits": 0, "utilization": null, "currency": "USD",
            "daily": nothing, "weekly": nothing,
        },
        "limits": [],
    });
    assert_eq!(uncapped, expected);
    limit(&gateway, "bob", "monthly", json!("0")).await;
    let zero = gateway.as_user("bob").get("/api/oauth/usage").await.json();
    assert_eq!((&zero["extra_usage"]["monthly_limit"], &zero["extra_usage"]["utilization"]), (&json!(0), &json!(100)));
}

#[tokio::test]
async fn without_spend_limits_there_is_no_usage_to_tell() {
    let gateway = TestGateway::setup().config(json!({ "admin": null })).start().await;
    let reply = gateway.as_user("alice").get("/api/oauth/usage").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["message"]), (404, &json!("not configured")));
    assert_eq!(gateway.anyone().get("/api/oauth/usage").await.status, 401);
}
