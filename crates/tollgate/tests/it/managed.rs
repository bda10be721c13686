//! What managed clients fetch for themselves: their settings (contract A9) and their models (A10, B3).

use serde_json::{Value, json};

use crate::support::gateway::TestGateway;

fn policies() -> Value {
    json!({ "managed": { "policies": [
        { "match": { "groups": ["contractors"] }, "cli": {
            "availableModels": ["haiku"], "permissions": { "deny": ["WebFetch"] }, "env": { "TEAM": "outside" },
        } },
        { "match": { "groups": ["eng"], "email_domain": "example.com" }, "cli": { "model": "claude-opus-4-8" } },
        { "match": {}, "cli": { "permissions": { "deny": ["Bash(curl:*)"] }, "env": { "TEAM": "all", "LEVEL": 1 } } },
    ] } })
}

#[tokio::test]
async fn each_person_gets_the_settings_of_the_first_policy_that_fits_on_top_of_the_base() {
    let gateway = TestGateway::setup().config(policies()).start().await;
    let served = async |sub, groups: &[&str]| {
        gateway.as_member(sub, groups).get("/managed/settings").await.json()["settings"].clone()
    };
    insta::assert_json_snapshot!(served("carl", &["contractors", "eng"]).await, @r#"
    {
      "availableModels": [
        "haiku"
      ],
      "env": {
        "LEVEL": 1,
        "TEAM": "outside"
      },
      "permissions": {
        "deny": [
          "Bash(curl:*)",
          "WebFetch"
        ]
      }
    }
    "#);
    insta::assert_json_snapshot!(served("alice", &["eng"]).await, @r#"
    {
      "env": {
        "LEVEL": 1,
        "TEAM": "all"
      },
      "model": "claude-opus-4-8",
      "permissions": {
        "deny": [
          "Bash(curl:*)"
        ]
      }
    }
    "#);
    insta::assert_json_snapshot!(served("bob", &[]).await, @r#"
    {
      "env": {
        "LEVEL": 1,
        "TEAM": "all"
      },
      "permissions": {
        "deny": [
          "Bash(curl:*)"
        ]
      }
    }
    "#);
    let events = gateway.audit().take("managed.serve", 3).await;
    let told: Vec<_> =
        events.iter().map(|event| (event["sub"].as_str().unwrap(), event["policy_index"].as_u64().unwrap())).collect();
    assert_eq!(told, [("carl", 0), ("alice", 1), ("bob", 2)]);
}

#[tokio::test]
async fn settings_that_the_client_has_are_not_sent_again() {
    let gateway = TestGateway::setup().config(policies()).start().await;
    let alice = gateway.as_member("alice", &["eng"]);
    let first = alice.get("/managed/settings").await;
    let body = first.json();
    let checksum = body["checksum"].as_str().unwrap();
    let etag = first.header("etag").unwrap();
    assert_eq!((body["uuid"].as_str(), etag), (Some(checksum), format!("\"{checksum}\"").as_str()));
    // serde_json keeps keys sorted, and writes no blanks.
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body["settings"].to_string().as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(checksum, format!("sha256:{hex}"));
    assert_eq!(
        (first.header("vary"), first.header("x-cc-gateway-version")),
        (Some("User-Agent"), Some(env!("CARGO_PKG_VERSION")))
    );
    for known in [etag.to_owned(), format!("W/{etag}"), format!("\"other\", {etag}")] {
        let reply = alice.clone().header("if-none-match", &known).get("/managed/settings").await;
        assert_eq!((reply.status.as_u16(), reply.header("etag"), reply.body.len()), (304, Some(etag), 0), "{known}");
        let event = gateway.audit().take("managed.serve", 1).await.remove(0);
        assert_eq!(event["checksum"], checksum);
    }
    for other in ["\"sha256:0\"", "*", checksum] {
        assert_eq!(alice.clone().header("if-none-match", other).get("/managed/settings").await.status, 200, "{other}");
    }
    assert_eq!(alice.post("/managed/settings", "").await.json(), body);
}

#[tokio::test]
async fn whoever_has_no_settings_is_told_which_kind_of_nothing_it_is() {
    let absent = async |gateway: &TestGateway, agent: &str| {
        let reply = gateway.as_user("bob").header("user-agent", agent).get("/managed/settings").await;
        assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (404, Some("no-store")));
        reply.text().to_owned()
    };
    let cli = "claude-cli/2.1.330 (external, cli)";
    assert_eq!(absent(&TestGateway::start().await, cli).await, "not configured");
    let only_eng = json!({ "managed": { "policies": [{ "match": { "groups": ["eng"] }, "cli": {} }] } });
    let gateway = TestGateway::setup().config(only_eng).start().await;
    assert_eq!(absent(&gateway, cli).await, "no policy matched");
    let gateway = TestGateway::setup().config(policies()).start().await;
    let told = absent(&gateway, "claude-cli/2.1.330 (external, claude-desktop)").await;
    assert!(told.starts_with("not served to Claude Desktop sessions"), "{told}");
    assert!(gateway.audit().waiting("managed.serve").is_empty());
}

#[tokio::test]
async fn each_person_sees_the_models_that_it_may_use() {
    let house =
        json!({ "models": [{ "id": "house", "label": "House", "upstream_model": { "first": "claude-haiku-4-5" } }] });
    let gateway = TestGateway::setup().config(policies()).config(house).start().await;
    let listed = async |groups: &[&str]| {
        let page = gateway.as_member("x", groups).get("/v1/models?limit=1").await.json();
        assert_eq!(
            (&page["has_more"], &page["first_id"], &page["last_id"]),
            (&json!(false), &Value::Null, &Value::Null)
        );
        let names: Vec<String> =
            page["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect();
        names
    };
    insta::assert_compact_json_snapshot!(listed(&["contractors"]).await, @r#"["claude-haiku-4-5-20251001", "claude-haiku-5-5"]"#);
    let all = listed(&["eng"]).await;
    assert_eq!((all[0].as_str(), all.len()), ("house", 16));
    let page = gateway.as_member("x", &["eng"]).get("/v1/models").await.json();
    insta::assert_json_snapshot!(page["data"].as_array().unwrap()[..3], @r#"
    [
      {
        "display_name": "House",
        "id": "house",
        "type": "model"
      },
      {
        "display_name": "claude-opus-4-6",
        "id": "claude-opus-4-6",
        "type": "model"
      },
      {
        "display_name": "claude-sonnet-4-5-20250929",
        "id": "claude-sonnet-4-5-20250929",
        "type": "model"
      }
    ]
    "#);
}

#[tokio::test]
async fn the_models_of_a_policy_are_enforced_and_not_only_listed() {
    let gateway = TestGateway::setup().config(policies()).start().await;
    let carl = gateway.as_member("carl", &["contractors"]);
    let ask = async |model: &str| {
        let reply = carl.messages(json!({ "model": model, "max_tokens": 1 }).to_string()).await;
        (reply.status.as_u16(), reply.json()["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ask("claude-haiku-4-5").await.0, 200);
    assert_eq!(
        ask("claude-sonnet-4-6").await,
        (400, "model claude-sonnet-4-6 is not in your role's availableModels allowlist".to_owned())
    );
    assert_eq!(gateway.upstream().requests().len(), 1);
}

#[tokio::test]
async fn a_model_of_ten_thousand_letters_is_refused_like_any_other() {
    let gateway = TestGateway::setup().config(policies()).start().await;
    let long = "x".repeat(10_000);
    for (groups, whose) in [(&["contractors"][..], "your role's availableModels"), (&["eng"], "the operator's model")] {
        let body = json!({ "model": long, "max_tokens": 1 }).to_string();
        let reply = gateway.as_member("x", groups).messages(body).await;
        let told = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!((reply.status.as_u16(), told), (400, format!("model {long} is not in {whose} allowlist")));
    }
    assert!(gateway.upstream().requests().is_empty());
}

#[tokio::test]
async fn only_models_that_some_upstream_serves_to_the_caller_are_listed() {
    let gateway = TestGateway::setup()
        .upstream(json!({ "name": "first", "models": ["claude-opus-4-8"] }))
        .upstream(json!({ "name": "second", "models": ["claude-haiku-4-5"], "groups": ["vip"] }))
        .start()
        .await;
    let listed = async |groups: &[&str]| {
        let page = gateway.as_member("x", groups).get("/v1/models").await.json();
        let ids = page["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(listed(&["eng"]).await, ["claude-opus-4-8"]);
    assert_eq!(listed(&["vip"]).await, ["claude-haiku-4-5-20251001", "claude-opus-4-8"]);
}

#[tokio::test]
async fn claude_desktop_learns_who_calls_what_it_may_and_how_long() {
    let config = json!({
        "managed": { "policies": [
            { "match": { "groups": ["eng"] }, "code": {
                "availableModels": ["claude-opus-4-8"], "permissions": { "deny": ["Write", "Edit(*)"] },
            } },
            { "match": {}, "code": {}, "desktop": { "disabledBuiltinTools": ["WebSearch"] } },
        ] },
        "admin": { "admin_groups": ["finops"] },
        "session": { "ttl_hours": 2 },
    });
    let gateway = TestGateway::setup().config(config).start().await;
    let reply = gateway.as_member("ann", &["eng", "finops"]).get("/user/bootstrap").await;
    assert_eq!((reply.status.as_u16(), reply.header("x-gateway-spend-admin")), (200, Some("true")));
    let mut document = reply.json();
    let expires = document["expiresAt"].take().as_i64().unwrap()
        - control::clock::Clock::now(&control::clock::SystemClock).as_second();
    assert!((7190..=7200).contains(&expires), "{expires}");
    assert_eq!(document["inferenceGatewayBaseUrl"].take(), gateway.url());
    insta::assert_json_snapshot!(document, @r#"
    {
      "disabledBuiltinTools": [
        "Write",
        "WebSearch"
      ],
      "expiresAt": null,
      "inferenceCredentialKind": "interactive",
      "inferenceGatewayBaseUrl": null,
      "inferenceGatewayManagedClaudeCode": true,
      "inferenceModels": [
        {
          "name": "claude-opus-4-8",
          "supports1m": true
        }
      ],
      "inferenceProvider": "gateway"
    }
    "#);
    let event = gateway.audit().next("desktop_bootstrap.serve").await;
    assert_eq!((&event["sub"], &event["policy_index"]), (&json!("ann"), &json!(0)));
    let reply = gateway.as_user("bob").get("/user/bootstrap").await;
    assert_eq!(reply.header("x-gateway-spend-admin"), Some("false"));
}
