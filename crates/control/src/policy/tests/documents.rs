//! What is served, for every way in which a policy is laid over the base.

use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The documents of all policies, in file order.
fn documents(config: Config) -> Vec<Value> {
    compile(config).policies.unwrap().iter().map(|policy| settings(&policy.served)).collect()
}

fn over(base: &Value, policy: &Value) -> Value {
    let mut all = documents(config(&json!([{"match": {"groups": ["g"]}, "cli": policy}, {"match": {}, "cli": base}])));
    all.swap_remove(0)
}

#[test]
fn every_kind_of_merge() {
    let (base, policies): (Value, Vec<(String, Value)>) = serde_json::from_str(include_str!("merge.json")).unwrap();
    let mut told = String::new();
    for (kind, policy) in &policies {
        let merged = over(&base, policy);
        told.push_str(&format!("# {kind}\n"));
        for (key, own) in policy.as_object().unwrap() {
            told.push_str(&format!("{key}\n  base   {}\n  policy {own}\n  served {}\n", base[key], merged[key]));
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn the_checksum_is_the_one_python_computes() {
    let vector: Value = serde_json::from_str(include_str!("checksum.json")).unwrap();
    for case in vector["cases"].as_array().unwrap() {
        let policies = compile(config(&json!([{"match": {}, "cli": case["settings"]}])));
        let served = served(policies.select(&principal(None, &[])));
        let checksum = case["checksum"].as_str().unwrap();
        assert_eq!(served.checksum, checksum);
        assert_eq!(served.etag, format!("\"{checksum}\""));
        let body: Value = serde_json::from_slice(&served.body).unwrap();
        assert_eq!(body, json!({"uuid": checksum, "checksum": checksum, "settings": case["settings"]}));
    }
}

#[test]
fn what_the_gateway_adds_lies_under_the_policys_own() {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let policies = config(&json!([
        {"match": {"groups": ["own"]}, "cli": {"env": {"OTEL_LOGS_EXPORTER": "none", "C": 3, "D": true}}},
        {"match": {"groups": ["priced"]}, "cli": {"modelPricing": {"multiplier": 2}}},
        {"match": {}},
    ]));
    let config = Config {
        telemetry_env: BTreeMap::from([set("CLAUDE_CODE_ENABLE_TELEMETRY", "1"), set("OTEL_LOGS_EXPORTER", "otlp")]),
        model_pricing: Some(json!({"multiplier": 0.5})),
        ..policies
    };
    let pushed = json!({"CLAUDE_CODE_ENABLE_TELEMETRY": "1", "OTEL_LOGS_EXPORTER": "otlp"});
    let own = json!({"CLAUDE_CODE_ENABLE_TELEMETRY": "1", "OTEL_LOGS_EXPORTER": "none", "C": 3, "D": true});
    assert_eq!(
        documents(config),
        [
            json!({"env": own, "modelPricing": {"multiplier": 0.5}}),
            json!({"env": pushed, "modelPricing": {"multiplier": 2}}),
            json!({"env": pushed, "modelPricing": {"multiplier": 0.5}}),
        ]
    );
}

fn words() -> impl Strategy<Value = Value> {
    btree_set("[a-d]", 0..4).prop_map(|words| json!(words))
}

fn table() -> impl Strategy<Value = Value> {
    btree_map("[A-C]", 0..3_i32, 0..3).prop_map(|table| json!(table))
}

/// Settings that hold some key of every merge kind.
fn document() -> impl Strategy<Value = Value> {
    let permissions = (option::of(words()), option::of(words()), option::of(words()), option::of("[xy]"));
    let keys =
        (option::of(words()), option::of(permissions), option::of(table()), option::of(words()), option::of(table()));
    keys.prop_map(|(models, permissions, env, hooks, sandbox)| {
        let permissions = permissions.map(|(allow, deny, ask, mode)| {
            present([("allow", allow), ("deny", deny), ("ask", ask), ("defaultMode", mode.map(Value::from))])
        });
        let hooks = hooks.map(|entries| json!({"PreToolUse": entries}));
        present([
            ("availableModels", models),
            ("permissions", permissions),
            ("env", env),
            ("hooks", hooks),
            ("sandbox", sandbox),
        ])
    })
}

fn present<const N: usize>(pairs: [(&str, Option<Value>); N]) -> Value {
    pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map<_, _>>().into()
}

proptest! {
    #[test]
    fn laying_a_policy_over_the_base_twice_changes_nothing_more(base in document(), policy in document()) {
        let once = over(&base, &policy);
        prop_assert_eq!(over(&base, &once), once);
        prop_assert_eq!(over(&base, &base), base);
    }

    #[test]
    fn a_policy_without_a_document_inherits_the_base(base in document()) {
        prop_assert_eq!(over(&base, &Value::Null), base.clone());
        prop_assert_eq!(over(&base, &json!({})), base);
    }

    #[test]
    fn what_a_policy_does_not_mention_comes_from_the_base(base in document(), policy in document()) {
        let merged = over(&base, &policy);
        for (key, value) in base.as_object().unwrap() {
            if policy.get(key).is_none() {
                prop_assert_eq!(&merged[key], value);
            }
        }
        for key in policy.as_object().unwrap().keys() {
            prop_assert!(merged.get(key).is_some(), "{} is lost", key);
        }
    }

    #[test]
    fn no_policy_can_lift_a_deny_of_the_base(base in words(), policy in words()) {
        let deny = |list: &Value| json!({"permissions": {"deny": list}});
        let merged = permit::strings(&over(&deny(&base), &deny(&policy))["permissions"]["deny"]);
        let (base, policy) = (permit::strings(&base), permit::strings(&policy));
        let added = policy.into_iter().filter(|rule| !base.contains(rule));
        prop_assert_eq!(merged, base.iter().cloned().chain(added).collect::<Vec<_>>());
    }

    #[test]
    fn the_base_may_stand_anywhere(base in document(), first in document(), second in document(), at in 0..3_usize) {
        let others = [json!({"match": {"groups": ["a"]}, "cli": first}), json!({"match": {"groups": ["b"]}, "cli": second})];
        let mut entries = others.to_vec();
        entries.insert(at, json!({"match": {}, "cli": base}));
        let mut all = documents(config(&json!(entries)));
        prop_assert_eq!(all.remove(at), base.clone());
        prop_assert_eq!(all, vec![over(&base, &first), over(&base, &second)]);
    }
}
