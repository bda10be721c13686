//! `/v1/organizations/spend_limits`: setting, listing and deleting caps.

use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::{ADMIN_GROUP, Caller, READ_KEY, TestGateway, WRITE_KEY};
use crate::support::http::Reply;

const CAPS: &str = "/v1/organizations/spend_limits";

on_both_databases!(
    setting_a_cap_again_changes_its_amount_and_nothing_else,
    lists_go_forwards_and_backwards_in_the_order_of_creation,
    every_change_is_kept_with_who_made_it,
    an_id_may_be_long_and_in_any_script,
);

async fn set(caller: &Caller, scope: Value, amount: Value, period: &str) -> Value {
    let reply = caller.post(CAPS, json!({ "scope": scope, "amount": amount, "period": period }).to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    named(&reply);
    reply.json()
}

fn user(id: &str) -> Value {
    json!({ "type": "user", "user_id": id })
}

/// The request id of an answer, which is of the admin API's own kind.
fn named(reply: &Reply) -> String {
    let id = reply.header("request-id").unwrap();
    let hex = id.strip_prefix("req_").unwrap();
    assert!(hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    id.to_owned()
}

fn refusal(reply: &Reply) -> String {
    let body = reply.json();
    assert_eq!(body["request_id"].as_str(), Some(named(reply).as_str()));
    assert_eq!(
        (body["type"].as_str(), reply.header("content-type")),
        (Some("error"), Some("application/json;charset=utf-8"))
    );
    format!(
        "{} {}: {}",
        reply.status.as_u16(),
        body["error"]["type"].as_str().unwrap(),
        body["error"]["message"].as_str().unwrap()
    )
}

async fn setting_a_cap_again_changes_its_amount_and_nothing_else(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    let first = set(&gateway.admin(), user("alice"), json!("007"), "daily").await;
    let again = set(&gateway.admin(), user("alice"), json!("9007199254740993"), "daily").await;
    let id = first["id"].as_str().unwrap();
    assert!(id.starts_with("spl_") && id.len() == 36, "{id}");
    assert_eq!((&first["amount"], &again["amount"]), (&json!("7"), &json!("9007199254740993")));
    assert_eq!((&first["id"], &first["created_at"]), (&again["id"], &again["created_at"]));
    let mut shape = first.clone();
    for varying in ["id", "created_at", "updated_at"] {
        shape[varying] = "<varies>".into();
    }
    insta::allow_duplicates! {
        insta::assert_json_snapshot!(shape, @r#"
        {
          "amount": "7",
          "created_at": "<varies>",
          "currency": "USD",
          "id": "<varies>",
          "period": "daily",
          "scope": {
            "type": "user",
            "user_id": "alice"
          },
          "type": "spend_limit",
          "updated_at": "<varies>"
        }
        "#);
    }
    let other = set(&gateway.admin(), user("alice"), json!("7"), "weekly").await;
    assert_ne!(other["id"], first["id"], "another period is another cap");
    assert_eq!(gateway.auditor().get(&format!("{CAPS}/{id}")).await.json(), again);
    let deleted = gateway.admin().delete(&format!("{CAPS}/{id}")).await;
    assert_eq!(deleted.json(), json!({ "type": "spend_limit_deleted", "id": id }));
    for reply in
        [gateway.admin().delete(&format!("{CAPS}/{id}")).await, gateway.admin().get(&format!("{CAPS}/{id}")).await]
    {
        assert_eq!(refusal(&reply), "404 not_found_error: not found");
    }
}

async fn lists_go_forwards_and_backwards_in_the_order_of_creation(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    let mut ids = Vec::new();
    for number in 0..25 {
        let scope = if number % 2 == 0 {
            user(&format!("u{number}"))
        } else {
            json!({ "type": "rbac_group", "rbac_group_id": format!("g{number}") })
        };
        ids.push(set(&gateway.admin(), scope, json!("5"), "monthly").await["id"].clone());
    }
    let page = async |query: &str| {
        let reply = gateway.auditor().get(&format!("{CAPS}{query}")).await;
        assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (200, Some("no-store")), "{}", reply.text());
        let page = reply.json();
        let listed: Vec<Value> = page["data"].as_array().unwrap().iter().map(|cap| cap["id"].clone()).collect();
        assert_eq!(
            (&page["first_id"], &page["last_id"]),
            (listed.first().unwrap_or(&Value::Null), listed.last().unwrap_or(&Value::Null))
        );
        (listed, page["has_more"].as_bool().unwrap())
    };
    let id = |number: usize| ids[number].as_str().unwrap();
    assert_eq!(page("").await, (ids[..20].to_vec(), true), "20 unless told otherwise");
    assert_eq!(page(&format!("?after_id={}", id(19))).await, (ids[20..].to_vec(), false));
    assert_eq!(page(&format!("?limit=3&after_id={}", id(4))).await, (ids[5..8].to_vec(), true));
    assert_eq!(page(&format!("?limit=3&before_id={}", id(5))).await, (ids[2..5].to_vec(), true));
    assert_eq!(page(&format!("?limit=3&before_id={}", id(2))).await, (ids[..2].to_vec(), false));
    assert_eq!(page(&format!("?after_id={}", id(24))).await, (Vec::new(), false));
    assert_eq!(page("?scope_type=rbac_group&limit=1000&unknown=1").await.0.len(), 12);
    assert_eq!(page("?scope_type=organization").await, (Vec::new(), false));
}

async fn every_change_is_kept_with_who_made_it(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start().await;
    let person = gateway.as_member("grace", &[ADMIN_GROUP]);
    let cap = set(&gateway.admin(), user("alice"), json!("5"), "daily").await;
    set(&person, user("alice"), Value::Null, "daily").await;
    let id = cap["id"].as_str().unwrap();
    person.delete(&format!("{CAPS}/{id}")).await;
    let mut events = gateway.audit().take("admin.limit.upsert", 2).await;
    events.push(gateway.audit().next("admin.limit.delete").await);
    for event in &mut events {
        assert_eq!(event["target"], id);
        for varying in ["ts", "request_id", "target"] {
            assert!(event.as_object_mut().unwrap().remove(varying).is_some());
        }
    }
    insta::allow_duplicates! {
        insta::assert_json_snapshot!(events, @r#"
        [
          {
            "actor": "admin-key:writer",
            "amount": "5",
            "evt": "admin.limit.upsert",
            "period": "daily",
            "scope_id": "alice",
            "scope_type": "user"
          },
          {
            "actor": "oidc:grace",
            "amount": null,
            "before_amount": "5",
            "evt": "admin.limit.upsert",
            "period": "daily",
            "scope_id": "alice",
            "scope_type": "user"
          },
          {
            "actor": "oidc:grace",
            "amount": null,
            "before_amount": null,
            "evt": "admin.limit.delete",
            "period": "daily",
            "scope_id": "alice",
            "scope_type": "user"
          }
        ]
        "#);
    }
    gateway.stop().await;
    let rows = gateway.books().await.changes;
    let told: Vec<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(
        told,
        [
            "admin-key:writer spend_limit.upsert - 5",
            "oidc:grace spend_limit.upsert 5 null",
            "oidc:grace spend_limit.delete null -"
        ]
    );
}

async fn an_id_may_be_long_and_in_any_script(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    let ids = ["ж".repeat(5_000), "😀 \u{202e}'\"\\;--\n".to_owned(), "e\u{301}".to_owned(), "é".to_owned()];
    let mut set_ids = Vec::new();
    for id in &ids {
        let cap = set(&gateway.admin(), user(id), json!("5"), "daily").await;
        assert_eq!(cap["scope"], user(id));
        let again = set(&gateway.admin(), user(id), json!("6"), "daily").await;
        assert_eq!(again["id"], cap["id"], "the same id is the same person");
        set_ids.push(again["id"].clone());
    }
    set_ids.dedup();
    assert_eq!(set_ids.len(), 4, "characters that look alike are not the same");
    let listed = gateway.auditor().get(CAPS).await.json();
    let listed: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|cap| cap["scope"]["user_id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids);
    let query: String = url::form_urlencoded::byte_serialize(ids[1].as_bytes()).collect();
    let effective = gateway.auditor().get(&format!("{CAPS}/effective?period[]=daily&user_ids[]={query}")).await.json();
    assert_eq!(
        (&effective["data"][0]["actor"]["user_id"], &effective["data"][0]["amount"]),
        (&json!(ids[1]), &json!("6"))
    );
}

/// Keys are compared in constant time; here, that nothing but the whole key is one.
#[tokio::test]
async fn a_key_that_is_almost_right_is_refused_like_any_other() {
    let gateway = TestGateway::start().await;
    let (last, first) = (WRITE_KEY.len() - 1, &WRITE_KEY[1..]);
    let almost = [
        format!("{}x", &WRITE_KEY[..last]),
        format!("x{first}"),
        first.to_owned(),
        WRITE_KEY[..last].to_owned(),
        format!("{WRITE_KEY}x"),
        format!("{WRITE_KEY}, {WRITE_KEY}"),
        WRITE_KEY.to_uppercase(),
        READ_KEY[..READ_KEY.len() - 1].to_owned(),
        "x".to_owned(),
        String::new(),
    ];
    for key in almost {
        let reply = gateway.anyone().header("x-api-key", &key).get(CAPS).await;
        assert_eq!(refusal(&reply), "401 authentication_error: missing or invalid admin credentials", "{key}");
        assert_eq!(gateway.audit().next("admin.denied").await["reason"], "invalid_key", "{key}");
    }
    assert_eq!(gateway.admin().get(CAPS).await.status, 200);
}

#[tokio::test]
async fn every_fault_of_a_request_is_named_by_its_field() {
    let gateway = TestGateway::start().await;
    let admin = gateway.admin();
    let mut told = String::new();
    for body in [
        "",
        "[]",
        "{}",
        r#"{"scope":{"type":"user"},"amount":"5"}"#,
        r#"{"scope":{"type":"organization"}}"#,
        r#"{"scope":{"type":"organization"},"amount":5}"#,
        r#"{"scope":{"type":"organization"},"amount":"99999999999999999999"}"#,
        r#"{"scope":{"type":"organization"},"amount":"5","period":"hourly"}"#,
        r#"{"scope":{"type":"organization"},"amount":"5","currency":"EUR"}"#,
        r#"{"scope":{"type":"organization"},"amount":"5","pooled_budget":{"amount":"9"}}"#,
    ] {
        told.push_str(&format!("POST {body} -> {}\n", refusal(&admin.post(CAPS, body).await)));
    }
    for query in
        ["?limit=0", "?limit=1001", "?limit=x", "?after_id=spl_0", "?after_id=a&before_id=b", "?scope_type=team"]
    {
        told.push_str(&format!("GET {query} -> {}\n", refusal(&admin.get(&format!("{CAPS}{query}")).await)));
    }
    insta::assert_snapshot!(told, @r#"
    POST  -> 400 invalid_request_error: invalid JSON
    POST [] -> 400 invalid_request_error: request body must be a JSON object
    POST {} -> 400 invalid_request_error: scope: must be an object with a type
    POST {"scope":{"type":"user"},"amount":"5"} -> 400 invalid_request_error: scope.user_id: must be a string that is not empty
    POST {"scope":{"type":"organization"}} -> 400 invalid_request_error: amount: must be a string of whole US cents, such as "500", or null
    POST {"scope":{"type":"organization"},"amount":5} -> 400 invalid_request_error: amount: must be a string of whole US cents, such as "500", or null
    POST {"scope":{"type":"organization"},"amount":"99999999999999999999"} -> 400 invalid_request_error: amount: must be at most 9223372036854775807 cents
    POST {"scope":{"type":"organization"},"amount":"5","period":"hourly"} -> 400 invalid_request_error: period: must be daily, weekly or monthly
    POST {"scope":{"type":"organization"},"amount":"5","currency":"EUR"} -> 400 invalid_request_error: currency: must be USD
    POST {"scope":{"type":"organization"},"amount":"5","pooled_budget":{"amount":"9"}} -> 400 invalid_request_error: pooled_budget: only the monthly limit of an rbac_group can have one
    GET ?limit=0 -> 400 invalid_request_error: limit: must be a whole number from 1 to 1000
    GET ?limit=1001 -> 400 invalid_request_error: limit: must be a whole number from 1 to 1000
    GET ?limit=x -> 400 invalid_request_error: limit: must be a whole number from 1 to 1000
    GET ?after_id=spl_0 -> 400 invalid_request_error: after_id or before_id: no spend limit has this id
    GET ?after_id=a&before_id=b -> 400 invalid_request_error: after_id and before_id cannot both be given
    GET ?scope_type=team -> 400 invalid_request_error: scope_type: must be organization, rbac_group or user
    "#);
    assert_eq!(admin.get(CAPS).await.json()["data"], json!([]), "something was left half done");
}

#[tokio::test]
async fn who_may_not_change_caps_is_told_why_and_the_audit_too() {
    let gateway = TestGateway::start().await;
    let cap = json!({ "scope": { "type": "organization" }, "amount": "5" }).to_string();
    let refused = refusal(&gateway.auditor().post(CAPS, cap.clone()).await);
    assert_eq!(refused, "403 permission_error: requires write:spend_limits");
    let callers = [
        ("no_credentials", gateway.anyone()),
        ("invalid_key", gateway.anyone().header("x-api-key", "x")),
        // A key decides alone, also a wrong one beside a good bearer.
        ("invalid_key", gateway.as_member("grace", &[ADMIN_GROUP]).header("x-api-key", "x")),
        ("bearer_rejected", gateway.as_member("alice", &["finops-readers"])),
        ("bearer_rejected", gateway.anyone().bearer("x.y.z")),
    ];
    for (reason, caller) in callers {
        let refused = refusal(&caller.post(CAPS, cap.clone()).await);
        assert_eq!(refused, "401 authentication_error: missing or invalid admin credentials", "{reason}");
        let event = gateway.audit().next("admin.denied").await;
        assert_eq!((event["reason"].as_str(), event["method"].as_str()), (Some(reason), Some("POST")));
        assert_eq!((event["path"].as_str(), event["client_ip"].as_str()), (Some(CAPS), Some("127.0.0.1")));
    }
    assert_eq!(gateway.admin().get(CAPS).await.json()["data"], json!([]));
    set(&gateway.as_member("grace", &["other", ADMIN_GROUP]), json!({ "type": "organization" }), json!("5"), "daily")
        .await;
}

#[tokio::test]
async fn without_an_admin_section_there_is_no_admin_api() {
    let gateway = TestGateway::setup().config(json!({ "admin": null })).start().await;
    assert_eq!(gateway.anyone().header("x-api-key", "x").get(CAPS).await.status, 401);
    assert_eq!(gateway.as_member("grace", &[ADMIN_GROUP]).get(CAPS).await.status, 404);
    let reply = gateway.as_user("alice").messages(r#"{"model":"claude-haiku-4-5"}"#).await;
    assert_eq!(reply.status, 200);
    assert!(gateway.audit().next("inference").await["cost_usd"].is_null());
}

#[tokio::test]
async fn a_body_that_is_larger_than_any_limit_needs_is_refused() {
    let gateway = TestGateway::start().await;
    let body = |id_bytes: usize| json!({ "scope": user(&"u".repeat(id_bytes)), "amount": "5" }).to_string();
    assert_eq!(gateway.admin().post(CAPS, body(60_000)).await.status, 200);
    for path in [CAPS, "/v1/organizations/sessions/revoke"] {
        let refused = gateway.admin().post(path, body(70_000)).await;
        assert_eq!(refusal(&refused), "413 request_too_large: the body is larger than 64 KiB");
    }
}
