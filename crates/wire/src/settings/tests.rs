#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::known::TABLE;
use super::*;
use crate::shape::Severity;

fn map(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn merged(base: Value, policy: Value) -> Value {
    merge(&map(base), &map(policy)).into()
}

#[test]
fn lists_of_denials_add_up_and_allowances_are_replaced() {
    let base = json!({
        "permissions": {"allow": ["A"], "deny": ["D1", "D2"], "ask": ["Q"], "additionalDirectories": ["/a"],
                        "disableBypassPermissionsMode": "disable"},
        "availableModels": ["opus"],
        "disabledMcpjsonServers": ["s1"], "deniedMcpServers": [{"serverName": "x"}], "blockedMarketplaces": [1]
    });
    let policy = json!({
        "permissions": {"allow": ["B"], "deny": ["D2", "D3"], "ask": ["Q", "R"], "additionalDirectories": ["/b"], "defaultMode": "plan"},
        "availableModels": ["haiku"],
        "disabledMcpjsonServers": ["s2", "s1"], "deniedMcpServers": [{"serverName": "x"}, {"serverName": "y"}], "blockedMarketplaces": []
    });
    assert_eq!(
        merged(base, policy),
        json!({
            "permissions": {"allow": ["B"], "deny": ["D1", "D2", "D3"], "ask": ["Q", "R"], "additionalDirectories": ["/b"],
                            "disableBypassPermissionsMode": "disable", "defaultMode": "plan"},
            "availableModels": ["haiku"],
            "disabledMcpjsonServers": ["s1", "s2"], "deniedMcpServers": [{"serverName": "x"}, {"serverName": "y"}], "blockedMarketplaces": [1]
        })
    );
}

#[test]
fn maps_merge_shallowly_hooks_by_event_and_everything_else_is_replaced_whole() {
    let base = json!({
        "env": {"A": "1", "B": "2"}, "modelOverrides": {"m": "x"}, "skillOverrides": {"s": {"a": 1}},
        "hooks": {"PreToolUse": [{"hooks": [1]}], "Stop": [2]},
        "sandbox": {"enabled": true, "network": {}}, "enabledPlugins": {"p": true}, "statusLine": {"a": 1}, "future": {"a": 1}
    });
    let policy = json!({
        "env": {"B": 3}, "modelOverrides": {"n": "y"}, "skillOverrides": {"s": {"b": 2}},
        "hooks": {"PreToolUse": [{"hooks": [1]}, {"hooks": [9]}], "SessionEnd": [4]},
        "sandbox": {"enabled": false}, "enabledPlugins": {}, "statusLine": {"b": 2}, "future": {"b": 2}
    });
    assert_eq!(
        merged(base, policy),
        json!({
            "env": {"A": "1", "B": 3}, "modelOverrides": {"m": "x", "n": "y"}, "skillOverrides": {"s": {"b": 2}},
            "hooks": {"PreToolUse": [{"hooks": [1]}, {"hooks": [9]}], "Stop": [2], "SessionEnd": [4]},
            "sandbox": {"enabled": false}, "enabledPlugins": {}, "statusLine": {"b": 2}, "future": {"b": 2}
        })
    );
}

#[test]
fn a_value_of_an_unexpected_type_is_replaced() {
    assert_eq!(
        merged(
            json!({"permissions": 1, "env": {}, "hooks": [], "deniedMcpServers": {}}),
            json!({"permissions": {"deny": ["D"]}, "env": null, "hooks": {}, "deniedMcpServers": [1]})
        ),
        json!({"permissions": {"deny": ["D"]}, "env": null, "hooks": {}, "deniedMcpServers": [1]})
    );
}

/// Pairs printed by Python's `json.dumps(json.loads(left), sort_keys=True, separators=(',', ':'), ensure_ascii=False)`.
#[test]
fn the_canonical_text_is_that_of_python() {
    for (document, canonical) in [
        ("{}", "{}"),
        (
            r#"{ "b": [ ], "a": { }, "A": null, "é": true, "Z": false }"#,
            r#"{"A":null,"Z":false,"a":{},"b":[],"é":true}"#,
        ),
        (r#"{"\ufb01":1,"\ud83d\ude00":2,"~":3}"#, "{\"~\":3,\"ﬁ\":1,\"😀\":2}"),
        (r#""\u0000\u001f\u007f\b\f\n\r\t\"\\\/\u2028""#, "\"\\u0000\\u001f\u{7f}\\b\\f\\n\\r\\t\\\"\\\\/\u{2028}\""),
        (
            "[1, 0, 9007199254740993, 18446744073709551615, -9223372036854775808]",
            "[1,0,9007199254740993,18446744073709551615,-9223372036854775808]",
        ),
        ("[0.5, 1.0, -0.0, 100.25, 0.1, 3.14159]", "[0.5,1.0,-0.0,100.25,0.1,3.14159]"),
        (
            "[1e15, 123456789012345680.0, 1e16, 1e22, 1.5e300]",
            "[1000000000000000.0,1.2345678901234568e+17,1e+16,1e+22,1.5e+300]",
        ),
        ("[0.001, 0.0001, 0.00001, 1.234e-5, 5e-324, -2.5e-10]", "[0.001,0.0001,1e-05,1.234e-05,5e-324,-2.5e-10]"),
    ] {
        let value: Value = serde_json::from_str(document).unwrap();
        assert_eq!(canonical_json(&value), canonical);
    }
}

fn said(document: Value) -> Vec<(String, Severity)> {
    check(&map(document)).into_iter().map(|finding| (finding.path, finding.severity)).collect()
}

fn error(path: &str) -> (String, Severity) {
    (path.to_owned(), Severity::Error)
}

fn warning(path: &str) -> (String, Severity) {
    (path.to_owned(), Severity::Warning)
}

#[test]
fn a_usual_policy_has_nothing_to_say_about() {
    let document = json!({
        "$schema": "https://json.schemastore.org/claude-code-settings.json",
        "availableModels": ["sonnet", "whatever-id"], "model": "sonnet", "enforceAvailableModels": true, "cleanupPeriodDays": 20,
        "permissions": {
            "allow": ["Bash", "Bash(npm run test:*)", "Read(~/.zshrc)", "mcp__github", "mcp__github__get issue", "WebFetch(domain:x.org)", "Bash(echo (a) b)"],
            "deny": ["Read(./.env)", "mcp__*"], "ask": [], "defaultMode": "plan", "disableBypassPermissionsMode": "disable", "somethingNew": 1
        },
        "env": {"A": "x", "B": 3, "C": true},
        "hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "x"}]}], "Stop": [{"hooks": []}]},
        "forceLoginMethod": "gateway", "forceLoginOrgUUID": ["a"], "sandbox": {"enabled": true}, "managedMcpServers": {},
        "modelPricing": {"multiplier": 0.5}
    });
    assert_eq!(check(&map(document)), []);
}

#[test]
fn a_known_key_of_the_wrong_type_is_an_error_that_says_the_type() {
    let findings = check(&map(
        json!({"availableModels": "opus", "env": [], "verbose": "yes", "cleanupPeriodDays": "3", "model": null}),
    ));
    assert!(findings.iter().all(|finding| finding.severity == Severity::Error));
    let messages: Vec<_> = findings.iter().map(|finding| format!("{} {}", finding.path, finding.message)).collect();
    for expected in [
        "availableModels must be a list of strings",
        "env must be an object",
        "verbose must be true or false",
        "cleanupPeriodDays must be a whole number from 1",
        "model must be a string",
    ] {
        assert!(messages.iter().any(|message| message == expected), "{expected}");
    }
    assert_eq!(said(json!({"availableModels": ["a", 1]})), [error("availableModels[1]")]);
}

#[test]
fn a_mistyped_key_is_an_error_and_a_new_one_a_warning() {
    for (typed, meant) in [
        ("availablemodels", "availableModels"),
        ("avialableModels", "availableModels"),
        ("permission", "permissions"),
        ("hook", "hooks"),
        ("enforceAvailableModel", "enforceAvailableModels"),
    ] {
        let finding = check(&map(json!({typed: 1}))).remove(0);
        assert_eq!(
            (finding.severity, finding.message),
            (Severity::Error, format!("is not a settings key; did you mean {meant}?"))
        );
    }
    for new in ["quantumMode", "x", "toolBudget"] {
        assert_eq!(said(json!({new: 1})), [warning(new)]);
    }
    assert_eq!(said(json!({"permissions": {"denny": []}})), [error("permissions.denny")]);
    assert_eq!(said(json!({"hooks": {"PreToolUs": []}})), [error("hooks.PreToolUs")]);
    assert_eq!(said(json!({"hooks": {"OnFullMoon": []}})), [error("hooks.OnFullMoon")]);
}

#[test]
fn mcp_servers_are_pointed_to_their_place() {
    let findings = check(&map(json!({"mcpServers": {}})));
    assert_eq!(findings[0].severity, Severity::Error);
    assert!(findings[0].message.contains("managedMcpServers"));
}

#[test]
fn a_rule_that_could_never_match_is_an_error() {
    for rule in ["", " Bash", "Bash ", "(x)", "Bash(", "Bash(x", "Bash)", "Bash()", "bash(rm:*)", "read"] {
        assert_eq!(said(json!({"permissions": {"deny": ["Read", rule]}})), [error("permissions.deny[1]")], "{rule:?}");
    }
    assert_eq!(said(json!({"permissions": {"allow": ["mcp__a__b(x)"]}})), [error("permissions.allow[0]")]);
    assert_eq!(said(json!({"permissions": {"ask": "Bash"}})), [error("permissions.ask")]);
    assert_eq!(said(json!({"permissions": {"deny": ["Bash", 1]}})), [error("permissions.deny[1]")]);
}

#[test]
fn environment_values_and_hooks_are_looked_into() {
    assert_eq!(said(json!({"env": {"A": null, "B": [], "C": {}}})), [error("env.A"), error("env.B"), error("env.C")]);
    for matchers in [json!({}), json!("x")] {
        assert_eq!(said(json!({"hooks": {"Stop": matchers}})), [error("hooks.Stop")]);
    }
    for (matcher, place) in [
        (json!(1), ""),
        (json!({}), ""),
        (json!({"hooks": {}}), ".hooks"),
        (json!({"hooks": [], "matcher": 3}), ".matcher"),
        (json!({"hooks": ["x"]}), ".hooks[0]"),
        (json!({"hooks": [{}]}), ".hooks[0]"),
        (json!({"hooks": [{"type": "command"}]}), ".hooks[0]"),
        (json!({"hooks": [{"type": "shell", "command": "x"}]}), ".hooks[0].type"),
        (json!({"hooks": [{"type": "http", "url": "https://x", "headers": {"a": 1}}]}), ".hooks[0].headers.a"),
    ] {
        assert_eq!(
            said(json!({"hooks": {"Stop": [{"hooks": []}, matcher.clone()]}})),
            [error(&format!("hooks.Stop[1]{place}"))],
            "{matcher}"
        );
    }
}

#[test]
fn a_wrong_type_is_named_however_deep_it_stands() {
    let findings = check(&map(json!({
        "sandbox": {"enabled": "yes", "network": {"allowedDomains": "x", "futureKey": 1}, "filesystem": {"denyRead": [1]}},
        "enabledPlugins": {"a@b": 3}, "statusLine": {"type": "x"}, "allowedMcpServers": [{"serverName": 3}, {}],
        "managedMcpServers": {"a": {}, "b": {"type": "stdio", "command": "x"}, "c": {"type": "http", "url": "https://x"}},
        "strictKnownMarketplaces": [{"source": "github"}, {"source": "floppy"}], "permissions": {"defaultMode": "pln"},
        "extraKnownMarketplaces": {"m": {"source": {"source": "git", "url": 1}}}, "spinnerVerbs": {"mode": "add"},
        "skillOverrides": {"s": "maybe"}, "effortLevel": "huge", "disableAutoMode": "yes", "modelOverrides": {"a": 1},
    })));
    let told: Vec<String> = findings.iter().map(|f| format!("{:?} {}: {}", f.severity, f.path, f.message)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    Error allowedMcpServers[0].serverName: must be a string
    Error allowedMcpServers[1]: needs serverName, a string
    Error disableAutoMode: must be disable
    Warning effortLevel: "huge" is not a word this version knows; it is served as it is
    Error enabledPlugins.a@b: must be true or false or a list of strings
    Error extraKnownMarketplaces.m.source.url: must be a string
    Error managedMcpServers.a: needs type: http or sse
    Error managedMcpServers.b.type: must be http or sse
    Error modelOverrides.a: must be a string
    Error permissions.defaultMode: "pln" is not known here; did you mean plan?
    Error sandbox.enabled: must be true or false
    Error sandbox.filesystem.denyRead[0]: must be a string
    Error sandbox.network.allowedDomains: must be a list of strings
    Warning sandbox.network.futureKey: is not a key this version knows; it is served as it is
    Warning skillOverrides.s: "maybe" is not a word this version knows; it is served as it is
    Error spinnerVerbs: needs verbs, a list of strings
    Warning spinnerVerbs.mode: "add" is not a word this version knows; it is served as it is
    Error statusLine: needs command, a string
    Error statusLine.type: must be command
    Error strictKnownMarketplaces[0]: needs repo, a string
    Error strictKnownMarketplaces[1].source: must be directory or file or git or github or hostPattern or npm or pathPattern or settings or url
    "#);
}

#[test]
fn a_key_that_only_looks_like_a_known_one_is_refused() {
    for (typed, meant) in [
        ("аvаilаblеМоdеls", "availableModels"),
        ("permissions\u{200b}", "permissions"),
        ("ｅｎｖ", "env"),
        ("hооks", "hooks"),
    ] {
        let finding = check(&map(json!({typed: 1}))).remove(0);
        let told = format!("is not a settings key; did you mean {meant}?");
        assert_eq!((finding.severity, finding.message), (Severity::Error, told), "{typed}");
    }
    assert_eq!(said(json!({"設定": 1})), [error("設定")]);
    assert_eq!(said(json!({"permissions": {"dеny": []}})), [error("permissions.dеny")]);
    assert_eq!(said(json!({"x".repeat(1_000_000): 1})), [warning(&"x".repeat(1_000_000))]);
}

#[test]
fn the_table_is_read_whole() {
    assert!(TABLE.keys.fields.len() > 130, "{}", TABLE.keys.fields.len());
    let kinds = ["env", "permissions", "hooks", "deniedMcpServers", "sandbox", "new"].map(merge_of);
    use MergeKind::{Hooks, Permissions, Replace, Shallow, Union};
    assert_eq!(kinds, [Shallow, Permissions, Hooks, Union, Replace, Replace]);
}

fn document() -> impl Strategy<Value = Map<String, Value>> {
    let key = prop::sample::select(vec![
        "permissions",
        "env",
        "hooks",
        "deniedMcpServers",
        "sandbox",
        "new",
        "deny",
        "allow",
    ]);
    let leaf =
        prop_oneof![any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from), Just(Value::Null)];
    let value = leaf.prop_recursive(3, 20, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..4).prop_map(|members| {
                Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    });
    let top = prop::sample::select(vec!["permissions", "env", "hooks", "deniedMcpServers", "sandbox", "new"]);
    prop::collection::vec((top, value), 0..6)
        .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

proptest! {
    #[test]
    fn merging_keeps_every_key_and_settles(base in document(), policy in document()) {
        let once = merge(&base, &policy);
        prop_assert!(base.keys().chain(policy.keys()).all(|key| once.contains_key(key)));
        let twice = merge(&once, &policy);
        prop_assert_eq!(&merge(&twice, &policy), &twice);
        prop_assert_eq!(&merge(&Map::new(), &policy), &policy);
        prop_assert_eq!(&merge(&base, &Map::new()), &base);
    }

    #[test]
    fn the_canonical_text_reads_back_as_the_same_document(document in document()) {
        let value = Value::Object(document);
        let canonical = canonical_json(&value);
        prop_assert_eq!(&serde_json::from_str::<Value>(&canonical).unwrap(), &value);
    }

    #[test]
    fn any_document_can_be_checked(document in document()) {
        let _ = check(&document);
    }
}
