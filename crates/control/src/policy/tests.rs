#![expect(clippy::unwrap_used, reason = "tests")]

mod documents;
mod warnings;

use serde_json::json;

use super::*;

/// `[{"match": {"groups": [..], "email_domain": [..]}, "cli": {..}}, ..]` as the configuration would read it.
fn config(policies: &Value) -> Config {
    let names = |list: &Value| list.as_array().map(|_| permit::strings(list));
    let entry = |(index, entry): (usize, &Value)| PolicyConfig {
        path: format!("managed.policies[{index}]"),
        document_path: format!("managed.policies[{index}].cli"),
        groups: names(&entry["match"]["groups"]),
        email_domains: names(&entry["match"]["email_domain"]),
        settings: entry["cli"].as_object().cloned(),
        desktop: entry["desktop"].as_object().cloned(),
    };
    Config {
        policies: policies.as_array().map(|list| list.iter().enumerate().map(entry).collect()),
        ..Config::default()
    }
}

fn catalog() -> Arc<Catalog> {
    Arc::new(Catalog::new(Vec::new(), true).unwrap())
}

fn compile(config: Config) -> Policies {
    Policies::compile(config, catalog()).0
}

fn principal(email: Option<&str>, groups: &[&str]) -> Principal {
    Principal {
        sub: "sub-1".to_owned(),
        email: email.map(str::to_owned),
        name: None,
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    }
}

fn served(selection: Selection<'_>) -> &Served {
    match selection {
        Selection::Serve(served) => served,
        other => unreachable!("{other:?}"),
    }
}

fn settings(served: &Served) -> Value {
    let body: Value = serde_json::from_slice(&served.body).unwrap();
    body["settings"].clone()
}

#[test]
fn the_first_policy_that_matches_is_served() {
    let policies = compile(config(&json!([
        {"match": {"groups": ["eng"]}, "cli": {"model": "first"}},
        {"match": {"groups": ["ops", "eng"]}, "cli": {"model": "second"}},
        {"match": {}, "cli": {"model": "rest"}},
    ])));
    let index = |groups: &[&str]| served(policies.select(&principal(None, groups))).index;
    assert_eq!(index(&["ops", "eng"]), Some(0));
    assert_eq!(index(&["ops"]), Some(1));
    assert_eq!(index(&[]), Some(2));
}

#[test]
fn the_domain_is_what_follows_the_last_at_sign_in_any_letter_case() {
    let policies = compile(config(&json!([{"match": {"email_domain": ["example.com"]}, "cli": {}}])));
    let matches = |email| matches!(policies.select(&principal(email, &[])), Selection::Serve(_));
    assert!(matches(Some("Ann@EXAMPLE.com")));
    assert!(matches(Some("\"odd@other.org\"@example.com")));
    assert!(!matches(Some("ann@example.com@other.org")));
    assert!(!matches(Some("example.com")));
    assert!(!matches(None));
}

#[test]
fn a_catch_all_that_stands_first_also_wins() {
    let policies = compile(config(&json!([
        {"match": {}, "cli": {"model": "everyone"}},
        {"match": {"groups": ["eng"]}, "cli": {"model": "eng"}},
    ])));
    assert_eq!(served(policies.select(&principal(None, &["eng"]))).index, Some(0));
}

#[test]
fn without_policies_only_telemetry_is_served() {
    let telemetry_env = BTreeMap::from([("CLAUDE_CODE_ENABLE_TELEMETRY".to_owned(), "1".to_owned())]);
    let policies = compile(Config { telemetry_env, ..Config::default() });
    let served = served(policies.select(&principal(None, &[])));
    assert_eq!(served.index, None);
    assert_eq!(settings(served), json!({"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": "1"}}));
}

#[test]
fn whom_no_policy_matches_receives_no_telemetry_settings_either() {
    let telemetry_env = BTreeMap::from([("CLAUDE_CODE_ENABLE_TELEMETRY".to_owned(), "1".to_owned())]);
    let eng_only = config(&json!([{"match": {"groups": ["eng"]}, "cli": {}}]));
    let policies = compile(Config { telemetry_env, ..eng_only });
    assert!(matches!(policies.select(&principal(None, &["ops"])), Selection::NoMatch));
    assert!(matches!(compile(Config::default()).select(&principal(None, &["ops"])), Selection::NotConfigured));
}

#[test]
fn the_role_refuses_before_the_catalogue_does() {
    let policies = compile(config(&json!([{"match": {}, "cli": {"availableModels": ["sonnet"]}}])));
    let ask = |model: &str| policies.permit(&principal(None, &[]), model);
    assert_eq!(ask("claude-sonnet-4-5").unwrap().model().id, "claude-sonnet-4-5-20250929");
    assert_eq!(ask("claude-opus-4-8").unwrap_err(), Denied::Role("claude-opus-4-8".to_owned()));
    assert_eq!(ask("no-such-model").unwrap_err(), Denied::Role("no-such-model".to_owned()));
    // The family admits the string, and no model is called that.
    assert_eq!(ask("sonnet").unwrap_err(), Denied::Catalog("sonnet".to_owned()));
}

#[test]
fn a_refusal_is_told_in_the_contracts_words() {
    let role = Denied::Role("m".to_owned());
    let operator = Denied::Catalog("m".to_owned());
    assert_eq!(role.to_string(), "model m is not in your role's availableModels allowlist");
    assert_eq!(operator.to_string(), "model m is not in the operator's model allowlist");
}

#[test]
fn an_empty_list_allows_nothing_and_no_list_allows_the_whole_catalogue() {
    let policies = compile(config(&json!([
        {"match": {"groups": ["none"]}, "cli": {"availableModels": []}},
        {"match": {"groups": ["broken"]}, "cli": {"availableModels": "opus"}},
        {"match": {"groups": ["all"]}, "cli": {}},
    ])));
    for group in ["none", "broken"] {
        let nobody = principal(None, &[group]);
        assert_eq!(policies.models(&nobody).count(), 0, "{group}");
        assert!(policies.permit(&nobody, "claude-opus-4-8").is_err(), "{group}");
    }
    for groups in [&["all"][..], &["unmatched"]] {
        let anybody = principal(None, groups);
        assert_eq!(policies.models(&anybody).count(), catalog().listed().count(), "{groups:?}");
        assert!(policies.permit(&anybody, "claude-opus-4-8").is_ok(), "{groups:?}");
    }
}

#[test]
fn models_keep_the_catalogues_order() {
    let list = json!(["claude-opus-4-8", "claude-haiku-4-5", "claude-opus-4-6"]);
    let policies = compile(config(&json!([{"match": {}, "cli": {"availableModels": list}}])));
    let ids: Vec<_> = policies.models(&principal(None, &[])).map(|model| model.id.clone()).collect();
    assert_eq!(ids, ["claude-opus-4-6", "claude-haiku-4-5-20251001", "claude-opus-4-8"]);
}

#[test]
fn an_inherited_list_binds_like_an_own_one() {
    let policies = compile(config(&json!([
        {"match": {"groups": ["eng"]}, "cli": {"model": "claude-opus-4-8"}},
        {"match": {"groups": ["bare"]}},
        {"match": {}, "cli": {"availableModels": ["opus"]}},
    ])));
    for groups in [&["eng"][..], &["bare"], &[]] {
        let caller = principal(None, groups);
        assert!(policies.permit(&caller, "claude-opus-4-8").is_ok(), "{groups:?}");
        assert!(policies.permit(&caller, "claude-sonnet-4-5").is_err(), "{groups:?}");
    }
}

mod desktop;
mod explaining;
