//! Where each setting comes from.

use serde_json::json;

use super::*;

fn told(explanation: &Explanation) -> String {
    let entries = |entries: &Option<Vec<Entry>>| match entries {
        None => "none".to_owned(),
        Some(entries) => {
            let line = |entry: &Entry| format!("  {} = {} ({})", entry.path, entry.value, entry.origin.name());
            entries.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    };
    format!(
        "policy {:?} over {:?}, passed over {:?}\nsettings\n{}\ndesktop\n{}",
        explanation.policy,
        explanation.base,
        explanation.passed_over,
        entries(&explanation.settings),
        entries(&explanation.desktop)
    )
}

fn both() -> Config {
    let policies = config(&json!([
        {"match": {"groups": ["ops"]}, "cli": {}},
        {"match": {"groups": ["eng"], "email_domain": ["other.org"]}},
        {"match": {"groups": ["eng"]}, "cli": {
            "permissions": {"deny": ["Write"], "allow": ["Read"]}, "env": {"B": "own"}, "sandbox": {}, "model": "opus",
        }, "desktop": {"disabledBuiltinTools": ["Glob"], "banner": {}}},
        {"match": {}, "cli": {
            "permissions": {"deny": ["Bash"], "defaultMode": "plan"}, "env": {"A": "base", "B": "base"}, "sandbox": {"enabled": true},
            "hooks": {"Stop": []}, "deniedMcpServers": [],
        }, "desktop": {"disabledBuiltinTools": ["WebSearch"], "autoModeEnabled": true}},
    ]));
    let telemetry_env = BTreeMap::from([("CLAUDE_CODE_ENABLE_TELEMETRY".to_owned(), "1".to_owned())]);
    Config { telemetry_env, model_pricing: Some(json!({"multiplier": 2})), ..policies }
}

#[test]
fn each_setting_has_an_origin() {
    let explanation = explain(&both(), &principal(Some("ann@example.com"), &["eng"]));
    insta::assert_snapshot!(told(&explanation), @r#"
    policy Some(2) over Some(3), passed over [(0, "none of its groups"), (1, "another e-mail domain")]
    settings
      deniedMcpServers = [] (base)
      env.A = "base" (base)
      env.B = "own" (policy)
      env.CLAUDE_CODE_ENABLE_TELEMETRY = "1" (gateway)
      hooks.Stop = [] (base)
      model = "opus" (policy)
      modelPricing = {"multiplier":2} (gateway)
      permissions.allow = ["Read"] (policy)
      permissions.defaultMode = "plan" (base)
      permissions.deny = ["Bash","Write"] (base+policy)
      sandbox = {} (policy)
    desktop
      autoModeEnabled = true (base)
      banner = {} (policy)
      disabledBuiltinTools = ["WebSearch","Glob"] (base+policy)
    "#);
}

#[test]
fn the_base_inherits_nothing_and_nobody_receives_nothing() {
    let everyone = explain(&both(), &principal(None, &[]));
    assert_eq!((everyone.policy, everyone.base), (Some(3), Some(3)));
    let of = |path: &str| everyone.settings.iter().flatten().find(|entry| entry.path == path).map(|entry| entry.origin);
    assert_eq!((of("permissions.deny"), of("modelPricing")), (Some(Origin::Policy), Some(Origin::Gateway)));

    let only_ops = config(&json!([{"match": {"groups": ["ops"]}, "cli": {}}]));
    insta::assert_snapshot!(told(&explain(&only_ops, &principal(None, &[]))), @r#"
    policy None over None, passed over [(0, "none of its groups")]
    settings
    none
    desktop
    none
    "#);
    insta::assert_snapshot!(told(&explain(&Config::default(), &principal(None, &[]))), @r"
    policy None over None, passed over []
    settings
    none
    desktop
    none
    ");
}

/// What is explained is what is served.
#[test]
fn the_entries_are_those_of_the_served_document() {
    for groups in [&["eng"][..], &["ops"], &[]] {
        let caller = principal(Some("ann@example.com"), groups);
        let mut rebuilt = json!({});
        for entry in explain(&both(), &caller).settings.unwrap() {
            match entry.path.split_once('.') {
                Some((key, member)) => rebuilt[key][member] = entry.value,
                None => rebuilt[&entry.path] = entry.value,
            }
        }
        assert_eq!(rebuilt, settings(served(compile(both()).select(&caller))), "{groups:?}");
    }
}
