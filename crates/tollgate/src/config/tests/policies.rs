//! What policies and models may say.

use control::policy::Kind;

use super::{environment, file, parse, read, refused, valid};

#[test]
fn policy_rules() {
    let policy = |policy: &str| format!("managed: {{policies: [{policy}]}}");
    refused("managed: {}", &["managed.policies: missing"]);
    refused("managed: {settings: /nowhere/x.json}", &["managed.settings: /nowhere/x.json: the file cannot be read"]);
    refused(&policy("{match: {groups: []}}"), &["managed.policies[0].match.groups: an empty list"]);
    refused(&policy("{match: {groups: ['']}}"), &["managed.policies[0].match.groups[0]: blank"]);
    for domain in ["''", "'@'", "'a@b.com'", "'a b'", "'a,b'"] {
        let found = read(&file(&policy(&format!("{{match: {{email_domain: {domain}}}}}")))).unwrap_err();
        assert_eq!(found[0].path, "managed.policies[0].match.email_domain", "{domain}");
    }
    refused(&policy("{cli: {}, settings: {}}"), &["managed.policies[0].settings: is the older name of cli"]);
    refused(&policy("{cli: [a]}"), &["managed.policies[0].cli: must be a mapping and is a list"]);
    refused(&policy("{cli: {env: {A: .inf}}}"), &["managed.policies[0].cli.env.A: JSON has no such number"]);
    refused(
        &policy("{cli: {avalableModels: [], permissions: {deny: [Read, 'Bash(']}}}"),
        &["managed.policies[0].cli.avalableModels: ", "managed.policies[0].cli.permissions.deny[1]: "],
    );
    refused(
        &policy("{code: {}}, {cli: {}}, {settings: {}}"),
        &[
            "managed.policies[1].cli: other settings of this file",
            "managed.policies[2].settings: other settings of this",
        ],
    );
    refused(&policy("{code: {}, cli: {}}"), &["managed.policies[0].cli: other settings of this file stand under code"]);
    refused(&policy("{desktop: {code: {}}}"), &["managed.policies[0].desktop.code: is a key of this file"]);
    refused(
        &policy("{desktop: {bootstrapUrl: x, banner: {colour: x}, autoModeEnabled: maybe}}"),
        &[
            "managed.policies[0].desktop.bootstrapUrl: Claude Desktop reads this only",
            "managed.policies[0].desktop.banner.colour: is not known here",
            "managed.policies[0].desktop.autoModeEnabled: must be true or false",
        ],
    );
    let (config, warnings) = valid(&policy("{code: {}, desktop: {fooBar: 1}}, {match: {groups: [a]}, desktop: {}}"));
    assert_eq!(warnings[0].path, "managed.policies[0].desktop.fooBar");
    assert_eq!((config.policy.kind, config.policy.policies.unwrap().len()), (Kind::Code, 2));
    let (config, _) = valid(&policy("{}"));
    assert_eq!((config.policy.kind, config.policy.desktop.origin.as_str()), (Kind::Cli, "http://127.0.0.1:8080"));
    let policies = config.policy.policies.unwrap();
    assert!(policies[0].groups.is_none() && policies[0].settings.is_none());
}

#[test]
fn one_settings_file_serves_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let read = |json: &str, more: &str| {
        std::fs::write(folder.path().join("settings.json"), json).unwrap();
        let text = file(&format!("managed: {{settings: settings.json{more}}}"));
        parse(text.as_bytes(), folder.path(), &environment())
    };
    let (config, warnings) = read("{\n  \"model\": \"claude-opus-4-8\",\n  \"newKey\": 1\n}", "").unwrap();
    let policies = config.policy.policies.unwrap();
    assert_eq!((policies.len(), &policies[0].groups, policies[0].settings.as_ref().unwrap().len()), (1, &None, 2));
    assert!(warnings[0].message.contains("settings.json: newKey (line 3): is not a settings key"), "{warnings:?}");

    let problems = read("{\n  \"permissions\": {\n    \"deny\": [\"bash(\"]\n  },\n  \"modle\": 1\n}", "").unwrap_err();
    let told: Vec<_> = problems.iter().map(|problem| problem.message.rsplit('/').next().unwrap()).collect();
    assert_eq!(problems[0].path, "managed.settings");
    assert!(told[0].starts_with("settings.json: permissions.deny[0] (line 3): \"bash(\""), "{told:?}");
    assert!(
        told[1].starts_with("settings.json: modle (line 5): is not a settings key; did you mean model?"),
        "{told:?}"
    );
    for (json, problem) in [
        ("", "the file is empty"),
        ("[]", "must be a mapping and is a list"),
        ("{", "not valid YAML"),
        (r#"{"model": "a", "model": "b"}"#, "written twice"),
    ] {
        let problems = read(json, "").unwrap_err();
        assert!(problems[0].message.contains(problem), "{json}: {problems:?}");
    }
    // Beside policies it is not even looked at.
    let (config, warnings) = read("{", ", policies: []").unwrap();
    assert!(config.policy.policies.unwrap().is_empty());
    assert!(warnings[0].message.starts_with("is ignored"), "{warnings:?}");
}

#[test]
fn policy_documents_are_read_whole_or_refused_with_path_and_line() {
    let told = |policy: &str| -> Vec<String> {
        let text = format!("managed:\n  policies:\n{policy}");
        read(&file(&text)).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    };
    // The four sections that every file needs stand first, on a line each.
    insta::assert_snapshot!(
        told(
            "  - match: {groups: [eng]}\n    cli:\n      hooks:\n        PreToolUse:\n        - matcher: Bash\n          hooks:\n          \
             - {type: command, command: [x]}\n      sandbox:\n        network:\n          allowedDomains: [a, 1]\n      \
             permissions:\n        deny:\n        - Read\n        - \"Bash(x\"\n      env:\n        A: {b: c}\n      \
             аvailableModels: [opus]\n      mcpServers: {}\n"
        )
        .join("\n"),
        @r#"
    managed.policies[0].cli.hooks.PreToolUse[0].hooks[0].command (line 13): must be a string
    managed.policies[0].cli.sandbox.network.allowedDomains[1] (line 16): must be a string
    managed.policies[0].cli.permissions.deny[1] (line 20): "Bash(x": the parentheses do not match
    managed.policies[0].cli.env.A (line 22): must be a string or a number or true or false
    managed.policies[0].cli.аvailableModels (line 23): is not a settings key; did you mean availableModels?
    managed.policies[0].cli.mcpServers (line 24): MCP servers cannot be set here; write them under managedMcpServers, http and sse ones only
    "#
    );
    for (policy, problem) in [
        ("  - cli: &a {env: {A: *a}}\n", "this alias stands inside the value that it repeats"),
        ("  - cli: {model: a, model: b}\n", "managed.policies[0].cli.model (line 7): written twice"),
        ("  - cli: {env: {A: x, A: y}}\n", "managed.policies[0].cli.env.A (line 7): written twice"),
        ("  - cli: {}\n    cli: {}\n", "managed.policies[0].cli (line 8): written twice"),
        ("  - cli: {availableModels: [3]}\n", "managed.policies[0].cli.availableModels[0] (line 7): must be a string"),
        (
            "  - cli: {availableModels: {}}\n",
            "managed.policies[0].cli.availableModels (line 7): must be a list of strings",
        ),
        ("  - cli: {model: ~}\n", "managed.policies[0].cli.model (line 7): must be a string"),
    ] {
        let found = told(policy);
        assert!(found.iter().any(|found| found.contains(problem)), "{policy}{found:#?}");
    }
    let deep = format!("  - cli: {{x: {}1{}}}\n", "[".repeat(80), "]".repeat(80));
    assert!(told(&deep)[0].contains("nested more than"), "{:?}", told(&deep));
    let large = |size: usize| {
        let rules: String = (0..size / 32).map(|index| format!("\"Read(./secrets/file-{index:08})\", ")).collect();
        format!("  - cli: {{permissions: {{deny: [{rules}]}}}}\n")
    };
    assert_eq!(told(&large(1_000_000)), [""; 0]);
}

#[test]
fn models_that_lead_nowhere_are_told() {
    let two = |models: &str| {
        let upstreams = "upstreams: [{provider: anthropic, auth: {api_key: k}, models: [claude-opus-4-8, house, typo]}, \
                         {provider: anthropic, name: b, auth: {api_key: k}, models: [claude-haiku-4-5-20251001]}]";
        valid(&format!("{upstreams}\nmodels: [{models}]")).1.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    insta::assert_snapshot!(
        two("{id: house, upstream_model: {b: x}}, {id: claude-haiku-4-5, upstream_model: {b: y}}").join("\n"), @r"
    upstreams[0].models[1] (line 4): has no id there; add anthropic to its upstream_model
    upstreams[0].models[2] (line 4): no model is called so; write an id as clients send it, or map it in models
    models[0].upstream_model.b (line 5): never applies, because house is not in the models of that upstream
    "
    );
    assert_eq!(valid("models: [{id: house, upstream_model: {anthropic: x}}]").1, []);
}
