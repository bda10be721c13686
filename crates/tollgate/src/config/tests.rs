//! What a configuration file may say.

mod policies;
mod rules;
mod text;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use control::identity::ClientCredential;
use control::spend::GroupMode;
use control::store;
use proxy::upstream::{ApiConfig, AwsCredential, Breaker, Credential, FailoverOn, SessionName, Timeouts, Trigger};
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

/// A key for tests, its certificate, and a service account's key file with it.
const CLIENT_KEY: &str = include_str!("tests/client_key.pem");
const CLIENT_CERTIFICATE: &str = include_str!("tests/client_certificate.pem");
const GOOGLE_KEY_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/google_key.json");

fn environment() -> Environment {
    let cert = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    Environment::from_pairs([
        ("JWT_SECRET", SECRET),
        ("OIDC_CLIENT_SECRET", "oidc-secret"),
        ("ANTHROPIC_API_KEY", "sk-ant-secret"),
        ("ADMIN_KEY", "an-admin-key-of-at-least-32-characters"),
        ("OTLP_TOKEN", "otlp-secret"),
        ("CERT_FILE", cert),
        ("CLIENT_KEY", CLIENT_KEY),
        ("CLIENT_CERTIFICATE", CLIENT_CERTIFICATE),
        ("GOOGLE_KEY_FILE", GOOGLE_KEY_FILE),
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
    assert!(matches!(oidc.client, ClientCredential::Assertion(_)));
    assert_eq!(oidc.discovery_url.as_ref().unwrap().query(), Some("appid=1"));
    assert_eq!((oidc.id_token_algorithm, oidc.clock_skew_seconds), (Some("ES512"), 5));
    assert_eq!(
        (oidc.additional_authorized_parties.as_slice(), oidc.authorities.len()),
        (&["portal".to_owned()][..], 1)
    );
    assert_eq!((oidc.use_proxy, oidc.scope_on_refresh), (Some(false), true));
    assert_eq!(oidc.google_groups.as_ref().unwrap().token_uri().as_str(), "https://oauth2.googleapis.com/token");
    assert_eq!(oidc.allowed_email_domains, ["example.com", "example.org"]);
    assert_eq!(oidc.groups_claim, "/resource_access/gateway/roles");
    assert_eq!(oidc.email_claim, ["upn", "email"]);
    assert_eq!(oidc.scopes, ["openid", "email", "groups"]);
    assert_eq!(oidc.extra_auth_params["access_type"], "offline");
    assert!(oidc.userinfo_fallback && !oidc.use_pkce);
    assert_eq!(config.form_action_origins, ["https://sso.example.com"]);

    assert_eq!(config.session.secrets[0].expose_secret(), SECRET);
    assert_eq!(config.session.ttl, Duration::from_secs(1800));
    assert_eq!(config.session.lasting.idle, Duration::from_secs(7 * 86_400));
    assert!(config.cut_streams);
    assert_eq!(config.session.lasting.max, Duration::from_secs(28 * 86_400));
    assert_eq!(config.session.issuer, "https://gateway.example.com");
    assert_eq!(config.session.billing_group_tag.as_deref(), Some("team:ai"));
    let store::Config::Postgres(postgres) = &config.store else { panic!("not PostgreSQL") };
    assert_eq!(postgres.password.as_ref().unwrap().expose_secret(), "p@ss:w/rd");
    assert_eq!((postgres.max_connections, postgres.connect_timeout), (20, Duration::from_secs(10)));
    assert_eq!(config.readiness_grace, Duration::from_secs(6));

    let [direct, proxy, second, clouded, ..] = config.upstreams.as_slice() else { panic!("too few upstreams") };
    assert_eq!((direct.name.as_str(), direct.base_url.as_str()), ("anthropic", "https://api.anthropic.com/"));
    let of = |upstream: &proxy::upstream::Config| match &upstream.api {
        ApiConfig::Anthropic(api) => api.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(of(direct).credential, Credential::ApiKey(key) if key.expose_secret() == "sk-ant-secret"));
    assert_eq!(direct.models.as_deref().unwrap(), ["claude-sonnet-4-6", "fast"]);
    assert_eq!(proxy.base_url.as_str(), "https://llm.example.com/prefix/");
    assert_eq!((proxy.headers[0].0.as_str(), proxy.headers[0].1.as_bytes()), ("x-team", &b"ai"[..]));
    assert!(of(proxy).forward_user_identity && matches!(of(proxy).credential, Credential::OauthToken(_)));
    assert_eq!((second.name.as_str(), second.base_url.as_str()), ("second", "https://llm.example.com/prefix/"));
    assert!(matches!(of(second).credential, Credential::ApiKey(_)));
    let ApiConfig::Bedrock(bedrock) = &clouded.api else { panic!("{clouded:?}") };
    let role = bedrock.aws.assume_role.as_ref().unwrap();
    assert_eq!((role.external_id.as_deref(), role.session_name), (Some("7"), Some(SessionName::Email)));
    assert!(matches!(&bedrock.aws.credential, AwsCredential::Keys { session_token: Some(_), .. }));
    assert_eq!(bedrock.guardrail.as_ref().unwrap().version, "DRAFT");
    let ms = Duration::from_millis;
    assert_eq!(direct.timeouts, Timeouts { connect: ms(3000), first_byte: ms(1500), idle: ms(90_000) });
    assert_eq!(proxy.timeouts, Timeouts { connect: ms(2000), first_byte: ms(30_000), idle: ms(60_000) });
    assert_eq!((&direct.failover_on, direct.breaker), (&FailoverOn::default(), Some(Breaker::default())));
    assert_eq!(proxy.failover_on, FailoverOn::new(vec![Trigger::Default, Trigger::Status(408)]));
    let breaker = proxy.breaker.unwrap();
    assert_eq!((breaker.consecutive_failures, breaker.failure_percent, breaker.minimum_requests), (3, 25, 10));
    assert_eq!((breaker.window, breaker.open_for), (Duration::from_secs(60), Duration::from_secs(5)));
    assert_eq!(config.models[0].upstream_model["proxy"], "haiku");
    assert!(!config.auto_include_builtin_models);
}

#[test]
fn a_file_that_uses_every_key_governs_as_it_says() {
    let (config, warnings) = read(EVERY_KEY).unwrap();
    let [contractors, base] = config.policy.policies.as_deref().unwrap() else { panic!("not two policies") };
    assert_eq!(contractors.groups.as_deref().unwrap(), ["contractors"]);
    assert_eq!(contractors.email_domains.as_deref().unwrap(), ["example.com"]);
    assert_eq!(serde_json::to_string(&contractors.settings).unwrap(), r#"{"availableModels":["claude-sonnet-4-6"]}"#);
    assert_eq!((&base.groups, &base.email_domains), (&None, &None));
    assert_eq!(serde_json::to_string(&base.settings).unwrap(), r#"{"env":{"A":"1","B":2,"C":1.5,"D":true}}"#);

    let admin = config.admin.as_ref().unwrap();
    assert_eq!((admin.keys.write[0].id.as_str(), admin.keys.read[0].id.as_str()), ("terraform", "reporting"));
    assert_eq!(admin.groups, ["finops"]);
    assert_eq!(admin.spend.group_mode, GroupMode::Max);
    assert_eq!(admin.spend.blocked_message.as_deref(), Some("ask at https://go/limits"));
    assert!(admin.spend.fail_closed);
    assert_eq!(admin.spend.wait, Duration::from_secs(2));
    assert_eq!(config.pricing.multiplier_nano, 850_000_000);
    let row = &config.pricing.overrides[0];
    assert_eq!(
        (row.upstream.as_deref(), row.rates.input, row.web_search),
        (Some("proxy"), 3_300_000_000, Some(20_000_000))
    );
    assert_eq!((row.rates.cache_write_5m, row.rates.cache_write_1h), (4_125_000_000, 6_600_000_000));
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
    assert_eq!((config.rate_limits.refresh.max, config.rate_limits.refresh.window), (20, Duration::from_secs(60)));
    assert_eq!(config.rate_limits.admin_auth.max, 5);
    let told: Vec<&str> = warnings.iter().map(|warning| warning.path.as_str()).collect();
    // The first: without the built-in list nothing is called so.
    assert_eq!(
        told,
        [
            "upstreams[0].models[0]",
            "upstreams[1].forward_user_identity",
            "upstreams[2].forward_user_identity",
            "upstreams[4].models[0]",
            "models[0]",
            "pricing.overrides[0]"
        ]
    );
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
    assert_eq!(config.upstreams[0].timeouts.first_byte, Duration::from_secs(120));
    assert_eq!((config.limits.max_concurrent_requests, config.limits.max_concurrent_per_user), (4096, None));
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
    let problems = Problems { file: "gateway.yaml".into(), problems: read(AWFUL).unwrap_err(), warnings: Vec::new() };
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
    // It excludes postgres_url, and the JSON file above has it; a key and a secret exclude each other too.
    written.extend(["store.sqlite_path".to_owned(), "oidc.client_secret".to_owned()]);
    // Of these, a file has one each.
    written.extend(["managed.settings".to_owned(), "managed.policies[].code".to_owned()]);
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
