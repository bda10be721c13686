//! What becomes of what was spent: it can be proved, it goes when it is old, and it outlives the name of who spent it.

use std::sync::Arc;

use control::clock::{Clock, SystemClock, TestClock};
use control::spend::{Period, Retention, Upkeep};
use control::store::Store;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::{ADMIN_GROUP, TestGateway, open};
use crate::support::upstream::Answer;

const MODEL: &str = "claude-sonnet-4-6";

/// `cargo test -p tollgate --test it -- --ignored --nocapture a_million_rows`
mod a_million_rows {
    use super::{Arc, Database, Retention, SystemClock, Upkeep, many_rows, open};

    #[tokio::test]
    #[ignore = "takes a minute"]
    #[expect(clippy::print_stderr, clippy::disallowed_methods, reason = "it is asked for how long things take")]
    async fn are_proved_and_removed_and_no_statement_takes_long() {
        let store = open(&Database::Postgres.fresh().await).await;
        for days_ago in 1..=30 {
            many_rows(&store, days_ago, 33_334).await;
        }
        let begun = std::time::Instant::now();
        let upkeep = Upkeep::new(store.clone(), Arc::new(SystemClock), Retention::default());
        let proof = upkeep.verify().await.unwrap();
        eprintln!("{} periods proved in {:?}", proof.periods, begun.elapsed());
        assert!(proof.holds(), "{:?}", proof.differences.first());
        store.execute("UPDATE usage SET charge = charge + 1 WHERE id = '15-777'", &[]).await.unwrap();
        assert_eq!(upkeep.verify().await.unwrap().differences.len(), 3, "its day, week and month");
        let begun = std::time::Instant::now();
        let short = Retention { usage_days: 0, ..Retention::default() };
        let removed = Upkeep::new(store, Arc::new(SystemClock), short).sweep().await.unwrap();
        eprintln!("{removed} rows removed in {:?}", begun.elapsed());
        assert!(removed >= 1_000_000);
    }
}

/// Requests of an hour of a day, of a hundred people, on the books.
async fn many_rows(store: &Store, days_ago: i64, count: i64) {
    let day = Period::Daily.starts(SystemClock.now() - SignedDuration::from_hours(24 * days_ago));
    let [key, week, month] = Period::ALL.map(|period| period.key(day));
    let insert = "INSERT INTO usage (id, started_at, principal, groups, model, input_tokens, output_tokens, cache_read,
             cache_write_5m, cache_write_1h, web_searches, fast, charge, estimated, account, day, week, month)
         WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < $1)
         SELECT CAST($2 AS TEXT) || '-' || i, CAST($3 AS BIGINT) + i % 3600000, 'p' || i % 100, '[]', 'm', 1, 1, 1, 1, 1,
             1, 0, i, 0, 'user:p' || i % 100, $4, $5, $6
         FROM n";
    let (number, starts) = (days_ago.to_string(), day.as_millisecond());
    let params = [count.into(), (&number).into(), starts.into(), (&key).into(), (&week).into(), (&month).into()];
    store.execute(insert, &params).await.unwrap();
    for period in [&key, &week, &month] {
        let sums = "INSERT INTO account (period, id, settled, reserved)
            SELECT CAST($1 AS TEXT), account, SUM(charge), 0 FROM usage WHERE started_at >= $2 AND started_at < $3
            GROUP BY account
            ON CONFLICT (period, id) DO UPDATE SET settled = account.settled + excluded.settled";
        store.execute(sums, &[period.into(), starts.into(), (starts + 3_600_000).into()]).await.unwrap();
    }
}

on_both_databases!(
    however_many_rows_are_past_their_retention_they_all_go,
    the_books_can_be_proved_and_say_which_account_is_wrong,
    rows_go_when_they_are_past_their_retention,
    a_person_is_forgotten_and_what_was_spent_is_not,
);

async fn spend(gateway: &TestGateway, sub: &str, groups: &[&str], requests: usize) {
    gateway.upstream().answer_otherwise(|_| Answer::message(MODEL, "hi", 1_000, 100));
    for _ in 0..requests {
        let body = json!({ "model": MODEL, "max_tokens": 100, "messages": [] }).to_string();
        let reply = gateway.as_member(sub, groups).header("x-claude-code-session-id", "of-alice").messages(body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

async fn the_books_can_be_proved_and_say_which_account_is_wrong(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start().await;
    let scope = json!({ "type": "rbac_group", "rbac_group_id": "eng" });
    let pool = json!({ "scope": scope, "amount": "1000", "pooled_budget": { "amount": "5000" } });
    assert_eq!(gateway.admin().post("/v1/organizations/spend_limits", pool.to_string()).await.status, 200);
    spend(&gateway, "alice", &["eng"], 3).await;
    spend(&gateway, "bob", &[], 2).await;
    gateway.stop().await;
    let store = gateway.database().await;
    let upkeep = Upkeep::new(store.clone(), Arc::new(SystemClock), Retention::default());
    let proof = upkeep.verify().await.unwrap();
    assert!(proof.holds() && proof.periods > 90, "{proof:?}");

    let day = "UPDATE account SET settled = settled + 5 WHERE id = 'user:alice' AND LENGTH(period) = 10";
    store.execute(day, &[]).await.unwrap();
    let reserve = "UPDATE account SET reserved = reserved - 7 WHERE id = 'user:bob' AND LENGTH(period) = 7";
    store.execute(reserve, &[]).await.unwrap();
    let proof = upkeep.verify().await.unwrap();
    let told: Vec<String> = proof.differences.iter().map(ToString::to_string).collect();
    let today = SystemClock.now().to_string();
    let (day, month) = (&today[..10], &today[..7]);
    assert_eq!(
        told,
        [
            format!("user:bob in {month}: reserved is $0.000000007 less than its rows"),
            format!("user:alice in {day}: settled is $0.000000005 more than its rows"),
        ]
    );
    let json = proof.to_json();
    assert_eq!((&json["holds"], &json["differences"][1]["excess_nano_usd"]), (&json!(false), &json!(5)));
}

async fn rows_go_when_they_are_past_their_retention(database: Database) {
    let store = database.fresh().await;
    let store = open(&store).await;
    let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
    let days_ago = |days: i64| (clock.now() - SignedDuration::from_hours(24 * days)).as_millisecond();
    for days in [0, 89, 91, 400] {
        let insert =
            "INSERT INTO usage (id, started_at, principal, groups, model, input_tokens, output_tokens, cache_read,
            cache_write_5m, cache_write_1h, web_searches, fast, charge, estimated, account, day, week, month)
            VALUES ($1, $2, 'p', '[]', 'm', 1, 1, 1, 1, 1, 1, 0, 1, 0, 'user:p', 'd', 'w', 'm')";
        store.execute(insert, &[(&days.to_string()).into(), days_ago(days).into()]).await.unwrap();
        let seen = "INSERT INTO principal (sub, groups, seen_at) VALUES ($1, '[]', $2)";
        store.execute(seen, &[(&days.to_string()).into(), days_ago(days).into()]).await.unwrap();
        let change = "INSERT INTO admin_audit (at, actor, action, target) VALUES ($1, 'a', 'b', 'c')";
        store.execute(change, &[days_ago(days).into()]).await.unwrap();
    }
    for (period, reserved) in [
        ("2026-11-22", 0),
        ("2025-10-22", 0),
        ("2025-10-21", 0),
        ("2025-10-20", 1),
        ("2025-W43", 0),
        ("2025-W42", 0),
        ("2025-10", 0),
        ("2025-09", 0),
    ] {
        let insert = "INSERT INTO account (id, period, settled, reserved) VALUES ('user:p', $1, 9, $2)";
        store.execute(insert, &[period.into(), i64::from(reserved).into()]).await.unwrap();
    }
    let upkeep = Upkeep::new(store.clone(), clock, Retention::default());
    assert_eq!(upkeep.sweep().await.unwrap(), 2 + 2 + 1 + 3);
    assert_eq!(upkeep.sweep().await.unwrap(), 0);
    let left = async |sql: &str| {
        let rows = store.fetch(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(left("SELECT id FROM usage ORDER BY started_at DESC").await, "0 89");
    assert_eq!(left("SELECT sub FROM principal ORDER BY seen_at DESC").await, "0 89");
    let periods = left("SELECT period FROM account ORDER BY period").await;
    assert_eq!(periods, "2025-10 2025-10-20 2025-10-22 2025-W43 2026-11-22");
    assert_eq!(store.fetch("SELECT id FROM admin_audit", &[]).await.unwrap().len(), 3);
}

async fn however_many_rows_are_past_their_retention_they_all_go(database: Database) {
    let store = open(&database.fresh().await).await;
    many_rows(&store, 0, 4_500).await;
    let clock = Arc::new(TestClock::at(SystemClock.now() + SignedDuration::from_hours(24 * 365)));
    let upkeep = Upkeep::new(store, clock, Retention::default());
    assert_eq!(upkeep.sweep().await.unwrap(), 4_500, "its counters are kept for longer");
}

async fn a_person_is_forgotten_and_what_was_spent_is_not(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start().await;
    spend(&gateway, "alice", &["eng"], 3).await;
    spend(&gateway, "bob", &["eng"], 1).await;
    // Writes are behind; a capped request comes after them.
    gateway.cap("bob", 1_000).await;
    spend(&gateway, "bob", &["eng"], 1).await;
    // She has a limit of her own, and as an administrator has set bob's.
    let limits = "/v1/organizations/spend_limits";
    let hers = json!({ "scope": { "type": "user", "user_id": "alice" }, "amount": "5000" }).to_string();
    assert_eq!(gateway.admin().post(limits, hers).await.status, 200);
    let bobs = json!({ "scope": { "type": "user", "user_id": "bob" }, "amount": "2000" }).to_string();
    assert_eq!(gateway.as_member("alice", &[ADMIN_GROUP]).post(limits, bobs).await.status, 200);
    let path = "/v1/organizations/principals/alice";
    let refused = gateway.auditor().delete(path).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["message"]),
        (403, &json!("requires write:principals"))
    );
    let alice = gateway.as_user("alice");
    let erased = gateway.admin().delete(path).await;
    assert_eq!(erased.status, 200, "{}", erased.text());
    let erased = erased.json();
    assert_eq!((&erased["type"], &erased["usage_rows"]), (&json!("principal_erased"), &json!(3)));
    assert_eq!(erased["spend_limits_deleted"], 1);
    let pseudonym = erased["pseudonym"].as_str().unwrap().to_owned();
    let event = gateway.audit().next("admin.principal.erase").await;
    assert_eq!((&event["pseudonym"], event.get("sub")), (&json!(pseudonym), None));
    assert_eq!(gateway.admin().delete(path).await.status, 404, "nobody is forgotten twice");
    assert_eq!(alice.get("/v1/models").await.status, 401, "a bearer of hers is worth nothing");

    let changes = gateway.auditor().get(&format!("{limits}/audit")).await.json()["data"].clone();
    let whose = |change: &Value, state: &str| change[state]["scope"]["user_id"].clone();
    let [deleted, of_bob, set, ..] = changes.as_array().unwrap().as_slice() else { panic!("{changes:#}") };
    assert_eq!((&deleted["action"], whose(deleted, "before")), (&json!("spend_limit.delete"), json!(pseudonym)));
    assert_eq!((&of_bob["actor"], whose(of_bob, "after")), (&json!(format!("oidc:{pseudonym}")), json!("bob")));
    assert_eq!((whose(set, "after"), &set["after"]["amount"]), (json!(pseudonym), &json!("5000")));

    let report = "/v1/organizations/cost_report?starting_at=2026-01-01T00:00:00Z&limit=31&group_by[]=account_id";
    assert_eq!(gateway.auditor().get(report).await.status, 200);
    gateway.stop().await;
    let store = gateway.database().await;
    let proof = Upkeep::new(store.clone(), Arc::new(SystemClock), Retention::default()).verify().await.unwrap();
    assert!(proof.holds(), "{proof:?}");
    let rows = store.fetch("SELECT principal, groups, session_id, account FROM usage ORDER BY started_at", &[]).await;
    let rows = rows.unwrap();
    assert_eq!(rows.len(), 5);
    for row in &rows[..3] {
        let shown = (row.text(0).unwrap(), row.text(1).unwrap(), row.text_or_null(2).unwrap(), row.text(3).unwrap());
        assert_eq!(shown, (pseudonym.as_str(), "[]", None, format!("user:{pseudonym}").as_str()));
    }
    for (table, column) in [
        ("usage", "principal"),
        ("usage", "account"),
        ("account", "id"),
        ("principal", "sub"),
        ("session", "sub"),
        ("admin_audit", "target"),
        ("admin_audit", "actor"),
        ("admin_audit", "before"),
        ("admin_audit", "after"),
        ("spend_limit", "scope_id"),
        ("spend_limit", "created_by"),
        ("usage_hour", "principal"),
    ] {
        let found = format!("SELECT {column} FROM {table} WHERE {column} LIKE '%alice%'");
        assert!(store.fetch(&found, &[]).await.unwrap().is_empty(), "{table}.{column} still knows her");
    }
    let bob = store.fetch("SELECT sub FROM principal", &[]).await.unwrap();
    assert_eq!(bob.len(), 1, "others are still known");
}
