//! What Claude Desktop receives.

use serde_json::json;

use super::*;

fn with_desktop(policies: &Value, kind: Kind, telemetry: bool) -> Policies {
    let telemetry = telemetry.then(|| vec![("team".to_owned(), "x".to_owned())]);
    let desktop = DesktopConfig { origin: "https://gw.example.com".to_owned(), telemetry };
    compile(Config { kind, desktop, ..config(policies) })
}

fn document(policies: &Policies, caller: &Principal) -> Value {
    let DesktopSelection::Serve(bootstrap) = policies.select_desktop(caller) else {
        unreachable!("{:?}", policies.select_desktop(caller))
    };
    let models = policies.models(caller).map(AsRef::as_ref);
    serde_json::from_slice(&bootstrap.body(caller, models, 1_795_374_199)).unwrap()
}

#[test]
fn the_document_says_where_to_go_who_is_calling_and_what_may_be_used() {
    let policies = json!([
        {"match": {"groups": ["eng"]}, "cli": {
            "availableModels": ["claude-opus-4-8", "claude-haiku-4-5"], "permissions": {"deny": ["Write", "Bash(rm:*)"]},
        }, "desktop": {"banner": {"enabled": true, "text": "pilot"}, "disabledBuiltinTools": ["Glob"]}},
        {"match": {}, "cli": {"sandbox": {"network": {"allowedDomains": ["a.example.com"]}}},
         "desktop": {"disabledBuiltinTools": ["WebSearch"], "autoModeEnabled": false}},
    ]);
    let policies = with_desktop(&policies, Kind::Code, true);
    let ann = principal(Some("ann@example.com"), &["eng", "ops"]);
    insta::assert_snapshot!(format!("{:#}", document(&policies, &ann)), @r#"
    {
      "autoModeEnabled": false,
      "banner": {
        "enabled": true,
        "text": "pilot"
      },
      "coworkEgressAllowedHosts": [
        "a.example.com"
      ],
      "disabledBuiltinTools": [
        "Write",
        "WebSearch",
        "Glob"
      ],
      "expiresAt": 1795374199,
      "inferenceCredentialKind": "interactive",
      "inferenceGatewayBaseUrl": "https://gw.example.com",
      "inferenceGatewayManagedClaudeCode": true,
      "inferenceModels": [
        {
          "name": "claude-haiku-4-5-20251001"
        },
        {
          "name": "claude-opus-4-8",
          "supports1m": true
        }
      ],
      "inferenceProvider": "gateway",
      "otlpEndpoint": "https://gw.example.com",
      "otlpProtocol": "http/protobuf",
      "otlpResourceAttributes": {
        "enduser.id": "ann@example.com",
        "enduser.sub": "sub-1",
        "team": "x",
        "user.email": "ann@example.com",
        "user.groups": "eng,ops"
      }
    }
    "#);
}

#[test]
fn a_terminal_policy_without_telemetry_says_less() {
    let policies =
        with_desktop(&json!([{"match": {}, "cli": {"availableModels": []}, "desktop": {}}]), Kind::Cli, false);
    assert_eq!(
        document(&policies, &principal(None, &[])),
        json!({
            "inferenceProvider": "gateway", "inferenceGatewayBaseUrl": "https://gw.example.com",
            "inferenceCredentialKind": "interactive", "inferenceModels": [], "expiresAt": 1_795_374_199,
        })
    );
}

#[test]
fn each_kind_of_nothing_is_told_apart() {
    let kinds = |policies: &Value| {
        let policies = with_desktop(policies, Kind::Cli, false);
        ["eng", "ops", "none"].map(|group| match policies.select_desktop(&principal(None, &[group])) {
            DesktopSelection::NotConfigured => "not configured",
            DesktopSelection::NoMatch => "no match",
            DesktopSelection::NotOptedIn => "not opted in",
            DesktopSelection::Serve(_) => "served",
        })
    };
    let two = json!([{"match": {"groups": ["eng"]}, "desktop": {}}, {"match": {"groups": ["ops"]}}]);
    assert_eq!(kinds(&two), ["served", "not opted in", "no match"]);
    let base = json!([{"match": {"groups": ["eng"]}, "cli": {}}, {"match": {}, "desktop": {}}]);
    assert_eq!(kinds(&base), ["served"; 3]);
    assert_eq!(kinds(&json!([{"match": {}}])), ["not configured"; 3]);
    assert_eq!(kinds(&Value::Null), ["not configured"; 3]);
}

#[test]
fn names_that_would_be_read_as_other_names_are_left_out() {
    let policies = with_desktop(&json!([{"match": {}, "desktop": {}}]), Kind::Cli, true);
    let told = |email: Option<&str>, sub: &str, groups: &[&str]| {
        let caller = Principal { sub: sub.to_owned(), ..principal(email, groups) };
        document(&policies, &caller)["otlpResourceAttributes"].clone()
    };
    let email = Some("a@example.com");
    assert_eq!(
        told(email, "s", &["a b", "ü", "x%y\""]),
        json!({"team": "x", "enduser.id": "a@example.com", "user.email": "a@example.com", "enduser.sub": "s",
               "user.groups": "a b,ü,x%y\""})
    );
    for group in ["a,b", "c=d"] {
        assert_eq!(told(email, "s", &["eng", group]).get("user.groups"), None, "{group}");
    }
    assert_eq!(
        told(email, "s,1", &[]),
        json!({"team": "x", "enduser.id": "a@example.com", "user.email": "a@example.com"})
    );
    assert_eq!(told(None, "s=1", &[]), json!({"team": "x", "enduser.id": "s=1"}));
}
