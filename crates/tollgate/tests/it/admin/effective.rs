//! `/v1/organizations/spend_limits/effective`: who is under which cap, and how far.

use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::TestGateway;
use crate::support::upstream::Answer;

const EFFECTIVE: &str = "/v1/organizations/spend_limits/effective";

on_both_databases!(everyone_seen_is_listed_with_the_cap_that_counts, pages_by_subject_and_by_spend_miss_nobody);

async fn spend(gateway: &TestGateway, sub: &str, groups: &[&str], input_tokens: u64) {
    gateway.upstream().answer(Answer::message("claude-sonnet-4-6", "hi", input_tokens, 0));
    let body = r#"{"model":"claude-sonnet-4-6","max_tokens":16}"#;
    assert_eq!(gateway.as_member(sub, groups).messages(body).await.status, 200);
}

/// Waits until all that was spent is in the database, and by whom: a request under a cap is decided after what was
/// settled before it, and the next one after everybody who was seen was written down.
async fn settled(gateway: &TestGateway) {
    gateway.cap("zz-last", 1_000).await;
    for _ in 0..2 {
        spend(gateway, "zz-last", &[], 1).await;
    }
}

async fn rows(gateway: &TestGateway, query: &str) -> (Vec<Value>, Value) {
    let reply = gateway.auditor().get(&format!("{EFFECTIVE}{query}")).await;
    assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (200, Some("no-store")), "{}", reply.text());
    let page = reply.json();
    (page["data"].as_array().unwrap().clone(), page["next_page"].clone())
}

/// Subject, period, cap, source and spend of each row.
fn brief(rows: &[Value]) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line = |row: &Value| {
        let source = row["source"]["type"].clone();
        format!(
            "{} {} {} {} {}\n",
            text(&row["scope"]["user_id"]),
            text(&row["period"]),
            text(&row["amount"]),
            text(&source),
            text(&row["period_to_date_spend"])
        )
    };
    rows.iter().map(line).collect()
}

async fn everyone_seen_is_listed_with_the_cap_that_counts(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    spend(&gateway, "alice", &["eng"], 4_000).await;
    spend(&gateway, "bob", &[], 1_000).await;
    let caps = [
        json!({ "scope": { "type": "organization" }, "amount": "100", "period": "monthly" }),
        json!({ "scope": { "type": "rbac_group", "rbac_group_id": "eng" }, "amount": "50", "period": "monthly" }),
        json!({ "scope": { "type": "user", "user_id": "alice" }, "amount": null, "period": "daily" }),
    ];
    for cap in caps {
        assert_eq!(gateway.admin().post("/v1/organizations/spend_limits", cap.to_string()).await.status, 200);
    }
    settled(&gateway).await;
    let all = brief(&rows(&gateway, "").await.0);
    let named = brief(&rows(&gateway, "?period[]=monthly&user_ids[]=nobody&user_ids[]=bob").await.0);
    let found = brief(&rows(&gateway, "?period[]=daily&q=ALICE@").await.0);
    insta::allow_duplicates! {
        insta::assert_snapshot!(all, @r"
        alice daily null user 1.2
        alice weekly null null 1.2
        alice monthly 50 rbac_group 1.2
        bob daily null null 0.3
        bob weekly null null 0.3
        bob monthly 100 organization 0.3
        zz-last daily 1000 user 0
        zz-last weekly null null 0
        zz-last monthly 100 organization 0
        ");
        insta::assert_snapshot!(named, @r"
        nobody monthly 100 organization 0
        bob monthly 100 organization 0.3
        ");
        insta::assert_snapshot!(found, @"alice daily null user 1.2");
    }
    assert!(rows(&gateway, "?q=%25").await.0.is_empty(), "a percent sign is no wildcard");
    assert_eq!(rows(&gateway, "?period=yearly&user_ids=bob").await.0.len(), 9, "only lists in brackets are known");
}

async fn pages_by_subject_and_by_spend_miss_nobody(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    for (sub, tokens) in [("a", 3_000), ("b", 9_000), ("c", 3_000), ("d", 0), ("e", 6_000)] {
        spend(&gateway, sub, &[], tokens).await;
    }
    settled(&gateway).await;
    let walk = async |query: &str| {
        let (mut seen, mut page) = (Vec::new(), String::new());
        loop {
            let (found, next) = rows(&gateway, &format!("{query}&limit=2{page}")).await;
            seen.extend(found.iter().map(|row| row["scope"]["user_id"].as_str().unwrap().to_owned()));
            let Some(next) = next.as_str() else { return seen };
            page = format!("&page={next}");
        }
    };
    assert_eq!(walk("?period[]=daily").await, ["a", "b", "c", "d", "e", "zz-last"]);
    assert_eq!(walk("?period[]=weekly&sort=spend_desc").await, ["b", "e", "a", "c", "zz-last", "d"]);
    for query in
        ["?sort=spend_desc", "?sort=name&period[]=daily", "?period[]=hourly", "?page=junk", "?limit=0", "?user_ids[]="]
    {
        assert_eq!(gateway.auditor().get(&format!("{EFFECTIVE}{query}")).await.status, 400, "{query}");
    }
}
