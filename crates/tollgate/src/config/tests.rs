//! What a configuration file may say, rule by rule.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use control::spend::GroupMode;
use control::store;
use proptest::prelude::*;
use proxy::upstream::Credential;
use secrecy::ExposeSecret;

use super::problem::Report;
use super::tree::{self, Entry, Kind, Node, Style};
use super::{Config, Environment, LogLevel, Problem, Problems, Warning, parse, reference, root, secret};

const EVERY_KEY: &str = include_str!("tests/every_key.yaml");
const AWFUL: &str = include_str!("tests/awful.yaml");
/// 32 characters, more than ten of them different.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The sections that every file needs.
const BASE: &[(&str, &str)] = &[
    ("listen", "listen: {host: 127.0.0.1}"),
    ("oidc", "oidc: {issuer: 'https://idp.example.com', client_id: gateway, client_secret: s3cret}"),
    ("session", "session: {jwt_secret: '0123456789abcdef0123456789abcdef'}"),
    ("upstreams", "upstreams: [{provider: anthropic, auth: {api_key: sk-test}}]"),
];

/// The base with some sections written anew.
fn file(sections: &str) -> String {
    let written = |name: &str| sections.lines().any(|line| line.starts_with(&format!("{name}:")));
    let base = BASE.iter().filter(|(name, _)| !written(name)).map(|(_, text)| *text);
    base.chain([sections]).collect::<Vec<_>>().join("\n")
}

fn environment() -> Environment {
    let cert = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    Environment::from_pairs([
        ("JWT_SECRET", SECRET),
        ("OIDC_CLIENT_SECRET", "oidc-secret"),
        ("ANTHROPIC_API_KEY", "sk-ant-secret"),
        ("ADMIN_KEY", "an-admin-key-of-at-least-32-characters"),
        ("OTLP_TOKEN", "otlp-secret"),
        ("CERT_FILE", cert),
        ("PORT", "4711"),
        ("EMPTY", ""),
    ])
}

fn read(text: &str) -> Result<(Config, Vec<Warning>), Vec<Problem>> {
    parse(text.as_bytes(), Path::new("/etc/tollgate"), &environment())
}

#[track_caller]
fn valid(sections: &str) -> (Config, Vec<Warning>) {
    read(&file(sections)).unwrap_or_else(|problems| panic!("{sections}\n{problems:#?}"))
}

/// Asserts that exactly these problems are found, each given by how its text begins.
#[track_caller]
fn refused(sections: &str, expected: &[&str]) {
    let problems = read(&file(sections)).err().unwrap_or_default();
    let told: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    assert_eq!(told.len(), expected.len(), "{sections}\n{told:#?}");
    for part in expected {
        assert!(told.iter().any(|problem| problem.starts_with(part)), "{sections}\n{part}\n{told:#?}");
    }
}

#[test]
fn a_file_that_uses_every_key_says_what_it_says() {
    let (config, _) = read(EVERY_KEY).unwrap();
    let listen = &config.listen;
    assert_eq!((listen.host.as_str(), listen.port), ("0.0.0.0", 8443));
    assert_eq!(listen.public_url.as_deref(), Some("https://gateway.example.com"));
    assert!(listen.tls.is_some());
    assert_eq!(listen.trusted_proxies.len(), 2);
    assert_eq!(config.login_notice.as_deref(), Some("Company laptops only. Ask #help-ai."));

    let oidc = &config.oidc;
    assert_eq!(oidc.issuer.as_str(), "https://idp.example.com/realms/main");
    assert_eq!(oidc.client_secret.expose_secret(), "oidc-secret");
    assert_eq!(oidc.allowed_email_domains, ["example.com", "example.org"]);
    assert_eq!(oidc.groups_claim, "/resource_access/gateway/roles");
    assert_eq!(oidc.email_claim, ["upn", "email"]);
    assert_eq!(oidc.scopes, ["openid", "email", "groups"]);
    assert_eq!(oidc.extra_auth_params["access_type"], "offline");
    assert!(oidc.userinfo_fallback && !oidc.use_pkce);
    assert_eq!(config.form_action_origins, ["https://sso.example.com"]);

    assert_eq!(config.session.secrets[0].expose_secret(), SECRET);
    assert_eq!(config.session.ttl, Duration::from_secs(1800));
    assert_eq!(config.session.issuer, "https://gateway.example.com");
    assert_eq!(config.session.billing_group_tag.as_deref(), Some("team:ai"));
    let store::Config::Postgres(postgres) = &config.store else { panic!("not PostgreSQL") };
    assert_eq!(postgres.password.as_ref().unwrap().expose_secret(), "p@ss:w/rd");
    assert_eq!((postgres.max_connections, postgres.connect_timeout), (20, Duration::from_secs(10)));
    assert_eq!(config.readiness_grace, Duration::from_secs(6));

    let [direct, proxy, second] = config.upstreams.as_slice() else { panic!("not three upstreams") };
    assert_eq!((direct.name.as_str(), direct.base_url.as_str()), ("anthropic", "https://api.anthropic.com/"));
    assert!(matches!(&direct.credential, Credential::ApiKey(key) if key.expose_secret() == "sk-ant-secret"));
    assert_eq!(direct.models.as_deref().unwrap(), ["claude-sonnet-4-6", "fast"]);
    assert_eq!(proxy.base_url.as_str(), "https://llm.example.com/prefix/");
    assert_eq!((proxy.headers[0].0.as_str(), proxy.headers[0].1.as_bytes()), ("x-team", &b"ai"[..]));
    assert!(proxy.forward_user_identity && matches!(proxy.credential, Credential::OauthToken(_)));
    assert_eq!((second.name.as_str(), second.base_url.as_str()), ("second", "https://llm.example.com/prefix/"));
    assert!(matches!(second.credential, Credential::ApiKey(_)));
    assert!(config.upstreams.iter().all(|upstream| upstream.ttfb_timeout == Some(Duration::from_millis(1500))));
    assert_eq!(config.models[0].upstream_model["proxy"], "haiku");
    assert!(!config.auto_include_builtin_models);
}

#[test]
fn a_file_that_uses_every_key_governs_as_it_says() {
    let (config, warnings) = read(EVERY_KEY).unwrap();
    let [contractors, base] = config.policy.policies.as_deref().unwrap() else { panic!("not two policies") };
    assert_eq!(contractors.groups.as_deref().unwrap(), ["contractors"]);
    assert_eq!(contractors.email_domains.as_deref().unwrap(), ["example.com"]);
    assert_eq!(serde_json::to_string(&contractors.cli).unwrap(), r#"{"availableModels":["claude-sonnet-4-6"]}"#);
    assert_eq!((&base.groups, &base.email_domains), (&None, &None));
    assert_eq!(serde_json::to_string(&base.cli).unwrap(), r#"{"env":{"A":"1","B":2,"C":1.5,"D":true}}"#);

    let admin = config.admin.as_ref().unwrap();
    assert_eq!((admin.keys.write[0].id.as_str(), admin.keys.read[0].id.as_str()), ("terraform", "reporting"));
    assert_eq!(admin.groups, ["finops"]);
    assert_eq!(admin.spend.group_mode, GroupMode::Max);
    assert_eq!(admin.spend.blocked_message.as_deref(), Some("ask at https://go/limits"));
    assert!(admin.spend.fail_closed);
    assert_eq!(admin.spend.wait, Duration::from_secs(2));
    assert_eq!(config.pricing.multiplier_nano, 850_000_000);
    let row = &config.pricing.overrides[0];
    assert_eq!((row.upstream.as_deref(), row.input, row.cache_write), (Some("proxy"), 3_300_000_000, 4_125_000_000));
    assert_eq!(
        config.policy.model_pricing.as_ref().unwrap().to_string(),
        r#"{"multiplier":0.85,"overrides":{"claude-sonnet-4-6":{"cacheRead":0.33,"cacheWrite":4.125,"input":3.3,"output":16.5}}}"#
    );

    let destination = &config.telemetry[0];
    assert_eq!(destination.headers[0].1.as_bytes(), b"Bearer otlp-secret");
    assert_eq!((destination.metrics, destination.logs, destination.traces), (false, true, false));
    let pushed: Vec<String> =
        config.policy.telemetry_env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        pushed,
        [
            "CLAUDE_CODE_ENABLE_TELEMETRY=1",
            "OTEL_EXPORTER_OTLP_ENDPOINT=https://gateway.example.com",
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
            "OTEL_LOGS_EXPORTER=otlp",
            "OTEL_METRICS_EXPORTER=none",
            "OTEL_RESOURCE_ATTRIBUTES=team=xy-z,b=e/f",
            "OTEL_TRACES_EXPORTER=none",
        ]
    );
    assert_eq!((config.access_control.allow.len(), config.access_control.deny.len()), (2, 1));
    assert_eq!((config.limits.max_request_bytes, config.limits.max_url_length), (1_000_000, Some(8192)));
    assert_eq!(config.rate_limits.device_authorization.max, 100);
    assert_eq!(config.rate_limits.device_verify.window, Duration::from_secs(600));
    let told: Vec<&str> = warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(told, ["upstreams[1].forward_user_identity", "upstreams[2].forward_user_identity"]);
}

#[test]
fn a_file_that_says_little_gets_the_defaults() {
    let (config, warnings) = valid("");
    assert_eq!(warnings, []);
    assert_eq!((config.listen.host.as_str(), config.listen.port), ("127.0.0.1", 8080));
    assert_eq!(config.session.issuer, "http://127.0.0.1:8080");
    assert_eq!(config.session.ttl, Duration::from_secs(3600));
    assert_eq!(config.oidc.scopes, ["openid", "profile", "email", "offline_access"]);
    assert_eq!(
        (config.oidc.groups_claim.as_str(), config.oidc.email_claim.as_slice()),
        ("groups", &["email".into()][..])
    );
    assert!(config.oidc.use_pkce && !config.oidc.userinfo_fallback);
    assert!(matches!(&config.store, store::Config::Sqlite { path } if path == Path::new("/etc/tollgate/tollgate.db")));
    assert_eq!(config.upstreams[0].ttfb_timeout, Some(Duration::from_secs(120)));
    assert_eq!(config.limits.max_request_bytes, 33_554_432);
    let limits = config.rate_limits;
    assert_eq!((limits.device_authorization.max, limits.device_verify.max), (30, 10));
    assert!(config.auto_include_builtin_models && config.admin.is_none() && config.policy.policies.is_none());
    assert!(config.policy.telemetry_env.is_empty() && config.policy.model_pricing.is_none());
    assert_eq!((config.drain_timeout, config.log_level), (Duration::from_secs(25), LogLevel::Info));
    assert!(!config.connect.allow_loopback && config.connect.proxy.is_none());
}

#[test]
fn json_is_a_configuration_file_too() {
    let text = r#"{"listen":{"host":"localhost","port":0},"oidc":{"issuer":"https://idp.example.com","client_id":"a",
        "client_secret":"b"},"session":{"jwt_secret":"${JWT_SECRET}"},"store":{"sqlite_path":"data/t.db"},
        "upstreams":[{"provider":"anthropic","auth":{"api_key":"c"}}]}"#;
    let (mut config, _) = read(text).unwrap();
    assert!(matches!(&config.store, store::Config::Sqlite { path } if path == Path::new("/etc/tollgate/data/t.db")));
    config.listening_on(4711);
    assert_eq!(config.session.issuer, "http://localhost:4711");
}

#[test]
fn everything_wrong_with_an_awful_file_is_told_at_once_and_no_secret_is() {
    let problems = Problems { file: "gateway.yaml".into(), problems: read(AWFUL).unwrap_err() };
    let told = problems.to_string();
    for secret in ["hunter2", "top-secret", "aaaaaaaa", "an-admin-key", "short", "oidc-secret"] {
        assert!(!told.contains(secret), "{secret}");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn every_key_of_the_reference_is_in_the_file_that_uses_every_key() {
    let report = Report::default();
    let mut written = BTreeSet::new();
    collect(&tree::parse(EVERY_KEY, &report).unwrap(), "", &mut written);
    // It excludes postgres_url, and the JSON file above has it.
    written.insert("store.sqlite_path".to_owned());
    for section in reference::SECTIONS {
        for (path, key) in section.path.split(", ").flat_map(|path| section.keys.iter().map(move |key| (path, key))) {
            let key = tree::child(path, key.name);
            assert!(written.contains(&key) || key == "rate_limits.device_verify.window_seconds", "{key}");
        }
    }
}

/// The paths of all keys, with `[]` for every index.
fn collect(node: &Node, path: &str, paths: &mut BTreeSet<String>) {
    match &node.kind {
        Kind::Map(entries) => {
            for entry in entries {
                let path = tree::child(path, &entry.key);
                collect(&entry.value, &path, paths);
                paths.insert(path);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| collect(item, &format!("{path}[]"), paths)),
        _ => {}
    }
}

#[test]
fn every_key_that_is_not_built_yet_stops_the_boot_by_its_name() {
    for section in reference::SECTIONS {
        for (path, later) in section.path.split(", ").flat_map(|path| section.later.iter().map(move |l| (path, l))) {
            let report = Report::default();
            let mut tree = tree::parse(EVERY_KEY, &report).unwrap();
            secret::expand(&mut tree, &environment(), &report);
            insert(&mut tree, path, later.name);
            let _ = root::read(&tree, Path::new(""), &environment(), &report);
            let (problems, _) = report.finish();
            let told = problems.iter().any(|problem| {
                problem.path.ends_with(later.name)
                    && problem.message.starts_with("not supported by this version of Tollgate (")
            });
            assert!(told, "{path} {}: {problems:#?}", later.name);
        }
    }
}

/// Writes `key: x` into the first mapping at `path`.
fn insert(node: &mut Node, path: &str, key: &str) {
    let mut node = node;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let name = part.trim_end_matches("[]");
        let Kind::Map(entries) = &mut node.kind else { panic!("{path}") };
        node = &mut entries.iter_mut().find(|entry| entry.key == name).unwrap().value;
        if part.ends_with("[]") {
            let Kind::List(items) = &mut node.kind else { panic!("{path}") };
            node = &mut items[0];
        }
    }
    let value = Node { line: 1, kind: Kind::Scalar { text: "x".into(), style: Style::Plain } };
    let Kind::Map(entries) = &mut node.kind else { panic!("{path}") };
    entries.push(Entry { key: key.into(), line: 1, value });
}

#[test]
fn listen_rules() {
    refused("listen: {host: 0.0.0.0}", &["listen.public_url: missing"]);
    refused("listen: {}", &["listen.public_url: missing"]);
    refused("listen: {host: 'a host'}", &["listen.host: must be an address"]);
    refused(
        "listen: {host: localhost, port: 65536}",
        &["listen.port: must be a whole number from 0 to 65535, not 65536"],
    );
    refused("listen: {host: localhost, port: -1}", &["listen.port: must be a whole number"]);
    refused("listen: {host: localhost, port: [1]}", &["listen.port: must be a whole number and is a list"]);
    for url in ["https://g.example.com/x", "https://g.example.com/?a", "https://g.example.com/#a"] {
        refused(&format!("listen: {{public_url: '{url}'}}"), &["listen.public_url: must be an origin"]);
    }
    refused("listen: {public_url: 'https://u:p@g.example.com'}", &["listen.public_url: must not carry a user name"]);
    refused("listen: {public_url: 'wss://g.example.com'}", &["listen.public_url: must be an http or https URL"]);
    refused("listen: {public_url: gateway}", &["listen.public_url: must be a URL"]);
    refused(
        "listen: {host: '::1', tls: {cert: /nonexistent}}",
        &["listen.tls.cert: the file cannot", "listen.tls.key: missing"],
    );
    for whole in ["[0.0.0.0/0]", "['::/0']", "[0.0.0.0/1, 128.0.0.0/1]"] {
        refused(
            &format!("listen: {{host: '::1', trusted_proxies: {whole}}}"),
            &["listen.trusted_proxies: trusts the whole"],
        );
    }
    assert_eq!(valid("listen: {host: '[::1]', port: 0x50}").0.session.issuer, "http://[::1]:80");
    assert_eq!(
        valid("listen: {public_url: 'https://G.example.com:8443/'}").0.session.issuer,
        "https://g.example.com:8443"
    );
    assert_eq!(valid("listen: {host: localhost, port: '${PORT}'}").0.listen.port, 4711);
}

#[test]
fn a_plain_http_origin_is_a_warning_unless_it_is_loopback() {
    assert_eq!(valid("listen: {public_url: 'http://g.example.com'}").1[0].path, "listen.public_url");
    assert_eq!(valid("listen: {public_url: 'http://127.0.0.1:8080'}").1, []);
}

#[test]
fn oidc_rules() {
    let oidc =
        |more: &str| format!("oidc: {{issuer: 'https://i.example.com', client_id: a, client_secret: b, {more}}}");
    refused("oidc: {}", &["oidc.issuer: missing", "oidc.client_id: missing", "oidc.client_secret: missing"]);
    refused("oidc: [{}]", &["oidc: not supported by this version of Tollgate (several"]);
    refused(
        "oidc: {issuer: 'https://i.example.com/?a=b', client_id: ' ', client_secret: '${EMPTY}'}",
        &["oidc.issuer: must have no query", "oidc.client_id: blank", "oidc.client_secret: blank"],
    );
    refused(&oidc("allowed_groups: ['']"), &["oidc.allowed_groups[0]: blank"]);
    refused(&oidc("allowed_email_domains: ['']"), &["oidc.allowed_email_domains[0]: blank"]);
    refused(&oidc("allowed_email_domains: [a@b.com]"), &["oidc.allowed_email_domains[0]: must be one bare domain"]);
    refused(&oidc("scopes: [email]"), &["oidc.scopes: must hold openid"]);
    refused(&oidc("scopes: ['openid email']"), &["oidc.scopes: \"openid email\" is not one scope"]);
    refused(&oidc("use_pkce: 'true'"), &["oidc.use_pkce: must be true or false"]);
    refused(&oidc("email_claim: []"), &["oidc.email_claim: an empty list"]);
    refused(&oidc("form_action_origins: [sso]"), &["oidc.form_action_origins[0]: must be a URL"]);
    for name in
        ["state", "nonce", "redirect_uri", "code_challenge", "scope", "response_type", "response_mode", "client_id"]
    {
        let expected = format!("oidc.extra_auth_params.{name}: the gateway sets this");
        refused(&oidc(&format!("extra_auth_params: {{{name}: x}}")), &[expected.as_str()]);
    }
    assert!(valid(&oidc("allowed_groups: [], allowed_email_domains: []")).0.oidc.allowed_groups.is_empty());
}

#[test]
fn session_rules() {
    refused("session: {}", &["session.jwt_secret: missing"]);
    refused("session: {jwt_secret: short}", &["session.jwt_secret: must be at least 32 characters"]);
    refused("session: {jwt_secret: []}", &["session.jwt_secret: an empty list"]);
    refused("session: {jwt_secret: ['${JWT_SECRET}', short]}", &["session.jwt_secret[1]: must be at least 32"]);
    refused(
        "session: {jwt_secret: abcabcabcabcabcabcabcabcabcabcabcabc}",
        &["session.jwt_secret: must hold at least 10"],
    );
    let ttl = |ttl: &str| format!("session: {{jwt_secret: '{SECRET}', ttl_hours: {ttl}}}");
    for wrong in ["0", "-1", "soon", "1e2", "[]"] {
        refused(&ttl(wrong), &["session.ttl_hours: must be a number"]);
    }
    for wrong in ["721", "720.001", "0.0002"] {
        refused(&ttl(wrong), &["session.ttl_hours: must be at least one second and at most 720 hours"]);
    }
    assert_eq!(valid(&ttl("720")).0.session.ttl, Duration::from_secs(720 * 3600));
    assert_eq!(valid(&ttl("'0.001'")).0.session.ttl, Duration::from_secs(3));
}

#[test]
fn store_rules() {
    refused("store: {postgres_url: 'mysql://db'}", &["store.postgres_url: must begin with postgres://"]);
    refused("store: {postgres_url: 'postgres://db/x?sslmode=maybe'}", &["store.postgres_url: its sslmode"]);
    refused(
        "store: {postgres_url: 'postgres://db/x?sslrootcert=/nonexistent'}",
        &["store.postgres_url: its sslrootcert"],
    );
    refused(
        "store: {postgres_url: 'postgres://db', sqlite_path: t.db}",
        &["store.sqlite_path: postgres_url is written"],
    );
    refused("store: {sqlite_path: t.db, username: a}", &["store.username: only PostgreSQL"]);
    refused("store: {postgres_url: 'postgres://db', max_connections: 0}", &["store.max_connections: must be"]);
    refused(
        "store: {postgres_url: 'postgres://db', connect_timeout_seconds: 61}",
        &["store.connect_timeout_seconds: must"],
    );
    refused("store: {readiness_grace_seconds: 3601}", &["store.readiness_grace_seconds: must be"]);
    refused("store:", &["store: empty"]);
    assert_eq!(valid("store: {readiness_grace_seconds: 3600}").0.readiness_grace, Duration::from_secs(3600));
}

#[test]
fn upstream_rules() {
    let upstream = |more: &str| format!("upstreams: [{{provider: anthropic, auth: {{api_key: k}}, {more}}}]");
    refused("upstreams: []", &["upstreams: an empty list"]);
    refused("upstreams: [{}]", &["upstreams[0].provider: missing", "upstreams[0].auth: missing"]);
    refused(
        "upstreams: [{provider: bedrock, region: x, auth: {}}]",
        &["upstreams[0].provider: not supported by this version"],
    );
    refused(
        "upstreams: [{provider: Anthropic, auth: {api_key: k}}]",
        &["upstreams[0].provider: unknown provider; did you mean anthropic?"],
    );
    refused("upstreams: [{provider: anthropic, auth: {}}]", &["upstreams[0].auth: no credential"]);
    refused("upstreams: [{provider: anthropic, auth: {api_key: ''}}]", &["upstreams[0].auth.api_key: blank"]);
    refused(
        "upstreams: [{provider: anthropic, auth: {api_key: a, oauth_token: b}}]",
        &["upstreams[0].auth: api_key and"],
    );
    refused(
        "upstreams: [{provider: anthropic, auth: {federation_rule_id: a}}]",
        &["upstreams[0].auth.federation_rule_id: not supported by this version"],
    );
    let two = "upstreams:\n- &a {provider: anthropic, auth: {api_key: k}}\n- *a";
    refused(two, &["upstreams[1]: another upstream is called anthropic"]);
    refused(&upstream("models: []"), &["upstreams[0].models: an empty list"]);
    refused(&upstream("groups: [' ']"), &["upstreams[0].groups[0]: blank"]);
    refused(&upstream("name: ''"), &["upstreams[0].name: blank"]);
    refused(&upstream("base_url: 'https://h.example.com/?a'"), &["upstreams[0].base_url: must have no query"]);
    refused(&upstream("forward_user_identity: true"), &["upstreams[0].forward_user_identity: is for a proxy"]);
    for name in ["Authorization", "x-api-key", "Anthropic-Beta", "X-Amz-Date", "user-agent", "x-claude-gateway-user-id"]
    {
        let expected = format!("upstreams[0].headers.{name}: the gateway sets this header");
        refused(&upstream(&format!("headers: {{{name}: x}}")), &[expected.as_str()]);
    }
    refused(&upstream("headers: {'a b': x}"), &["upstreams[0].headers.a b: the name must be"]);
    refused(&upstream("headers: {a: 'x '}"), &["upstreams[0].headers.a: must be printable ASCII"]);
    refused(&upstream("headers: {a: x, A: y}"), &["upstreams[0].headers: a is written twice"]);
    let (config, _) = valid(&upstream("headers: {Cookie: c, X-Forwarded-For: f, via: v, x-app: a}"));
    assert_eq!(config.upstreams[0].headers.len(), 4);
    refused("timeouts: {upstream_ttfb_ms: 0}", &["timeouts.upstream_ttfb_ms: must be"]);
}

#[test]
fn hosts_that_the_guard_refuses_are_refused_in_every_url() {
    for host in [
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "[::ffff:169.254.169.254]",
        "metadata.google.internal.",
        "0.0.0.0",
    ] {
        let url = format!("https://{host}/");
        refused(
            &format!(
                "oidc: {{issuer: '{url}', client_id: a, client_secret: b}}\n\
                 upstreams: [{{provider: anthropic, auth: {{api_key: k}}, base_url: '{url}'}}]\n\
                 telemetry: {{forward_to: [{{url: '{url}'}}]}}"
            ),
            &["oidc.issuer: ECONN", "upstreams[0].base_url: ECONN", "telemetry.forward_to[0].url: ECONN"],
        );
    }
}

#[test]
fn loopback_hosts_need_the_switch_in_the_environment() {
    let text = file("upstreams: [{provider: anthropic, auth: {api_key: k}, base_url: 'http://127.0.0.1:9'}]");
    assert!(read(&text).is_err());
    for (value, allowed) in [("1", true), ("0", false), ("", false), ("true", false)] {
        let environment = Environment::from_pairs([("CLAUDE_GATEWAY_ALLOW_LOOPBACK", value)]);
        assert_eq!(parse(text.as_bytes(), Path::new(""), &environment).is_ok(), allowed, "{value}");
    }
    assert!(
        valid("upstreams: [{provider: anthropic, auth: {api_key: k}, base_url: 'http://localhost:9'}]")
            .0
            .connect
            .proxy
            .is_none()
    );
}

#[test]
fn model_rules() {
    refused("models: [{}]", &["models[0].id: missing", "models[0].upstream_model: missing"]);
    refused("models: [{id: a, upstream_model: {}}]", &["models[0].upstream_model: maps to no upstream"]);
    refused(
        "models: [{id: a, upstream_model: {antropic: b}}]",
        &["models[0].upstream_model.antropic: no upstream has this name; did you mean anthropic?"],
    );
    refused(
        "models: [{id: a, upstream_model: {anthropic: b}}, {id: A, upstream_model: {anthropic: c}}]",
        &["models[1]: A is listed twice"],
    );
    refused("auto_include_builtin_models: 'no'", &["auto_include_builtin_models: must be true or false"]);
    assert_eq!(valid("auto_include_builtin_models: false").1[0].path, "auto_include_builtin_models");
}

#[test]
fn policy_rules() {
    let policy = |policy: &str| format!("managed: {{policies: [{policy}]}}");
    refused("managed: {}", &["managed.policies: missing"]);
    refused("managed: {settings: /etc/x.json}", &["managed.settings: not supported by this version"]);
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
    let (config, _) = valid(&policy("{}"));
    let policies = config.policy.policies.unwrap();
    assert!(policies[0].groups.is_none() && policies[0].cli.is_none());
}

#[test]
fn admin_rules() {
    let key = "an-admin-key-of-at-least-32-characters";
    refused("admin: {write_keys: [{}]}", &["admin.write_keys[0].id: missing", "admin.write_keys[0].key: missing"]);
    refused("admin: {read_keys: [{id: a, key: short}]}", &["admin.read_keys[0].key: must be at least 32"]);
    refused(
        &format!("admin: {{write_keys: [{{id: a, key: {key}}}], read_keys: [{{id: a, key: {key}}}]}}"),
        &["admin.read_keys[0].id: another admin key has this id", "admin.read_keys[0].key: equals another"],
    );
    refused("admin: {admin_groups: ['']}", &["admin.admin_groups[0]: blank"]);
    refused("admin: {group_limit_mode: avg}", &["admin.group_limit_mode: must be min or max, not avg"]);
    for tag in ["anthropic-x", "Anthropic", "a b", "ä", &"x".repeat(65)] {
        refused(&format!("admin: {{billing_group_tag: '{tag}'}}"), &["admin.billing_group_tag: must be 1 to 64"]);
    }
    refused(
        "enforcement: {fail_closed_on_error: true}",
        &["enforcement.fail_closed_on_error: needs the admin section"],
    );
    refused("enforcement: {wait_seconds: 301}", &["enforcement.wait_seconds: must be"]);
    let (config, _) = valid("admin: {}\nenforcement: {fail_closed_on_error: false}");
    let spend = config.admin.unwrap().spend;
    assert_eq!((spend.group_mode, spend.fail_closed, spend.wait), (GroupMode::Min, false, Duration::from_secs(5)));
}

#[test]
fn pricing_rules() {
    refused("pricing: {multiplier: 1}", &["pricing: needs admin"]);
    for wrong in ["0", "-1", "half", "1.0000000001"] {
        refused(
            &format!("admin: {{}}\npricing: {{multiplier: {wrong}}}"),
            &["pricing.multiplier: must be a number above 0"],
        );
    }
    let rates = "input: 1, output: 2, cache_read: 0.1, cache_write: 1.5";
    let row = |row: &str| format!("admin: {{}}\npricing: {{overrides: [{row}]}}");
    refused(&row(&format!("{{upstream: x, model: m, {rates}}}")), &["pricing.overrides[0].upstream: no upstream"]);
    refused(
        &row("{model: m, input: 1, output: 2, cache_read: 0, }"),
        &["pricing.overrides[0].cache_read: must be a number above 0", "pricing.overrides[0].cache_write: missing"],
    );
    refused(&row(&format!("{{model: m, {rates}}}, {{model: M, {rates}}}")), &["pricing.overrides[1]: an earlier row"]);
    let (config, warnings) = valid("managed: {policies: []}\npricing: {multiplier: 1.5}");
    assert_eq!(warnings[0].path, "pricing.multiplier");
    assert_eq!(config.policy.model_pricing.unwrap().to_string(), r#"{"multiplier":1.5,"overrides":{}}"#);
}

#[test]
fn telemetry_rules() {
    let to = |destination: &str| format!("telemetry: {{forward_to: [{destination}]}}");
    refused(&to("{}"), &["telemetry.forward_to[0].url: missing"]);
    refused(&to("{url: 'http://10.0.0.1'}"), &["telemetry.forward_to[0].url: must be an https URL"]);
    refused(&to("{url: 'http://127.0.0.1:4318'}"), &["telemetry.forward_to[0].url: ECONNREFUSED_SSRF"]);
    refused(
        &to("{url: 'https://o.example.com', logs: 'yes'}"),
        &["telemetry.forward_to[0].logs: must be true or false"],
    );
    refused(
        &to("{url: 'https://o.example.com', auth: {google: {}}}"),
        &["telemetry.forward_to[0].auth: not supported"],
    );
    let attribute = |pair: &str| format!("telemetry: {{resource_attributes: {{{pair}}}}}");
    refused(&attribute("user.email: x"), &["telemetry.resource_attributes.user.email: says who is calling"]);
    refused(&attribute("a b: x"), &["telemetry.resource_attributes.a b: the name must be"]);
    for wrong in ["a b", "a,b", "a;b", "a=b", "a%b", "ä"] {
        refused(&attribute(&format!("a: '{wrong}'")), &["telemetry.resource_attributes.a: must be printable ASCII"]);
    }
    let (config, warnings) = valid(&to("{url: 'http://localhost:4318'}"));
    assert!(config.policy.telemetry_env.is_empty());
    assert_eq!(warnings[0].path, "telemetry");
}

#[test]
fn access_rules() {
    refused("access_control: {allow_cidrs: [10.0.0.0/33]}", &["access_control.allow_cidrs[0]: must be an address"]);
    refused("limits: {max_request_bytes: 0}", &["limits.max_request_bytes: must be a whole number from 1, not 0"]);
    refused("limits: {max_url_length: 1.5}", &["limits.max_url_length: must be a whole number"]);
    refused("rate_limits: {device_verify: {max: 0}}", &["rate_limits.device_verify.max: must be"]);
    refused(&format!("login_notice: {}", "x".repeat(501)), &["login_notice: must be 1 to 500"]);
    refused("login_notice: ''", &["login_notice: blank"]);
}

#[test]
fn an_unknown_key_is_refused_with_what_was_meant() {
    refused("listen: {host: localhost, prot: 1}", &["listen.prot: unknown key; did you mean port?"]);
    refused("acess_control: {}", &["acess_control: unknown key; did you mean access_control?"]);
    refused("timeouts: {x: 1}", &["timeouts.x: unknown key; the keys here are upstream_ttfb_ms"]);
}

#[test]
fn a_key_written_twice_is_refused_with_both_lines() {
    let problems = read(&file("listen:\n  host: localhost\n  host: localhost")).unwrap_err();
    let line = problems[0].line.unwrap();
    let expected = format!("listen.host (line {line}): written twice, first on line {}; keep one", line - 1);
    assert_eq!((problems.len(), problems[0].to_string()), (1, expected));
}

#[test]
fn a_reference_that_cannot_be_filled_in_is_told_once_and_in_its_place() {
    refused("session: {jwt_secret: '${NOPE}'}", &["session.jwt_secret: the environment variable NOPE is not set"]);
    refused("session: {jwt_secret: '${NOPE:-x}'}", &["session.jwt_secret: ${NOPE...} knows no default"]);
    refused(
        "session: {jwt_secret: '${file:/nonexistent}'}",
        &["session.jwt_secret: the file /nonexistent cannot be read"],
    );
    refused("session: {jwt_secret: 'x${file:/etc/hostname}'}", &["session.jwt_secret: ${file:...} must be the whole"]);
}

#[test]
fn what_is_no_mapping_of_sections_is_refused_in_one_sentence() {
    for (text, part) in [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "the file must be a mapping"),
        ("just text", "the file must be a mapping"),
        ("a: [", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "a second YAML document"),
        ("? [a]\n: b\n", "a list or a mapping cannot be a key"),
        ("a: *b\n", "not valid YAML"),
        ("a: &a [*a]\n", "this alias stands inside the value that it repeats"),
        ("a:\n\t- x", "not valid YAML"),
    ] {
        let problems = read(text).unwrap_err();
        assert!(problems.len() == 1 && problems[0].message.starts_with(part), "{text:?}: {problems:?}");
    }
    assert_eq!(
        parse(b"a: \xff", Path::new(""), &environment()).unwrap_err()[0].message,
        "the file is not UTF-8 text; save it as UTF-8"
    );
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let laughs = (1..=9).fold("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        let below = format!("*l{}", level - 1);
        format!("{text}l{level}: &l{level} [{}]\n", [below.as_str(); 10].join(", "))
    });
    assert!(read(&laughs).unwrap_err()[0].message.starts_with("the file holds too much"));
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), ["*a"; 1000].join(", "));
    assert!(read(&long).unwrap_err()[0].message.starts_with("the file holds too much"));
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(read(&deep).unwrap_err()[0].message.starts_with("nested more than 64 levels"));
    let ladder = (1..=20).fold("l0: &l0 [[[[[[x]]]]]]\n".to_owned(), |text, level| {
        format!("{text}l{level}: &l{level} [[[[[[*l{}]]]]]]\n", level - 1)
    });
    assert!(read(&ladder).unwrap_err()[0].message.starts_with("nested more than 64 levels"));
}

#[test]
fn tags_and_merges_that_mean_nothing_are_refused() {
    refused("listen: {host: !secret localhost}", &["listen.host: the tag !secret means nothing here"]);
    refused("listen: {host: localhost, <<: 5}", &["listen.<<: only a mapping can be merged"]);
    assert_eq!(valid("listen: {host: !!str localhost, port: !!int 7}").0.listen.port, 7);
    refused(
        "oidc: {issuer: 'https://i.example.com', client_id: 5, client_secret: b}",
        &["oidc.client_id: must be text"],
    );
    let merged = "listen:\n  <<: [{port: 1, host: 10.0.0.1}, {port: 2}]\n  host: localhost";
    assert_eq!((valid(merged).0.listen.port, valid(merged).0.listen.host), (1, "localhost".to_owned()));
}

#[test]
fn the_environment_is_read_with_forgiveness() {
    let text = file("");
    let with = |pairs: &[(&str, &str)]| {
        parse(text.as_bytes(), Path::new(""), &Environment::from_pairs(pairs.iter().copied())).unwrap()
    };
    let (config, warnings) = with(&[
        ("CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS", "100"),
        ("CLAUDE_GATEWAY_LOG_LEVEL", "WARN"),
        ("https_proxy", "http://proxy:3128"),
        ("NO_PROXY", "localhost"),
    ]);
    assert_eq!((config.drain_timeout, config.log_level), (Duration::from_millis(100), LogLevel::Warn));
    let proxy = config.connect.proxy.unwrap();
    assert_eq!(proxy.https.unwrap().expose_secret(), "http://proxy:3128");
    assert_eq!((proxy.http.is_none(), proxy.no_proxy.as_deref()), (true, Some("localhost")));
    assert_eq!(warnings, []);
    let (config, warnings) = with(&[("CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS", "soon"), ("CLAUDE_GATEWAY_LOG_LEVEL", "loud")]);
    assert_eq!((config.drain_timeout, config.log_level), (Duration::from_secs(25), LogLevel::Info));
    assert_eq!(warnings.len(), 2);
}

#[test]
fn a_file_is_loaded_with_the_digest_of_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    std::fs::write(&path, "a: 1\n").unwrap();
    let problems = super::load(&path, &environment()).unwrap_err();
    assert!(
        problems.to_string().starts_with(&format!("tollgate: 5 problems in {}:\n  listen: missing", path.display()))
    );
    std::fs::write(&path, file("")).unwrap();
    let loaded = super::load(&path, &environment()).unwrap();
    assert_eq!(loaded.digest.len(), 64);
    assert_eq!(loaded.digest, super::load(&path, &environment()).unwrap().digest);
    assert!(
        matches!(&loaded.config.store, store::Config::Sqlite { path } if path == &folder.path().join("tollgate.db"))
    );
    std::fs::write(&path, vec![b'#'; tree::MAX_BYTES + 1]).unwrap();
    assert!(super::load(&path, &environment()).unwrap_err().to_string().contains("larger than 1 MiB"));
    assert!(
        super::load(&folder.path().join("none.yaml"), &environment())
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
    assert!(super::load(folder.path(), &environment()).is_err());
}

#[test]
fn the_example_works_once_its_variables_are_set() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/gateway.example.yaml");
    let variables = [
        ("OIDC_CLIENT_SECRET", "from the identity provider"),
        ("GATEWAY_JWT_SECRET", SECRET),
        ("ANTHROPIC_API_KEY", "sk-ant-test"),
    ];
    let loaded = super::load(&example, &Environment::from_pairs(variables)).unwrap();
    assert_eq!((loaded.config.upstreams.len(), loaded.warnings), (1, Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_change_to_a_good_file_makes_the_reader_panic(
        changes in prop::collection::vec((0_usize..6000, 0_usize..20, "[\\PC\n]{0,8}|[-:{}\\[\\]&*!|>'\"%@`#,?\n ~$]{1,6}"), 1..6),
        awful: bool,
    ) {
        let mut text: Vec<char> = if awful { AWFUL } else { EVERY_KEY }.chars().collect();
        for (at, dropped, inserted) in changes {
            let at = at % text.len().max(1);
            let end = (at + dropped).min(text.len());
            text.splice(at.min(end)..end, inserted.chars());
        }
        if let Err(problems) = read(&text.into_iter().collect::<String>()) {
            prop_assert!(!problems.is_empty());
        }
    }
}
