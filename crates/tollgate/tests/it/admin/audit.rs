//! `/v1/organizations/spend_limits/audit`: who changed which cap.

use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::{ADMIN_GROUP, TestGateway};

const CAPS: &str = "/v1/organizations/spend_limits";
const AUDIT: &str = "/v1/organizations/spend_limits/audit";

on_both_databases!(every_change_of_a_cap_can_be_read_newest_first);

async fn every_change_of_a_cap_can_be_read_newest_first(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    let admin = gateway.admin();
    let cap = |amount: Value, pool: Value| {
        let scope = json!({ "type": "rbac_group", "rbac_group_id": "eng" });
        json!({ "scope": scope, "amount": amount, "pooled_budget": pool }).to_string()
    };
    let set = admin.post(CAPS, cap(json!("100"), json!({ "amount": "500" }))).await.json();
    let id = set["id"].as_str().unwrap();
    // Kept in the same table, and no change of a cap.
    admin.post("/v1/organizations/sessions/revoke", r#"{"user_id":"alice"}"#).await;
    let grace = gateway.as_member("grace", &[ADMIN_GROUP]);
    grace.post(CAPS, cap(json!("7"), Value::Null)).await;
    grace.delete(&format!("{CAPS}/{id}")).await;

    let page = async |query: &str| gateway.auditor().get(&format!("{AUDIT}{query}")).await.json();
    let all = page("").await;
    assert_eq!(all["has_more"], false);
    let told = all["data"].as_array().unwrap();
    let short: Vec<String> = told
        .iter()
        .map(|event| {
            assert_eq!((&event["type"], &event["target_id"]), (&json!("audit_event"), &json!(id)));
            assert!(event["created_at"].as_str().unwrap().ends_with('Z') && event["reason"].is_null());
            let amount = |side: &str| format!("{} {}", event[side]["amount"], event[side]["pooled_budget"]);
            format!("{} {} {} -> {}", event["actor"], event["action"], amount("before"), amount("after"))
        })
        .collect();
    insta::allow_duplicates! {
        insta::assert_snapshot!(short.join("\n"), @r#"
        "oidc:grace" "spend_limit.delete" "7" {"amount":"500","paused":false} -> null null
        "oidc:grace" "spend_limit.upsert" "100" {"amount":"500","paused":false} -> "7" {"amount":"500","paused":false}
        "admin-key:writer" "spend_limit.upsert" null null -> "100" {"amount":"500","paused":false}
        "#);
    }
    let kept = &told[2]["after"];
    assert_eq!((kept.get("type"), &kept["created_at"]), (None, &set["created_at"]));

    let first = page("?limit=2").await;
    assert_eq!((&first["data"], &first["has_more"]), (&json!(told[..2]), &json!(true)));
    let after = first["data"][1]["id"].as_str().unwrap().to_owned();
    let rest = page(&format!("?limit=2&after_id={after}")).await;
    assert_eq!((&rest["data"], &rest["has_more"]), (&json!(told[2..]), &json!(false)), "has_more is exact");
    let exactly = page("?limit=3").await;
    assert_eq!(exactly["has_more"], false);
    for wrong in ["?limit=0", "?limit=1001", "?after_id=x", "?after_id=-1", "?after_id=99999999999999999999"] {
        let reply = gateway.auditor().get(&format!("{AUDIT}{wrong}")).await;
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text());
    }
}
