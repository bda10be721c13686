//! What the whole gateway charges for golden answers: their bytes pass untouched, and ledger and audit agree on what they
//! used and cost, to the nano-dollar.

#[path = "../../../wire/tests/golden/fixture.rs"]
mod fixture;

use control::spend::Money;
use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::TestGateway;
use crate::support::upstream::Answer;

use fixture::Fixture;

on_both_databases!(
    every_golden_answer_costs_in_ledger_and_audit_what_it_says,
    contract_rates_are_charged_and_rounded_up_once,
    an_answer_that_says_nothing_of_its_prompt_is_charged_by_the_size_of_the_request,
    a_model_that_nobody_priced_is_refused_where_the_operator_wants_it,
);

const EVENTS: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";

fn prompt(model: &str) -> String {
    json!({ "model": model, "max_tokens": 16, "messages": [{ "role": "user", "content": "hello" }] }).to_string()
}

/// A model of the operator's own, which has no list price.
fn house_model() -> Value {
    json!({ "models": [{ "id": "house-model", "upstream_model": { "first": "model-x" } }] })
}

/// What the ledger wrote for each request, sorted: five classes of tokens, searches, fast, charge, estimated.
async fn rows(gateway: &mut TestGateway) -> Vec<[i64; 9]> {
    gateway.stop().await;
    let sql =
        "SELECT input_tokens, output_tokens, cache_read, cache_write_5m, cache_write_1h, web_searches, fast, charge,
        estimated FROM usage";
    let rows = gateway.database().await.fetch(sql, &[]).await.unwrap();
    let mut rows: Vec<_> = rows.iter().map(|row| std::array::from_fn(|column| row.int(column).unwrap())).collect();
    rows.sort_unstable();
    rows
}

fn row(golden: &Fixture) -> [i64; 9] {
    let used = &golden.usage;
    let counts = [
        used.input_tokens,
        used.output_tokens,
        used.cache_read_input_tokens,
        used.cache_creation_5m_tokens,
        used.cache_creation_1h_tokens,
        used.web_search_requests,
        u64::from(used.fast),
    ];
    let [input, output, read, short, long, searches, fast] = counts.map(|count| i64::try_from(count).unwrap());
    [input, output, read, short, long, searches, fast, golden.charge, i64::from(!golden.is_final)]
}

async fn every_golden_answer_costs_in_ledger_and_audit_what_it_says(database: Database) {
    let mut gateway = TestGateway::setup().on(database).config(house_model()).start().await;
    let alice = gateway.as_user("alice");
    let fixtures = fixture::all();
    for golden in &fixtures {
        let kind = if golden.is_stream { EVENTS } else { JSON };
        gateway.upstream().answer(Answer::new(200, kind, golden.body.clone()));
        let reply = alice.messages(prompt(&golden.model)).await;
        assert!(reply.status == 200 && reply.body == golden.body, "{}: {}", golden.name, reply.text());

        let event = gateway.audit().next("inference").await;
        let used = &golden.usage;
        let told = |field: &str| event[field].as_u64().unwrap();
        assert_eq!(told("input_tokens"), used.input_tokens, "{}", golden.name);
        assert_eq!(told("output_tokens"), used.output_tokens, "{}", golden.name);
        assert_eq!(told("cache_read_input_tokens"), used.cache_read_input_tokens, "{}", golden.name);
        let written = used.cache_creation_5m_tokens + used.cache_creation_1h_tokens;
        assert_eq!(told("cache_creation_input_tokens"), written, "{}", golden.name);
        assert_eq!(event["cost_usd"].to_string(), Money::from_nano(golden.charge).dollars(), "{}", golden.name);
        assert_eq!(event["estimated"] == json!(true), !golden.is_final, "{}", golden.name);
    }
    let mut expected: Vec<[i64; 9]> = fixtures.iter().map(row).collect();
    expected.sort_unstable();
    assert_eq!(rows(&mut gateway).await, expected);
    let books = gateway.books().await;
    assert_eq!((books.settled, books.reserved), (fixtures.iter().map(|golden| golden.charge).sum(), 0));
}

async fn contract_rates_are_charged_and_rounded_up_once(database: Database) {
    let rates = |model: &str, usd: &str| {
        json!({ "upstream": "first", "model": model, "input": usd, "output": usd, "cache_read": usd,
            "cache_write": usd, "cache_write_1h": "8.1", "web_search": "0.02" })
    };
    let overrides = [rates("claude-haiku-4-5", "2"), rates("claude-haiku-4-5-20251001", "3.000001")];
    let config = json!({ "pricing": { "multiplier": "0.333333333", "overrides": overrides } });
    let mut gateway = TestGateway::setup().on(database).config(config).start().await;
    let usage = json!({ "input_tokens": 10, "output_tokens": 1, "speed": "fast",
        "cache_creation": { "ephemeral_1h_input_tokens": 7 }, "server_tool_use": { "web_search_requests": 1 } });
    let answer = json!({ "type": "message", "content": [], "usage": usage });
    gateway.upstream().answer_otherwise(move |_| Answer::json(200, &answer));
    gateway.as_user("alice").messages(prompt("claude-haiku-4-5")).await;
    // 11 x 3000.001 + 7 x 8100 + 20000000 = 20089700.011, and a third of it 6696566.6633...: the exact id sent there wins.
    assert_eq!(rows(&mut gateway).await, [[10, 1, 0, 0, 7, 1, 1, 6_696_567, 0]]);
}

async fn an_answer_that_says_nothing_of_its_prompt_is_charged_by_the_size_of_the_request(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start().await;
    let alice = gateway.as_user("alice");
    for usage in [json!(null), json!({ "input_tokens": null, "output_tokens": 9 }), json!({ "output_tokens": null })] {
        let answer = json!({ "type": "message", "content": [{ "type": "text", "text": "12345678" }], "usage": usage });
        gateway.upstream().answer(Answer::json(200, &answer));
        alice.messages(prompt("claude-sonnet-4-6")).await;
    }
    let input = i64::try_from(prompt("claude-sonnet-4-6").len().div_ceil(4)).unwrap();
    let row = |output: i64| [input, output, 0, 0, 0, 0, 0, input * 3_000 + output * 15_000, 1];
    assert_eq!(rows(&mut gateway).await, [row(2), row(2), row(9)]);
}

async fn a_model_that_nobody_priced_is_refused_where_the_operator_wants_it(database: Database) {
    let refuse = json!({ "pricing": { "unknown_model": "refuse" } });
    let gateway = TestGateway::setup().on(database).config(house_model()).config(refuse).start().await;
    let alice = gateway.as_user("alice");
    let reply = alice.messages(prompt("house-model")).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(gateway.upstream().requests().is_empty());
    let listed = alice.get("/v1/models").await.json();
    assert!(listed["data"].as_array().unwrap().iter().all(|model| model["id"] != "house-model"), "{listed}");
    assert_eq!(alice.messages(prompt("claude-haiku-4-5")).await.status, 200);
}
