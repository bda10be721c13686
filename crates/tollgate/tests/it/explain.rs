//! What the commands that only look at a configuration say (R16).

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::gateway::{TestGateway, tollgate};

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = tollgate(arguments).current_dir(folder).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn configuration() -> Value {
    json!({
        "listen": { "host": "127.0.0.1" },
        "oidc": { "issuer": "https://idp.example.com", "client_id": "a", "client_secret": "b" },
        "session": { "jwt_secret": "0123456789abcdef0123456789abcdef" },
        "store": { "sqlite_path": "t.db" },
        "upstreams": [{ "provider": "anthropic", "auth": { "api_key": "k" }, "models": ["haiku-of-the-house", "claude-opus-4-8"] }],
        "models": [{ "id": "haiku-of-the-house", "label": "House", "upstream_model": { "anthropic": "claude-haiku-4-5" } }],
        "admin": {},
        "managed": { "policies": [
            { "match": { "groups": ["contractors"] }, "cli": {} },
            { "match": { "groups": ["a,b", "eng"] }, "cli": { "permissions": { "deny": ["Write"] }, "env": { "A": "own" } } },
            { "match": {}, "cli": { "permissions": { "deny": ["Bash(rm:*)"] }, "model": "claude-opus-4-8" }, "desktop": { "autoModeEnabled": false } },
        ] },
    })
}

#[tokio::test]
async fn explaining_names_the_policy_each_setting_s_origin_and_the_models() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.yaml"), format!("{:#}", configuration())).unwrap();
    let asked = ["explain", "--config", "gateway.yaml", "--user", "ann@example.com", "--groups", r"a\,b,ops"];
    let (status, told, errors) = run(folder.path(), &asked);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    insta::assert_snapshot!(told, @r#"
    ann@example.com, in a,b, ops
      managed.policies[0] (line 8) does not match: none of its groups
      managed.policies[1] (line 16) matches, over the base managed.policies[2] (line 34)

    Claude Code, sessions in a terminal
      policy       env.A             "own"
      base         model             "claude-opus-4-8"
      base+policy  permissions.deny  ["Bash(rm:*)","Write"]

    Claude Desktop
      base         autoModeEnabled  false

    Models: 2
      haiku-of-the-house  House
      claude-opus-4-8
    "#);

    let (status, told, _) = run(folder.path(), &[&asked[..], &["--json", "--sub", "u-1"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((status, &told["policy"]["path"]), (Some(0), &json!("managed.policies[1]")));
    assert_eq!(told["principal"]["groups"], json!(["a,b", "ops"]));
    // There is no database yet, and looking makes none.
    assert!(told["caps_unknown"].as_str().unwrap().contains("does not exist yet"), "{told}");
    assert!(!folder.path().join("t.db").exists());
}

#[tokio::test]
async fn with_a_subject_the_caps_in_force_are_told() {
    let mut gateway = TestGateway::setup().start_process().await;
    gateway.cap("u-1", 250).await;
    gateway.process().signal("TERM");
    gateway.process().exit().await;
    let folder = gateway.directory();
    // As the gateway has it: upstreams on this machine.
    let told = tollgate(&["explain", "--config", "gateway.yaml", "--sub", "u-1", "--json"])
        .env("CLAUDE_GATEWAY_ALLOW_LOOPBACK", "1")
        .current_dir(folder)
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["caps"][0]["amount"], &told["caps"][0]["period"]), (&json!("250"), &json!("daily")), "{told}");
}

#[tokio::test]
async fn a_file_that_is_wrong_is_told_whole_by_both_commands() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = configuration();
    wrong["managed"]["policies"][0]["cli"] = json!({ "modle": 1, "futureKey": 1 });
    wrong["listen"]["prot"] = json!(1);
    fs::write(folder.path().join("gateway.yaml"), format!("{wrong:#}")).unwrap();
    let (status, warnings, problems) = run(folder.path(), &["check", "--config", "gateway.yaml"]);
    assert_eq!(status, Some(1));
    assert!(warnings.starts_with("warning: managed.policies[0].cli.futureKey (line "), "{warnings}");
    assert!(problems.contains("listen.prot (line ") && problems.contains("did you mean model?"), "{problems}");
    for command in ["check", "explain"] {
        let (status, told, errors) = run(folder.path(), &[command, "--config", "gateway.yaml", "--json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((status, errors.as_str()), (Some(1), ""), "{command}");
        let count = |key: &str| told[key].as_array().unwrap().len();
        assert_eq!((count("problems"), count("warnings")), (2, 1), "{command}: {told:#}");
        assert!(told["problems"].as_array().unwrap().iter().all(|problem| problem["line"].is_u64()), "{told:#}");
    }
}

#[tokio::test]
async fn checking_a_good_file_tells_its_warnings_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let mut doubtful = configuration();
    doubtful["managed"]["policies"][0]["cli"] = json!({ "availableModels": ["haiku"] });
    doubtful["managed"]["policies"][2]["cli"].as_object_mut().unwrap().remove("model");
    fs::write(folder.path().join("gateway.yaml"), format!("{doubtful:#}")).unwrap();
    let (status, told, _) = run(folder.path(), &["check", "--config", "gateway.yaml", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((status, told["problems"].as_array().unwrap().len()), (Some(0), 0));
    let warnings = told["warnings"].as_array().unwrap();
    assert_eq!(warnings[0]["path"], "managed.policies[0].cli.availableModels", "{told:#}");
    assert!(warnings[0]["line"].is_u64());
    let (status, told, _) = run(folder.path(), &["check", "--config", "gateway.yaml"]);
    assert!(status == Some(0) && told.ends_with("gateway.yaml: no problems, 1 warning(s)\n"), "{told}");
}

#[tokio::test]
async fn serving_tells_the_warnings_of_policies_with_their_lines_too() {
    let doubtful = json!({ "managed": { "policies": [{ "match": {}, "cli": { "availableModels": ["haiku"] } }] } });
    let mut gateway = TestGateway::setup().config(doubtful).start_process().await;
    gateway.process().line("managed.policies[0].cli.availableModels (line 1): ").await;
}

#[test]
fn the_examples_have_no_problems_and_warn_of_nothing_but_that_desktop_is_left_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let examples: Vec<String> = files.filter(|name| name.ends_with(".example.yaml")).collect();
    assert!(examples.len() >= 2, "{examples:?}");
    for example in examples {
        let Output { status, stdout, stderr } = tollgate(&["check", "--config", &example])
            .env("OIDC_CLIENT_SECRET", "oidc-secret")
            .env("GATEWAY_JWT_SECRET", "0123456789abcdef0123456789abcdef")
            .env("ANTHROPIC_API_KEY", "sk-ant-secret")
            .current_dir(&folder)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&stdout);
        assert!(status.success(), "{example}: {told}{}", String::from_utf8_lossy(&stderr));
        let mut warnings = told.lines().filter(|line| line.starts_with("warning: "));
        assert!(warnings.all(|warning| warning.contains("no policy has `desktop`")), "{example}: {told}");
    }
}
