//! Money on the whole gateway: caps hold under concurrency, are told as the contract says, and cost what was used.

use hyper::header::HeaderMap;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::support::database::{Database, PostgresServer, Store, fresh_database, on_both_databases};
use crate::support::gateway::{Setup, TestGateway};
use crate::support::http::Reply;
use crate::support::upstream::{Answer, Gate};

/// $3 and $15 per million tokens.
const MODEL: &str = "claude-sonnet-4-6";

on_both_databases!(
    fifty_at_once_pass_a_cap_by_no_more_than_one_request,
    a_changed_cap_counts_for_the_next_request,
    what_was_spent_is_told_by_header_and_by_the_admin_api,
    a_blocked_caller_hears_of_the_cap_whatever_is_wrong_with_the_request,
    a_cap_of_a_group_or_of_all_counts_for_each_person,
);

/// A prompt of exactly `bytes`, which may be answered with so many tokens.
fn prompt(bytes: usize, max_tokens: u64) -> String {
    let frame = json!({ "model": MODEL, "max_tokens": max_tokens, "messages": "" }).to_string();
    frame.replace("\"messages\":\"\"", &format!("\"messages\":\"{}\"", "x".repeat(bytes - frame.len())))
}

fn small() -> String {
    prompt(100, 16)
}

async fn limit(gateway: &TestGateway, scope: Value, period: &str, amount: Value) -> Value {
    let body = json!({ "scope": scope, "amount": amount, "period": period });
    let reply = gateway.admin().post("/v1/organizations/spend_limits", body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// The unified headers without their common beginning, sorted.
fn unified(headers: &HeaderMap) -> String {
    let short = |name: &str| name.strip_prefix("anthropic-ratelimit-unified-").map(str::to_owned);
    let mut lines: Vec<String> = headers
        .iter()
        .filter_map(|(name, value)| Some(format!("{}: {}", short(name.as_str())?, value.to_str().unwrap())))
        .map(|line| {
            if line.contains("reset: ") {
                format!("{}: <end of the period>", line.split(':').next().unwrap())
            } else {
                line
            }
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

async fn fifty_at_once_pass_a_cap_by_no_more_than_one_request(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    // What the upstream bills is what the request honestly bounds: a token per byte, and all of max_tokens.
    let (bytes, max_tokens) = (1_000, 200);
    let answer = move |_: &_| Answer::message(MODEL, "hi", 1_000, 200);
    gateway.upstream().answer_otherwise(answer);
    let cents_of_three = 2;
    gateway.cap("alice", cents_of_three).await;
    let asking = (0..50).map(|_| {
        let alice = gateway.as_user("alice");
        tokio::spawn(async move { alice.messages(prompt(bytes, max_tokens)).await })
    });
    let mut replies: Vec<Reply> = Vec::new();
    for reply in asking.collect::<Vec<_>>() {
        replies.push(reply.await.unwrap());
    }
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    // $0.006 each: three fit under $0.02, a fourth begins below it.
    assert!((3..=4).contains(&served), "{served} were let through");
    assert_eq!(gateway.upstream().requests().len(), served, "an upstream was asked for nothing");
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.status, 429);
        let kind = reply.json()["error"]["type"].clone();
        assert!(kind == "billing_error" || kind == "rate_limit_error", "{}", reply.text());
        assert!(reply.header("retry-after").is_some());
    }
    for event in gateway.audit().take("inference", served).await {
        assert_eq!(event["cost_usd"].to_string(), "0.006");
    }
    for event in gateway.audit().take("spend.blocked", 50 - served).await {
        assert!(event["cause"] == "over_limit" || event["cause"] == "in_flight", "{event}");
    }
    let mut gateway = gateway;
    gateway.stop().await;
    let books = gateway.books().await;
    let charged = i64::try_from(served).unwrap() * 6_000_000;
    assert_eq!((books.settled, books.charged(), books.reserved), (charged, charged, 0));
}

async fn a_changed_cap_counts_for_the_next_request(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    let alice = gateway.as_user("alice");
    assert_eq!(alice.messages(small()).await.status, 200);
    gateway.cap("alice", 0).await;
    assert_eq!(alice.messages(small()).await.status, 429);
    gateway.cap("alice", 100).await;
    assert_eq!(alice.messages(small()).await.status, 200);
    gateway.cap("alice", 0).await;
    assert_eq!(alice.messages(small()).await.status, 429);
    let list = gateway.admin().get("/v1/organizations/spend_limits").await.json();
    let id = list["data"][0]["id"].as_str().unwrap();
    assert_eq!(gateway.admin().delete(&format!("/v1/organizations/spend_limits/{id}")).await.status, 200);
    assert_eq!(alice.messages(small()).await.status, 200);
    assert_eq!(gateway.as_user("bob").messages(small()).await.status, 200);
}

async fn what_was_spent_is_told_by_header_and_by_the_admin_api(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    // 74 cents of a dollar.
    gateway.upstream().answer_otherwise(|_| Answer::message(MODEL, "hi", 230_000, 3_333));
    let alice = gateway.as_member("alice", &["eng", "ml"]);
    let reply = alice.messages(small()).await;
    assert_eq!(unified(&reply.headers), "", "nobody set a cap");
    gateway.cap("alice", 100).await;
    let reply = alice.messages(small()).await;
    insta::allow_duplicates! {
        insta::assert_snapshot!(unified(&reply.headers), @r"
        overage-reset: <end of the period>
        overage-status: allowed
        overage-utilization: 0.73
        representative-claim: overage
        reset: <end of the period>
        status: allowed
        ");
    }
    // It is decided after what was settled before it.
    assert_eq!(alice.messages(small()).await.status, 429);
    let effective = gateway.admin().get("/v1/organizations/spend_limits/effective?period[]=daily").await;
    let mut row = effective.json()["data"][0].clone();
    row["spend_limit_id"] = "<id>".into();
    insta::allow_duplicates! {
        insta::assert_json_snapshot!(row, @r#"
        {
          "actor": {
            "deleted": false,
            "email_address": "alice@example.com",
            "name": null,
            "type": "user_actor",
            "user_id": "alice"
          },
          "amount": "100",
          "currency": "USD",
          "groups": [
            "eng",
            "ml"
          ],
          "period": "daily",
          "period_to_date_spend": "148",
          "scope": {
            "type": "user",
            "user_id": "alice"
          },
          "source": {
            "type": "user",
            "user_id": "alice"
          },
          "spend_limit_id": "<id>"
        }
        "#);
    }
}

async fn a_blocked_caller_hears_of_the_cap_whatever_is_wrong_with_the_request(database: Database) {
    let blocked = json!({ "admin": { "blocked_message": "ask at https://go/limits" } });
    let gateway = TestGateway::setup().on(database).config(blocked).start().await;
    // More than the cap of a cent.
    gateway.upstream().answer_otherwise(|_| Answer::message(MODEL, "hi", 4_000, 0));
    gateway.cap("alice", 1).await;
    let alice = gateway.as_user("alice");
    assert_eq!(alice.messages(small()).await.status, 200);
    gateway.audit().next("inference").await;
    for body in [small().as_str(), "{broken", "", r#"{"model":"gpt-5"}"#] {
        let reply = alice.messages(body.to_owned()).await;
        assert_eq!(reply.status, 429, "{body}");
        let error = reply.json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert_eq!(error["type"], "billing_error");
        let date = message.strip_prefix("spend limit reached · resets ").unwrap().split(" · ").next().unwrap();
        assert_eq!(
            message,
            format!(
                "spend limit reached · resets {date} · $0.02 spent of the daily cap of $0.01 · ask at https://go/limits"
            )
        );
        assert_eq!(reply.json()["request_id"].as_str(), reply.header("x-request-id"));
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&seconds), "{seconds}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(unified(&reply.headers), @r"
            overage-disabled-reason: org_spend_cap_reached
            overage-period: daily
            overage-reset: <end of the period>
            overage-surpassed-threshold: 1
            overage-utilization: 1.01
            reset: <end of the period>
            status: rejected
            ");
        }
        let mut event = gateway.audit().next("spend.blocked").await;
        assert_eq!(event["request_id"].as_str(), reply.header("x-request-id"));
        for varying in ["ts", "request_id"] {
            event.as_object_mut().unwrap().remove(varying);
        }
        assert_eq!(
            event,
            json!({ "evt": "spend.blocked", "sub": "alice", "cause": "over_limit", "cap_cents": "1", "source": "user", "period": "daily" })
        );
    }
    assert!(gateway.audit().waiting("inference").is_empty(), "a block is no inference");
    assert_eq!(gateway.upstream().requests().len(), 1);
}

async fn a_cap_of_a_group_or_of_all_counts_for_each_person(database: Database) {
    let gateway = TestGateway::setup().on(database).start().await;
    gateway.upstream().answer_otherwise(|_| Answer::message(MODEL, "hi", 4_000, 0));
    limit(&gateway, json!({ "type": "organization" }), "monthly", json!("1")).await;
    limit(&gateway, json!({ "type": "rbac_group", "rbac_group_id": "eng" }), "monthly", json!("2")).await;
    let (alice, bob, carl) =
        (gateway.as_member("alice", &["eng"]), gateway.as_member("bob", &["eng"]), gateway.as_user("carl"));
    assert_eq!(alice.messages(small()).await.status, 200);
    assert_eq!(alice.messages(small()).await.status, 200, "a group's cap goes before the organisation's");
    assert_eq!(alice.messages(small()).await.status, 429);
    assert_eq!(bob.messages(small()).await.status, 200, "each member has the whole cap");
    assert_eq!(carl.messages(small()).await.status, 200);
    assert_eq!(carl.messages(small()).await.status, 429);
    let events = gateway.audit().take("spend.blocked", 2).await;
    assert_eq!(
        (events[0]["source"].as_str(), events[1]["source"].as_str()),
        (Some("rbac_group"), Some("organization"))
    );
    limit(&gateway, json!({ "type": "user", "user_id": "carl" }), "monthly", Value::Null).await;
    assert_eq!(carl.messages(small()).await.status, 200, "a person's own word is the last, also when it is no limit");
}

#[tokio::test]
async fn a_request_that_fits_only_after_another_waits_for_it() {
    let gateway = TestGateway::start().await;
    gateway.cap("alice", 1).await;
    let gate = Gate::closed();
    gateway.upstream().answer(Answer::message(MODEL, "cheap", 1, 1).after(&gate));
    let alice = gateway.as_user("alice");
    // Its bound takes up the whole cap.
    let first = tokio::spawn({
        let alice = alice.clone();
        async move { alice.messages(prompt(1_000, 600)).await }
    });
    gate.reached().await;
    let second = tokio::spawn(async move { alice.messages(prompt(1_000, 600)).await });
    gate.open();
    assert_eq!((first.await.unwrap().status.as_u16(), second.await.unwrap().status.as_u16()), (200, 200));
}

#[tokio::test]
async fn two_replicas_hold_one_cap_and_one_hears_of_it_from_the_other() {
    let url = fresh_database().await;
    let one = TestGateway::setup().store(Store::Postgres(url.clone())).start().await;
    let other = TestGateway::setup().store(Store::Postgres(url)).start().await;
    for gateway in [&one, &other] {
        gateway.upstream().answer_otherwise(|_| Answer::message(MODEL, "hi", 1_000, 200));
    }
    one.cap("alice", 2).await;
    hears_of_cap(&other, "alice").await;
    let asking: Vec<_> = (0..40)
        .map(|number| {
            let alice = [&one, &other][number % 2].as_user("alice");
            tokio::spawn(async move { alice.messages(prompt(1_000, 200)).await.status })
        })
        .collect();
    let mut served = 0;
    for asking in asking {
        served += usize::from(asking.await.unwrap() == 200);
    }
    assert!((3..=4).contains(&served), "{served} were let through");
    let bob = other.as_user("bob");
    assert_eq!(bob.messages(small()).await.status, 200);
    one.cap("bob", 0).await;
    one.cap("bob", 100).await;
    one.cap("bob", 0).await;
    assert_eq!(one.as_user("bob").messages(small()).await.status, 429);
}

/// Returns once a replica knows of a cap that another has set; it hears of it by notice, or else by asking now and then.
async fn hears_of_cap(gateway: &TestGateway, sub: &str) {
    let path = format!("/v1/organizations/spend_limits/effective?period[]=daily&user_ids[]={sub}");
    let heard = async {
        while gateway.admin().get(&path).await.json()["data"][0]["amount"].is_null() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), heard).await.expect("the replica never heard of the cap");
}

/// A gateway whose database the test can stop.
async fn on_a_server_of_its_own(setup: Setup) -> (PostgresServer, TestGateway) {
    let server = PostgresServer::start();
    let gateway = setup.store(Store::Postgres(server.fresh_database().await)).start().await;
    (server, gateway)
}

#[tokio::test]
async fn without_its_database_the_gateway_lets_people_work_and_counts_later() {
    let (server, gateway) = on_a_server_of_its_own(TestGateway::setup()).await;
    gateway.cap("alice", 100).await;
    let alice = gateway.as_user("alice");
    assert_eq!(alice.messages(small()).await.status, 200);
    gateway.audit().next("inference").await;
    server.stop();
    gateway.upstream().answer(Answer::message(MODEL, "hi", 4_000, 0));
    let reply = alice.messages(small()).await;
    assert_eq!((reply.status.as_u16(), unified(&reply.headers).as_str()), (200, ""));
    assert_eq!(gateway.anyone().get("/healthz").await.status, 200);
    assert_eq!(gateway.anyone().get("/readyz").await.status, 503);
    assert_eq!(alice.get("/v1/models").await.status, 200);
    let admin = gateway.admin().get("/v1/organizations/spend_limits/effective").await;
    assert_eq!((admin.status.as_u16(), admin.json()["error"]["type"].as_str()), (500, Some("api_error")));
    gateway.audit().next("inference").await;

    server.start_again();
    assert_eq!(gateway.anyone().get("/readyz").await.status, 200);
    // What was spent meanwhile is written when the database is asked again.
    let mut gateway = gateway;
    assert_eq!(gateway.stop().await, 0);
    let books = gateway.books().await;
    assert_eq!(books.usage.len(), 2);
    assert_eq!((books.settled, books.reserved), (books.charged(), 0));
    assert_eq!(books.usage[1].charge, 12_000_000);
}

#[tokio::test]
async fn an_operator_may_rather_refuse_than_not_know() {
    let closed = json!({ "enforcement": { "fail_closed_on_error": true }, "admin": { "blocked_message": "call 112" } });
    let (server, gateway) = on_a_server_of_its_own(TestGateway::setup().config(closed)).await;
    gateway.cap("alice", 100).await;
    let alice = gateway.as_user("alice");
    assert_eq!(alice.messages(small()).await.status, 200);
    server.stop();
    let reply = alice.messages(small()).await;
    assert_eq!(reply.status, 429);
    assert_eq!(reply.json()["error"]["message"], "spend limit unavailable · call 112");
    assert_eq!((reply.header("x-should-retry"), reply.header("retry-after")), (Some("false"), None));
    assert_eq!(unified(&reply.headers), "overage-disabled-reason: fetch_error");
    assert_eq!(gateway.audit().next("spend.blocked").await["cause"], "store_error");
    assert_eq!(alice.post("/v1/messages/count_tokens", small()).await.status, 200);
    server.start_again();
    // The breaker may hold for a second; a request that waits for the answer of the database finds it.
    assert_eq!(gateway.anyone().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_database_that_hangs_holds_nobody_up_for_long() {
    let (server, gateway) = on_a_server_of_its_own(TestGateway::setup()).await;
    gateway.cap("alice", 100).await;
    let alice = gateway.as_user("alice");
    assert_eq!(alice.messages(small()).await.status, 200);
    server.pause();
    let began = Instant::now();
    assert_eq!(gateway.anyone().get("/readyz").await.status, 503);
    assert!(began.elapsed() < Duration::from_secs(1), "readyz took {:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(alice.messages(small()).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "the first request took {:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(alice.messages(small()).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "the next request took {:?}", began.elapsed());
    server.resume();
}
