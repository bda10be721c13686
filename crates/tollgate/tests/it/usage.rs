//! What the gateway keeps of a request: its usage row (R21).

use serde_json::{Value, json};

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::TestGateway;
use crate::support::upstream::Answer;

on_both_databases!(
    a_usage_row_says_who_asked_what_was_used_and_what_it_cost,
    a_request_that_failed_has_a_row_without_a_charge
);

const COLUMNS: [&str; 20] = [
    "principal",
    "groups",
    "session_id",
    "agent_id",
    "parent_agent_id",
    "billing_group",
    "model_asked",
    "model",
    "model_sent",
    "upstream",
    "status",
    "input_tokens",
    "output_tokens",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "web_searches",
    "fast",
    "charge",
    "estimated",
];

/// The rows in the order in which the requests began; texts and numbers as they stand.
async fn rows(gateway: &TestGateway) -> Vec<Value> {
    let columns = COLUMNS.join(", ");
    let select = format!("SELECT {columns} FROM usage ORDER BY started_at, id");
    let rows = gateway.database().await.fetch(&select, &[]).await.unwrap();
    let cell = |row: &control::store::Row, column: usize| {
        row.text_or_null(column).map_or_else(|_| json!(row.int_or_null(column).unwrap()), |text| json!(text))
    };
    let object = |row| COLUMNS.iter().enumerate().map(|(at, name)| ((*name).to_owned(), cell(row, at))).collect();
    rows.iter().map(|row| Value::Object(object(row))).collect()
}

async fn a_usage_row_says_who_asked_what_was_used_and_what_it_cost(database: Database) {
    let config = json!({
        "admin": { "billing_group_tag": "team" },
        "models": [{ "id": "house", "upstream_model": { "first": "claude-opus-4-6" } }],
    });
    let mut gateway = TestGateway::setup().on(database).config(config).start().await;
    let usage = json!({
        "input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 30, "speed": "fast",
        "cache_creation": { "ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 50 },
        "server_tool_use": { "web_search_requests": 2 },
    });
    let message = json!({ "type": "message", "role": "assistant", "content": [], "usage": usage });
    gateway.upstream().answer(Answer::json(200, &message));
    let alice = gateway.as_member("alice", &["eng", "ml"]);
    let body = json!({
        "model": "house", "max_tokens": 9, "messages": [], "tags": { "team": "ml" },
        "metadata": { "user_id": json!({ "session_id": "from-the-body" }).to_string() },
    });
    let caller = alice.clone().header("x-claude-code-agent-id", "a-1").header("x-claude-code-parent-agent-id", "a-0");
    assert_eq!(caller.messages(body.to_string()).await.status, 200);

    let named = alice.header("x-claude-code-session-id", "from-the-header").header("x-claude-code-agent-id", "");
    let body = json!({ "model": "Claude-Haiku-4-5", "messages": [], "metadata": body["metadata"] });
    assert_eq!(named.messages(body.to_string()).await.status, 200);
    gateway.stop().await;
    let rows = rows(&gateway).await;
    insta::allow_duplicates! {
        insta::assert_json_snapshot!(rows[0], @r#"
        {
          "agent_id": "a-1",
          "billing_group": "ml",
          "cache_read": 30,
          "cache_write_1h": 50,
          "cache_write_5m": 40,
          "charge": 27890000,
          "estimated": 0,
          "fast": 1,
          "groups": "[\"eng\",\"ml\"]",
          "input_tokens": 10,
          "model": "house",
          "model_asked": "house",
          "model_sent": "claude-opus-4-6",
          "output_tokens": 20,
          "parent_agent_id": "a-0",
          "principal": "alice",
          "session_id": "from-the-body",
          "status": 200,
          "upstream": "first",
          "web_searches": 2
        }
        "#);
    }
    let second = |column: &str| rows[1][column].clone();
    assert_eq!((second("session_id"), second("agent_id")), (json!("from-the-header"), Value::Null));
    assert_eq!(
        (second("model_asked"), second("model")),
        (json!("Claude-Haiku-4-5"), json!("claude-haiku-4-5-20251001"))
    );
    assert_eq!((second("billing_group"), second("parent_agent_id")), (Value::Null, Value::Null));
}

async fn a_request_that_failed_has_a_row_without_a_charge(database: Database) {
    let mut gateway = TestGateway::setup().on(database).start().await;
    gateway.upstream().answer(Answer::error(400, "invalid_request_error", "no"));
    let body = json!({ "model": "claude-haiku-4-5", "messages": [] });
    assert_eq!(gateway.as_user("alice").messages(body.to_string()).await.status, 400);
    gateway.stop().await;
    let row = rows(&gateway).await.remove(0);
    let shown = (&row["status"], &row["upstream"], &row["charge"], &row["estimated"], &row["model_asked"]);
    assert_eq!(shown, (&json!(400), &Value::Null, &json!(0), &json!(0), &json!("claude-haiku-4-5")));
}
