//! `pooled_budget` of `/v1/organizations/spend_limits`: what the members of a group share.

use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::{Caller, TestGateway, open};

const CAPS: &str = "/v1/organizations/spend_limits";

on_both_databases!(
    a_pool_is_set_with_its_groups_cap_and_goes_with_it,
    a_pool_tells_what_was_spent_from_it_this_month,
    what_a_pool_cannot_be_is_refused_and_changes_nothing,
);

fn monthly(group: &str, amount: &Value, pool: Option<Value>) -> String {
    let mut body = json!({ "scope": { "type": "rbac_group", "rbac_group_id": group }, "amount": amount });
    if let Some(pool) = pool {
        body["pooled_budget"] = pool;
    }
    body.to_string()
}

async fn set(caller: &Caller, group: &str, amount: Value, pool: Option<Value>) -> Value {
    let reply = caller.post(CAPS, monthly(group, &amount, pool)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn pool(amount: &str, paused: bool, spent: &str) -> Value {
    json!({ "amount": amount, "paused": paused, "currency": "USD", "period_to_date_spend": spent })
}

async fn a_pool_is_set_with_its_groups_cap_and_goes_with_it(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start().await;
    let admin = gateway.admin();
    let plain = set(&admin, "eng", json!("100"), None).await;
    assert_eq!(plain.get("pooled_budget"), Some(&Value::Null), "a monthly cap of a group says that it has none");
    let first = set(&admin, "eng", json!("100"), Some(json!({ "amount": "0500", "paused": false }))).await;
    assert_eq!((&first["pooled_budget"], &first["id"]), (&pool("500", false, "0"), &plain["id"]));
    for unchanged in [None, Some(Value::Null), Some(json!({}))] {
        assert_eq!(set(&admin, "eng", json!("7"), unchanged).await["pooled_budget"], pool("500", false, "0"));
    }
    let paused = set(&admin, "eng", Value::Null, Some(json!({ "paused": true }))).await;
    assert_eq!(paused["pooled_budget"], pool("500", true, "0"));

    set(&admin, "ops", json!("1"), None).await;
    let daily = json!({ "scope": { "type": "organization" }, "amount": "5", "period": "daily" });
    admin.post(CAPS, daily.to_string()).await;
    let rows = admin.get(CAPS).await.json()["data"].clone();
    let shown: Vec<Option<&Value>> = rows.as_array().unwrap().iter().map(|row| row.get("pooled_budget")).collect();
    assert_eq!(shown, [Some(&pool("500", true, "0")), Some(&Value::Null), None]);
    let id = first["id"].as_str().unwrap();
    assert_eq!(admin.get(&format!("{CAPS}/{id}")).await.json()["pooled_budget"], pool("500", true, "0"));

    admin.delete(&format!("{CAPS}/{id}")).await;
    assert_eq!(set(&admin, "eng", json!("1"), None).await["pooled_budget"], Value::Null);
    let told = gateway.audit().take("admin.limit.upsert", 8).await;
    assert_eq!((told[0].get("pooled_budget"), told[1].get("before_pooled_budget")), (None, None));
    assert_eq!(told[1]["pooled_budget"], json!({ "amount": "500", "paused": false }));
    assert_eq!(told[5]["before_pooled_budget"], told[1]["pooled_budget"]);
    assert_eq!(told[5]["pooled_budget"], json!({ "amount": "500", "paused": true }));
    let deleted = gateway.audit().next("admin.limit.delete").await;
    assert_eq!(deleted["before_pooled_budget"], told[5]["pooled_budget"]);
    gateway.stop().await;
    let rows = gateway.database().await.fetch("SELECT after FROM admin_audit ORDER BY id", &[]).await.unwrap();
    let kept: Value = serde_json::from_str(rows[1].text(0).unwrap()).unwrap();
    assert_eq!(kept["pooled_budget"], told[1]["pooled_budget"], "the audit keeps the pool beside the amount");
}

async fn a_pool_tells_what_was_spent_from_it_this_month(database: Database) {
    let store = database.fresh().await;
    let month = &jiff::Timestamp::now().to_string()[..7];
    {
        let store = open(&store).await;
        for (id, period, nano) in [
            ("pool:eng", month, 12_300_000),
            ("pool:ops", month, 77_000_000),
            ("pool:eng", "2020-01", 77_000_000),
            ("user:eng", month, 77_000_000),
        ] {
            let insert = "INSERT INTO account (id, period, settled, reserved) VALUES ($1, $2, $3, 0)";
            store.execute(insert, &[id.into(), period.into(), i64::into(nano)]).await.unwrap();
        }
    }
    let gateway = TestGateway::setup().store(store).start().await;
    let set = set(&gateway.admin(), "eng", json!("100"), Some(json!({ "amount": "500" }))).await;
    assert_eq!(set["pooled_budget"], pool("500", false, "1.23"));
    let row = gateway.auditor().get(CAPS).await.json()["data"][0].clone();
    assert_eq!(row, set);
}

async fn what_a_pool_cannot_be_is_refused_and_changes_nothing(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    let admin = gateway.admin();
    let before = set(&admin, "eng", json!("100"), Some(json!({ "amount": "500" }))).await;
    let mut told = String::new();
    for (group, amount, pool) in [
        ("ops", Value::Null, Some(json!({ "amount": "5" }))),
        ("eng", Value::Null, Some(json!({ "paused": false }))),
        // It stays, and so would not be paused.
        ("eng", Value::Null, None),
        ("eng", json!("1"), Some(json!({ "amount": 5 }))),
        ("eng", json!("1"), Some(json!("5"))),
        ("eng", json!("1"), Some(json!({ "amount": "99999999999999999999" }))),
        ("eng", json!("1"), Some(json!({ "amount": "5", "currency": "EUR" }))),
    ] {
        let body = monthly(group, &amount, pool);
        let reply = admin.post(CAPS, body.clone()).await;
        told.push_str(&format!("{body} -> {} {}\n", reply.status.as_u16(), reply.json()["error"]["message"]));
    }
    insta::allow_duplicates! {
        insta::assert_snapshot!(told);
    }
    assert_eq!(admin.get(CAPS).await.json()["data"], json!([before]));
}
