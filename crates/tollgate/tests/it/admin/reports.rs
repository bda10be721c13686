//! `/v1/organizations/usage_report/messages` and `/v1/organizations/cost_report`: what was used, and what it cost.

use serde_json::{Value, json};

use crate::support::database::{Database, Store, on_both_databases};
use crate::support::gateway::{TestGateway, open};

const USAGE: &str = "/v1/organizations/usage_report/messages";
const COST: &str = "/v1/organizations/cost_report";

on_both_databases!(
    usage_is_reported_by_time_and_by_whatever_rows_say,
    cost_is_reported_in_cents_to_the_nano_dollar,
    a_report_goes_on_where_its_page_ends,
);

/// Three requests of November 20th and one of the 22nd.
async fn database(kind: Database) -> Store {
    let store = kind.fresh().await;
    let rows = [
        ("r1", "2026-11-20T10:00:10Z", "alice", Some("eng"), "claude-opus-4-6", 100, 0, 1_234_567),
        ("r2", "2026-11-20T10:59:59Z", "alice", Some("eng"), "claude-haiku-4-5", 300_000, 1, 10_000_000),
        ("r3", "2026-11-20T11:00:00Z", "=bob", None, "claude-opus-4-6", 7, 0, 1),
        ("r4", "2026-11-22T00:00:00Z", "alice", Some("ml"), "claude-opus-4-6", 1, 0, 25_000_000_000),
    ];
    let database = open(&store).await;
    for (id, at, principal, team, model, input, fast, charge) in rows {
        let at: jiff::Timestamp = at.parse().unwrap();
        let insert = "INSERT INTO usage (id, started_at, principal, groups, billing_group, model, upstream, status,
            input_tokens, output_tokens, cache_read, cache_write_5m, cache_write_1h, web_searches, fast, charge, estimated,
            account, day, week, month, charge_input, charge_cache_read, charge_cache_write_5m, charge_cache_write_1h,
            charge_output, charge_web_search)
            VALUES ($1, $2, $3, '[]', $4, $5, 'first', 200, $6, 2, 3, 4, 5, 6, $7, $8, 0, 'user:x', 'd', 'w', 'm', $9, $10, $11, $12,
            $13, $14)";
        let fast: i64 = fast;
        let (input, charge): (i64, i64) = (input, charge);
        let params = [
            id.into(),
            at.as_millisecond().into(),
            principal.into(),
            team.into(),
            model.into(),
            input.into(),
            fast.into(),
            charge.into(),
        ];
        // Of the estimate nobody knows what it is for.
        let parts =
            if id == "r1" { [0; 6] } else { [charge - charge / 2, 0, 0, 0, charge / 4, charge / 2 - charge / 4] };
        let params: Vec<_> = params.into_iter().chain(parts.map(Into::into)).collect();
        database.execute(insert, &params).await.unwrap();
    }
    store
}

async fn read(gateway: &TestGateway, path: &str) -> Value {
    let reply = gateway.auditor().get(path).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

async fn usage_is_reported_by_time_and_by_whatever_rows_say(kind: Database) {
    let gateway = TestGateway::setup().store(database(kind).await).start().await;
    let span = "starting_at=2026-11-20T10:30:00Z&ending_at=2026-11-21T00:00:00Z";
    let day = read(&gateway, &format!("{USAGE}?{span}")).await;
    insta::allow_duplicates! {
        insta::assert_json_snapshot!(day, @r#"
        {
          "data": [
            {
              "ending_at": "2026-11-21T00:00:00Z",
              "results": [
                {
                  "account_id": null,
                  "api_key_id": null,
                  "cache_creation": {
                    "ephemeral_1h_input_tokens": 15,
                    "ephemeral_5m_input_tokens": 12
                  },
                  "cache_read_input_tokens": 9,
                  "context_window": null,
                  "inference_geo": null,
                  "model": null,
                  "output_tokens": 6,
                  "requests": 3,
                  "server_tool_use": {
                    "web_search_requests": 18
                  },
                  "service_account_id": null,
                  "service_tier": null,
                  "session_id": null,
                  "speed": null,
                  "uncached_input_tokens": 300107,
                  "upstream": null,
                  "workspace_id": null
                }
              ],
              "starting_at": "2026-11-20T00:00:00Z"
            }
          ],
          "has_more": false,
          "next_page": null
        }
        "#);
    }
    // In buckets of an hour, by two dimensions; nulls are a word of their own.
    let grouped = "bucket_width=1h&limit=2&group_by[]=workspace_id&group_by[]=speed&group_by[]=api_key_id";
    let hours = read(&gateway, &format!("{USAGE}?{span}&{grouped}")).await;
    let lines: Vec<String> = hours["data"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|bucket| {
            let at = bucket["starting_at"].as_str().unwrap().to_owned();
            let line = move |row: &Value| {
                format!("{at} {} {} {}", row["workspace_id"], row["speed"], row["uncached_input_tokens"])
            };
            bucket["results"].as_array().unwrap().iter().map(line).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(
        lines,
        [
            "2026-11-20T10:00:00Z \"eng\" \"fast\" 300000",
            "2026-11-20T10:00:00Z \"eng\" \"standard\" 100",
            "2026-11-20T11:00:00Z null \"standard\" 7",
        ]
    );
    let total = async |filter: &str| {
        let report = read(&gateway, &format!("{USAGE}?starting_at=2026-11-20T00:00:00Z&{filter}")).await;
        let buckets = report["data"].as_array().unwrap().clone();
        let requests = buckets.iter().flat_map(|bucket| bucket["results"].as_array().unwrap().clone());
        requests.map(|row| row["requests"].as_i64().unwrap()).sum::<i64>()
    };
    let until = "ending_at=2026-11-23T00:00:00Z";
    assert_eq!(total(until).await, 4);
    assert_eq!(total(&format!("{until}&account_ids[]=alice&account_ids[]=nobody")).await, 3);
    assert_eq!(total(&format!("{until}&models[]=claude-opus-4-6&workspace_ids[]=ml")).await, 1);
    assert_eq!(total(&format!("{until}&context_window[]=200k-1M")).await, 1);
    assert_eq!(total(&format!("{until}&speeds[]=fast&upstreams[]=first")).await, 1);
    assert_eq!(total(&format!("{until}&session_ids[]=none")).await, 0);
}

async fn cost_is_reported_in_cents_to_the_nano_dollar(kind: Database) {
    let gateway = TestGateway::setup().store(database(kind).await).start().await;
    let span = "starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-23T00:00:00Z";
    let whole = read(&gateway, &format!("{COST}?{span}")).await;
    let amounts: Vec<Value> =
        whole["data"].as_array().unwrap().iter().map(|bucket| bucket["results"][0]["amount"].clone()).collect();
    assert_eq!(amounts, [json!("1.1234568"), Value::Null, json!("2500")]);

    let by_kind = read(&gateway, &format!("{COST}?{span}&group_by[]=account_id&group_by[]=description&limit=1")).await;
    let lines = by_kind["data"][0]["results"].as_array().unwrap();
    let shown = |line: &Value| {
        let words = ["account_id", "cost_type", "token_type", "context_window", "description", "amount"];
        words.map(|word| line[word].as_str().unwrap_or("null").to_owned()).join(", ")
    };
    insta::allow_duplicates! {
        insta::assert_snapshot!(lines.iter().map(shown).collect::<Vec<_>>().join("\n"), @r"
        =bob, tokens, uncached_input_tokens, 0-200k, claude-opus-4-6 usage - input tokens, 0.0000001
        alice, tokens, uncached_input_tokens, 200k-1M, claude-haiku-4-5 usage - input tokens, 0.5
        alice, tokens, output_tokens, 200k-1M, claude-haiku-4-5 usage - output tokens, 0.25
        alice, web_search, null, 200k-1M, claude-haiku-4-5 usage - web searches, 0.25
        alice, tokens, null, 0-200k, claude-opus-4-6 usage - estimated, 0.1234567
        ");
        insta::assert_json_snapshot!(lines[1], @r#"
        {
          "account_id": "alice",
          "amount": "0.5",
          "context_window": "200k-1M",
          "cost_type": "tokens",
          "currency": "USD",
          "description": "claude-haiku-4-5 usage - input tokens",
          "inference_geo": null,
          "model": "claude-haiku-4-5",
          "requests": null,
          "service_tier": "standard",
          "token_type": "uncached_input_tokens",
          "upstream": null,
          "workspace_id": null
        }
        "#);
    }
    let table = gateway.auditor().get(&format!("{COST}?{span}&group_by[]=account_id&format=csv&limit=1")).await;
    assert_eq!(table.header("content-type"), Some("text/csv;charset=utf-8"));
    assert!(table.header("x-next-page").unwrap().starts_with("page_"));
    insta::allow_duplicates! {
        insta::assert_snapshot!(table.text().replace('\r', ""), @r#"
        account_id,amount,context_window,cost_type,currency,description,ending_at,inference_geo,model,requests,service_tier,starting_at,token_type,upstream,workspace_id
        '=bob,0.0000001,,,USD,,2026-11-21T00:00:00Z,,,1,,2026-11-20T00:00:00Z,,,
        alice,1.1234567,,,USD,,2026-11-21T00:00:00Z,,,2,,2026-11-20T00:00:00Z,,,
        "#);
    }
    let asked = gateway.auditor().header("accept", "text/csv").get(&format!("{USAGE}?{span}")).await;
    assert!(asked.text().starts_with("account_id,api_key_id,"), "{}", asked.text());
}

async fn a_report_goes_on_where_its_page_ends(kind: Database) {
    let gateway = TestGateway::setup().store(database(kind).await).start().await;
    let span = "starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-23T00:00:00Z&limit=2";
    let first = read(&gateway, &format!("{USAGE}?{span}")).await;
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (2, &json!(true)));
    assert_eq!(first["data"][1]["results"], json!([]), "a day without requests");
    let next = first["next_page"].as_str().unwrap();
    let rest = read(&gateway, &format!("{USAGE}?{span}&page={next}")).await;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (1, &json!(false)));
    assert_eq!(rest["data"][0]["starting_at"], "2026-11-22T00:00:00Z");
    assert_eq!((&rest["data"][0]["results"][0]["requests"], &rest["next_page"]), (&json!(1), &Value::Null));

    let mut told = String::new();
    for wrong in [
        "",
        "?starting_at=yesterday",
        "?starting_at=1969-01-01T00:00:00Z",
        "?starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-20T12:00:00Z",
        "?starting_at=2026-11-20T00:00:00Z&bucket_width=1w",
        "?starting_at=2026-11-20T00:00:00Z&limit=32",
        "?starting_at=2026-11-20T00:00:00Z&page=page_x",
        "?starting_at=2026-11-20T00:00:00Z&group_by[]=principal",
        "?starting_at=2026-11-20T00:00:00Z&api_key_ids[]=k",
        "?starting_at=2026-11-20T00:00:00Z&format=xml",
    ] {
        let reply = gateway.auditor().get(&format!("{USAGE}{wrong}")).await;
        told.push_str(&format!("{wrong} {}: {}\n", reply.status.as_u16(), reply.json()["error"]["message"]));
    }
    insta::allow_duplicates! {
        insta::assert_snapshot!(told, @r#"
         400: "starting_at: required, as RFC 3339"
        ?starting_at=yesterday 400: "starting_at: must be a time such as 2026-11-22T00:00:00Z"
        ?starting_at=1969-01-01T00:00:00Z 400: "starting_at: must be a time such as 2026-11-22T00:00:00Z"
        ?starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-20T12:00:00Z 400: "ending_at: must be at least one bucket later than starting_at"
        ?starting_at=2026-11-20T00:00:00Z&bucket_width=1w 400: "bucket_width: must be 1d, 1h, 1m"
        ?starting_at=2026-11-20T00:00:00Z&limit=32 400: "limit: must be a whole number from 1 to 31"
        ?starting_at=2026-11-20T00:00:00Z&page=page_x 400: "page: not a page token of this report"
        ?starting_at=2026-11-20T00:00:00Z&group_by[]=principal 400: "group_by[]: must be one of account_id, api_key_id, context_window, inference_geo, model, service_account_id, service_tier, session_id, speed, upstream, workspace_id"
        ?starting_at=2026-11-20T00:00:00Z&api_key_ids[]=k 400: "api_key_ids[]: this gateway does not tell requests apart by it"
        ?starting_at=2026-11-20T00:00:00Z&format=xml 400: "format: must be json or csv"
        "#);
    }
}
