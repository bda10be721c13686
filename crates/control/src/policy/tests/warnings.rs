//! What an operator is told about policies that are valid.

use serde_json::json;

use super::*;

fn warnings(policies: &Value) -> Vec<String> {
    let all = Policies::compile(config(policies), catalog()).1;
    // Of Claude Desktop a test of its own tells.
    all.iter().filter(|warning| warning.path != "managed").map(Warning::to_string).collect()
}

#[test]
fn policies_that_say_what_they_mean_raise_no_warning() {
    let quiet = json!([
        {"match": {"groups": ["eng"]}, "cli": {"availableModels": ["sonnet"], "model": "claude-sonnet-4-5"}},
        {"match": {"groups": ["ops"]}, "cli": {"availableModels": ["sonnet"], "enforceAvailableModels": true}},
        {"match": {"groups": ["art"]}, "cli": {"permissions": {"deny": ["Bash"]}, "env": {"A": "1"}}},
        {"match": {}, "cli": {"availableModels": ["opus"], "permissions": {"allow": ["Read"]}, "env": {"B": "2"}}},
    ]);
    assert_eq!(warnings(&quiet), Vec::<String>::new());
    assert_eq!(warnings(&Value::Null), Vec::<String>::new());
}

#[test]
fn a_catch_all_above_other_policies_is_named() {
    let early = json!([{"match": {"groups": ["a"]}}, {"match": {}}, {"match": {"groups": ["b"]}}]);
    insta::assert_snapshot!(warnings(&early).join("\n"), @"managed.policies[1].match: matches everyone, so the policies below it are never chosen; move it to the end");
}

#[test]
fn a_policy_that_nobody_can_meet_is_named() {
    insta::assert_snapshot!(warnings(&json!([{"match": {"groups": []}}])).join("\n"), @"managed.policies[0].match: holds an empty list, so this policy is never chosen");
    insta::assert_snapshot!(warnings(&json!([])).join("\n"), @"managed.policies: holds no policy, so nobody receives settings; add one with `match: {}`");
}

#[test]
fn a_list_without_the_clients_default_model_is_named() {
    let lists = json!([
        {"match": {"groups": ["a"]}, "cli": {"availableModels": ["haiku"]}},
        {"match": {"groups": ["b"]}, "cli": {"availableModels": []}},
        {"match": {"groups": ["c"]}, "cli": {"availableModels": ["haiku"], "enforceAvailableModels": false}},
    ]);
    insta::assert_snapshot!(warnings(&lists).join("\n"), @r"
    managed.policies[0].cli.availableModels: leaves out claude-opus-4-7, which a client asks for until its user chooses a model; set `model` or `enforceAvailableModels: true` beside it
    managed.policies[1].cli.availableModels: is empty, so every request is refused; leave the key out to allow every model
    managed.policies[2].cli.availableModels: leaves out claude-opus-4-7, which a client asks for until its user chooses a model; set `model` or `enforceAvailableModels: true` beside it
    ");
}

#[test]
fn keys_of_the_base_that_a_replaced_object_drops_are_named() {
    let replaced = json!([
        {"match": {"groups": ["a"]}, "cli": {"sandbox": {"network": {"allowLocalBinding": true}}}},
        {"match": {"groups": ["b"]}, "cli": {"sandbox": {"enabled": false, "network": {"allowedDomains": []}}}},
        {"match": {}, "cli": {"sandbox": {"enabled": true, "network": {"allowedDomains": ["a.com"]}}}},
    ]);
    insta::assert_snapshot!(warnings(&replaced).join("\n"), @"managed.policies[0].cli.sandbox: replaces the base's `sandbox` whole and so drops `enabled`, `network.allowedDomains`; repeat here what should stay");
}

#[test]
fn what_claude_desktop_would_miss_is_named() {
    let told = |config: Config| -> Vec<String> {
        Policies::compile(config, catalog()).1.iter().map(Warning::to_string).collect()
    };
    let terminal = json!([{"match": {"groups": ["a"]}}, {"match": {}}]);
    insta::assert_snapshot!(told(config(&terminal)).join("\n"), @"managed: no policy has `desktop`, so Claude Desktop is turned away; add it to those that may use Desktop");
    let desktop = json!([{"match": {"groups": ["a"]}, "desktop": {}}, {"match": {}}]);
    assert_eq!(told(config(&desktop)), [""; 0]);
    let code = Config {
        kind: Kind::Code,
        desktop: DesktopConfig { origin: "https://gw.example.com".to_owned(), telemetry: None },
        ..config(&desktop)
    };
    insta::assert_snapshot!(told(code).join("\n"), @r#"managed: the settings under `code` reach Claude Desktop's Code tab only on machines that name this gateway in their own managed settings and reach it over HTTPS on a private network; install {"forceLoginGatewayUrl":"https://gw.example.com","parentSettingsBehavior":"merge"} there"#);
}
