//! The rules of each section.

use std::path::Path;
use std::time::Duration;

use control::identity::{ClientCredential, SecretMethod};
use control::spend::{GroupMode, Overshoot};
use proxy::upstream::{ApiConfig, AwsCredential};

use super::{GOOGLE_KEY_FILE, SECRET, environment, file, parse, read, refused, valid};
use crate::config::Environment;

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
    refused("listen: {host: '::1', tls: {cert: /, key: '${CERT_FILE}'}}", &["listen.tls.cert: is a folder"]);
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

/// `oidc` with the client's credential written as given.
fn oidc_client(credential: &str) -> String {
    format!("oidc: {{issuer: 'https://i.example.com', client_id: a, {credential}}}")
}

#[test]
fn a_client_has_a_secret_or_a_key_and_never_both() {
    let key = "client_assertion: {private_key_pem: '${CLIENT_KEY}', certificate_pem: '${CLIENT_CERTIFICATE}'}";
    let jwt = "token_endpoint_auth_method: private_key_jwt";
    let method = |written: &str| match valid(&oidc_client(written)).0.oidc.client {
        ClientCredential::Secret { method, .. } => method,
        ClientCredential::Assertion(_) => panic!("a key"),
    };
    assert_eq!(method("client_secret: s"), None);
    let written = |name: &str| format!("client_secret: s, token_endpoint_auth_method: {name}");
    assert_eq!(method(&written("client_secret_basic")), Some(SecretMethod::Basic));
    assert_eq!(method(&written("client_secret_post")), Some(SecretMethod::Post));
    valid(&oidc_client(&format!("{jwt}, {key}")));
    for (credential, problem) in [
        (format!("{jwt}, {key}, client_secret: s"), "oidc.client_secret: stands beside"),
        (jwt.to_owned(), "oidc.client_assertion: missing; private_key_jwt"),
        (
            format!("client_secret: s, {key}"),
            "oidc.client_assertion: needs token_endpoint_auth_method: private_key_jwt",
        ),
        (written("none"), "oidc.token_endpoint_auth_method: must be client_secret_basic or"),
        (
            format!("{jwt}, client_assertion: {{private_key_pem: x, certificate_pem: '${{CLIENT_CERTIFICATE}}'}}"),
            "oidc.client_assertion: private_key_pem holds no private key",
        ),
        (
            format!("{jwt}, client_assertion: {{private_key_pem: '${{CLIENT_KEY}}', certificate_pem: x}}"),
            "oidc.client_assertion: certificate_pem holds no certificate",
        ),
    ] {
        refused(&oidc_client(&credential), &[problem]);
    }
}

#[test]
fn without_a_key_file_google_groups_are_asked_for_with_what_the_environment_has() {
    let with = |name: &str, value: &str| {
        let text = file(&oidc_client("client_secret: s, google_groups: {admin_email: a@b.c}"));
        let environment = environment().and(name, value);
        let read = parse(text.as_bytes(), Path::new("/etc/tollgate"), &environment);
        read.map(|(config, _)| format!("{:?}", config.oidc.google_groups.unwrap()))
            .map_err(|problems| format!("{}: {}", problems[0].path, problems[0].message))
    };
    let machine = with("EMPTY", "").unwrap();
    assert!(machine.contains("metadata.google.internal") && machine.contains("oauth2.googleapis.com"), "{machine}");
    assert!(with("GCE_METADATA_HOST", "127.0.0.1:8998").unwrap().contains("127.0.0.1:8998"));
    assert!(with("GOOGLE_APPLICATION_CREDENTIALS", GOOGLE_KEY_FILE).unwrap().contains("gateway@"));
    for (name, value, problem) in [
        ("GCE_METADATA_HOST", "http://x/", "GCE_METADATA_HOST is not a host, or a host and a port"),
        ("GCE_METADATA_HOST", "user@x", "GCE_METADATA_HOST is not a host, or a host and a port"),
        (
            "GOOGLE_APPLICATION_CREDENTIALS",
            "/nonexistent/key.json",
            "GOOGLE_APPLICATION_CREDENTIALS names a file that is no service account key",
        ),
    ] {
        let told = with(name, value).unwrap_err();
        assert!(told.starts_with(&format!("oidc.google_groups: {problem}")), "{told}");
    }
}

#[test]
fn what_is_said_of_the_provider_can_be_so() {
    for (more, problem) in [
        ("discovery_url: 'https://i.example.com/metadata'", "oidc.discovery_url: must be the URL of a discovery"),
        ("discovery_url: 'http://169.254.169.254/.well-known/x'", "oidc.discovery_url: ECONNREFUSED_SSRF"),
        ("id_token_signed_response_alg: HS256", "oidc.id_token_signed_response_alg: must be RS256 or"),
        ("clock_skew_seconds: -1", "oidc.clock_skew_seconds: must be a whole number from 0"),
        ("ca_cert_pem: '-----BEGIN CERTIFICATE-----'", "oidc.ca_cert_pem: must be one or more certificates"),
        ("ca_cert_pem: none", "oidc.ca_cert_pem: must be one or more certificates"),
        ("additional_authorized_parties: ['']", "oidc.additional_authorized_parties[0]: blank"),
        ("use_proxy: 'yes'", "oidc.use_proxy: must be true or false"),
        ("google_groups: {}", "oidc.google_groups.admin_email: missing"),
        (
            "google_groups: {service_account_json_path: /nonexistent/key.json, admin_email: a@b.c}",
            "oidc.google_groups.service_account_json_path: the file cannot be read",
        ),
        (
            "google_groups: {service_account_json_path: '${CERT_FILE}', admin_email: a@b.c}",
            "oidc.google_groups.service_account_json_path: is no service account key",
        ),
        (
            "google_groups: {service_account_json_path: '${GOOGLE_KEY_FILE}', admin_email: admin}",
            "oidc.google_groups.admin_email: must be an e-mail address",
        ),
    ] {
        refused(&oidc_client(&format!("client_secret: s, {more}")), &[problem]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    for (uri, problem) in [
        ("http://oauth2.googleapis.com/token", " is not an https URL"),
        ("https://169.254.169.254/token", ": ECONNREFUSED_SSRF"),
    ] {
        let key = std::fs::read_to_string(GOOGLE_KEY_FILE).unwrap();
        std::fs::write(&path, key.replace("https://oauth2.googleapis.com/token", uri)).unwrap();
        let google = format!("{{service_account_json_path: '{}', admin_email: a@b.c}}", path.display());
        let problem = format!("oidc.google_groups.service_account_json_path: the key's token_uri{problem}");
        refused(&oidc_client(&format!("client_secret: s, google_groups: {google}")), &[problem.as_str()]);
    }
    let (config, warnings) = valid(&oidc_client("client_secret: s, clock_skew_seconds: 301, use_proxy: true"));
    assert_eq!((config.oidc.clock_skew_seconds, config.oidc.use_proxy), (301, Some(true)));
    let told: Vec<_> = warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(told, ["oidc.clock_skew_seconds", "oidc.use_proxy"]);
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
    for days in ["idle_days: 0", "max_days: 3651", "idle_days: 1.5"] {
        let key = days.split(':').next().unwrap_or_default();
        refused(&format!("session: {{jwt_secret: '{SECRET}', {days}}}"), &[&format!("session.{key}: must be")]);
    }
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

fn aws_upstreams() {
    let one = |keys: &str| format!("upstreams: [{{{keys}}}]");
    let bedrock = |more: &str| one(&format!("provider: bedrock, region: eu-west-1, {more}"));
    refused(&one("provider: bedrock"), &["upstreams[0].region: missing"]);
    refused(&one("provider: bedrock, region: Frankfurt"), &["upstreams[0].region: must be an AWS region"]);
    refused(&one("provider: mantle, region: us-east-1"), &["upstreams[0].models: missing"]);
    refused(&one("provider: anthropicAws, region: us-east-1"), &["upstreams[0].workspace_id: missing"]);
    refused(
        &one("provider: anthropic, auth: {api_key: k}, region: us-east-1"),
        &["upstreams[0].region: is for bedrock, mantle, anthropicAws, vertex, and this upstream is anthropic"],
    );
    refused(
        &one("provider: mantle, region: us-east-1, models: [claude-sonnet-5], guardrail: {id: a, version: '1'}"),
        &["upstreams[0].guardrail: is for bedrock, and this upstream is mantle"],
    );
    refused(&bedrock("auth: {api_key: k}"), &["upstreams[0].auth.api_key: is for anthropic, anthropicAws"]);
    refused(&bedrock("auth: {aws_access_key_id: k}"), &["upstreams[0].auth.aws_secret_access_key: missing"]);
    refused(
        &bedrock("auth: {aws_session_token: k}"),
        &["upstreams[0].auth.aws_access_key_id: missing", "upstreams[0].auth.aws_secret_access_key: missing"],
    );
    refused(&bedrock("guardrail: {id: g}"), &["upstreams[0].guardrail.version: missing"]);
    refused(&bedrock("assume_role: {}"), &["upstreams[0].assume_role.role_arn: missing"]);
    let role = "role_arn: 'arn:aws:iam::111122223333:role/r'";
    refused(&bedrock("assume_role: {role_arn: r}"), &["upstreams[0].assume_role.role_arn: must be the ARN of a role"]);
    refused(
        &bedrock(&format!("assume_role: {{{role}, session_name: name}}")),
        &["upstreams[0].assume_role.session_name: must be email or sub"],
    );
    refused(
        &bedrock(&format!("auth: {{aws_bearer_token: t}}, assume_role: {{{role}}}")),
        &["upstreams[0].assume_role: a bearer token cannot assume a role"],
    );

    let (config, warnings) = valid(&bedrock(&format!("guardrail: {{id: g, version: 1}}, assume_role: {{{role}}}")));
    assert_eq!((config.upstreams[0].name.as_str(), warnings.len()), ("bedrock", 0));
    assert_eq!(config.upstreams[0].base_url.as_str(), "https://bedrock-runtime.eu-west-1.amazonaws.com/");
    let keys = "aws_bearer_token: t, aws_access_key_id: a, aws_secret_access_key: b";
    let (config, warnings) = valid(&bedrock(&format!("auth: {{{keys}}}")));
    assert!(
        matches!(&config.upstreams[0].api, ApiConfig::Bedrock(api) if matches!(api.aws.credential, AwsCredential::Bearer(_)))
    );
    assert!(warnings[0].message.contains("the keys beside it are not"), "{warnings:?}");
    let (config, warnings) =
        valid(&one("provider: mantle, region: us-east-1, models: [claude-sonnet-4-6, claude-sonnet-5]"));
    assert_eq!(config.upstreams[0].base_url.as_str(), "https://bedrock-mantle.us-east-1.api.aws/anthropic");
    assert_eq!(warnings[0].path, "upstreams[0].models[0]");
    assert_eq!(warnings[0].message, "has no id there; add mantle to its upstream_model");
    let (config, _) = valid(&one("provider: anthropicAws, region: us-west-2, workspace_id: w, auth: {api_key: k}"));
    assert_eq!(config.upstreams[0].base_url.as_str(), "https://aws-external-anthropic.us-west-2.api.aws/");
}

fn google_upstreams() {
    let one = |text: &str| format!("upstreams: [{{provider: {text}}}]");
    refused(&one("vertex"), &["upstreams[0].project_id: missing", "upstreams[0].region: missing"]);
    refused(
        &one("anthropicGoogleCloud, region: global"),
        &["upstreams[0].project_id: missing", "upstreams[0].workspace_id: missing", "upstreams[0].region: is for"],
    );
    let vertex = |more: &str| one(&format!("vertex, {more}"));
    refused(&vertex("project_id: a/b, region: x"), &["upstreams[0].project_id: must be the id of a Google"]);
    refused(&vertex("project_id: p, region: Europe"), &["upstreams[0].region: must be a region"]);
    refused(
        &vertex("project_id: p, region: x, auth: {service_account_json: /nowhere/key.json}"),
        &["upstreams[0].auth.service_account_json: /nowhere/key.json: it cannot be read: No such file"],
    );
    refused(&vertex("project_id: p, region: x, auth: {api_key: k}"), &["upstreams[0].auth.api_key: is for"]);
    let (config, warnings) = valid(&vertex("project_id: p, region: us"));
    assert_eq!(config.upstreams[0].base_url.as_str(), "https://aiplatform.us.rep.googleapis.com/v1");
    assert_eq!(warnings[0].path, "upstreams[0]");
    assert!(warnings[0].message.starts_with("it serves claude-sonnet-4-5, which has no context of 1 million"));
    let (config, warnings) =
        valid(&vertex("project_id: p, region: x-1, models: [claude-opus-5], base_url: 'https://h/v1'"));
    assert_eq!((config.upstreams[0].base_url.as_str(), warnings.len()), ("https://h/v1", 0));
    let (config, _) = valid(&one("anthropicGoogleCloud, project_id: p, workspace_id: wrkspc_1"));
    assert_eq!(
        config.upstreams[0].base_url.as_str(),
        "https://claude.googleapis.com/v1alpha/projects/p/locations/global/workspaces/wrkspc_1/invoke"
    );
}

fn foundry_upstreams() {
    let one = |text: &str| format!("upstreams: [{{provider: foundry, {text}}}]");
    refused(
        &one("region: x"),
        &["upstreams[0].resource: missing", "upstreams[0].auth: missing", "upstreams[0].region: is for"],
    );
    for resource in ["a", "-ab", "ab-", "a.b", "a b"] {
        let text = one(&format!("resource: '{resource}', auth: {{api_key: k}}"));
        refused(&text, &["upstreams[0].resource: must be the name of a Foundry resource"]);
    }
    refused(&one("resource: ab, auth: {}"), &["upstreams[0].auth: no credential"]);
    refused(&one("resource: ab, auth: {use_azure_ad: false}"), &["upstreams[0].auth.use_azure_ad: write true"]);
    let both = one("resource: ab, auth: {use_azure_ad: true, api_key: k}");
    refused(&both, &["upstreams[0].auth: api_key and use_azure_ad exclude each other"]);
    let (config, _) = valid(&one("resource: ab, auth: {api_key: k}"));
    assert_eq!(config.upstreams[0].base_url.as_str(), "https://ab.services.ai.azure.com/anthropic");
}

fn federation() {
    let one = |auth: &str| format!("upstreams: [{{provider: anthropic, auth: {{federation_rule_id: a, {auth}}}}}]");
    refused(
        &one("workspace_id: b"),
        &["upstreams[0].auth.organization_id: missing", "upstreams[0].auth.identity_token_file: missing"],
    );
    refused(
        &one("organization_id: b, identity_token_file: /nowhere/token"),
        &["upstreams[0].auth.identity_token_file: the file cannot be read"],
    );
    refused(&one("api_key: k"), &["upstreams[0].auth: api_key, oauth_token and a federation rule exclude each other"]);
}

#[test]
fn upstream_rules() {
    let upstream = |more: &str| format!("upstreams: [{{provider: anthropic, auth: {{api_key: k}}, {more}}}]");
    refused("upstreams: []", &["upstreams: an empty list"]);
    refused("upstreams: [{}]", &["upstreams[0].provider: missing", "upstreams[0].auth: missing"]);
    refused(
        "upstreams: [{provider: Anthropic, auth: {api_key: k}}]",
        &["upstreams[0].provider: unknown provider; did you mean anthropic?"],
    );
    refused("upstreams: [{provider: anthropic, auth: {}}]", &["upstreams[0].auth: no credential"]);
    refused("upstreams: [{provider: anthropic, auth: {api_key: ''}}]", &["upstreams[0].auth.api_key: blank"]);
    refused(
        "upstreams: [{provider: anthropic, auth: {api_key: a, oauth_token: b}}]",
        &["upstreams[0].auth: api_key, oauth_token and"],
    );
    aws_upstreams();
    google_upstreams();
    foundry_upstreams();
    federation();
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
fn how_an_upstream_fails_over_is_checked() {
    let upstream = |rest: &str| format!("upstreams: [{{provider: anthropic, auth: {{api_key: k}}, {rest}}}]");
    refused(&upstream("timeouts: {connect_ms: 10001}"), &["upstreams[0].timeouts.connect_ms: must be"]);
    refused(&upstream("failover_on: []"), &["upstreams[0].failover_on: an empty list"]);
    refused(
        &upstream("failover_on: [overloaded, 399, rate_limits, x]"),
        &[
            "upstreams[0].failover_on[0]: unknown kind of failure; did you mean overload?",
            "upstreams[0].failover_on[1]: a status must be one of an error, from 400 to 599",
            "upstreams[0].failover_on[2]: unknown kind of failure; did you mean rate_limit?",
            "upstreams[0].failover_on[3]: unknown kind of failure; write a status, or one of connect, timeout",
        ],
    );
    refused(&upstream("breaker: {failure_percent: 101}"), &["upstreams[0].breaker.failure_percent: must be"]);
    refused(&upstream("breaker: {open_seconds: 301}"), &["upstreams[0].breaker.open_seconds: must be"]);
    let (config, _) = valid(&upstream("breaker: {enabled: false}"));
    assert_eq!(config.upstreams[0].breaker, None);
    refused("limits: {max_concurrent_requests: 0}", &["limits.max_concurrent_requests: must be"]);
    for (wrong, key) in [
        ("{enabled: true, reply_tokens: 0}", "reply_tokens: must be"),
        ("{enabled: true, reply_tokens: 100001}", "reply_tokens: must be"),
        ("{enabled: true, reply_seconds: 600.1}", "reply_seconds: must be"),
        ("{enabled: true, reply_seconds: -1}", "reply_seconds: must be"),
        ("{reply_tokens: 1}", "enabled: "),
    ] {
        refused(&format!("load_test_mode: {wrong}"), &[&format!("load_test_mode.{key}")]);
    }
    let (config, warnings) = valid("load_test_mode: {enabled: true, reply_tokens: 100000, reply_seconds: 600}");
    assert_eq!(config.load_test.map(|mode| (mode.reply_tokens, mode.reply_time.as_secs())), Some((100_000, 600)));
    assert!(warnings.iter().any(|warning| warning.to_string().contains("load test mode is on")), "{warnings:?}");
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
    refused("enforcement: {overshoot: none}", &["enforcement.overshoot: needs the admin section"]);
    let open = "admin: {}\nenforcement: {overshoot: none, fail_closed_on_error: false}";
    refused(open, &["enforcement.fail_closed_on_error: must be true, or left out"]);
    let (config, _) = valid("admin: {}\nenforcement: {overshoot: none}");
    let spend = config.admin.unwrap().spend;
    assert_eq!((spend.overshoot, spend.fail_closed), (Overshoot::None, true));
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
    let (config, warnings) = valid(&row(&format!("{{model: claude-haiku-4-5, {rates}}}, {{model: m, {rates}}}")));
    assert_eq!(config.pricing.overrides[0].rates.cache_write_1h, 1_500_000_000);
    assert_eq!(warnings.iter().map(|warning| &*warning.path).collect::<Vec<_>>(), ["pricing.overrides[1]"]);
    refused("admin: {}\npricing: {unknown_model: free}", &["pricing.unknown_model: must be tier or refuse, not free"]);
    let (config, warnings) = valid("managed: {policies: []}\npricing: {multiplier: 1.5}");
    assert_eq!(warnings[0].path, "pricing.multiplier");
    assert_eq!(config.policy.model_pricing.unwrap().to_string(), r#"{"multiplier":1.5,"overrides":{}}"#);
}

#[test]
fn a_model_without_a_price_is_metered_at_the_unknown_tier_or_refused() {
    let file = |pricing: &str| {
        format!(
            "admin: {{}}\npricing: {{{pricing}}}\nmodels:\n  - {{id: listed, upstream_model: {{anthropic: claude-opus-4-6}}}}\n  \
             - {{id: strange, upstream_model: {{anthropic: model-x}}}}\n  \
             - {{id: claude-haiku-4-5, upstream_model: {{anthropic: my-deployment}}}}"
        )
    };
    let read = |pricing: &str| {
        let (config, warnings) = valid(&file(pricing));
        let ids: Vec<String> = config.models.into_iter().map(|model| model.id).collect();
        (ids, warnings.into_iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect::<Vec<_>>())
    };
    let (ids, warnings) = read("");
    assert_eq!(ids, ["listed", "strange", "claude-haiku-4-5"]);
    assert_eq!(
        warnings,
        [
            "models[1]: strange has no price on anthropic; it is metered at 5 and 25 USD per million tokens. Add a row to \
          pricing.overrides"
        ]
    );
    let (ids, warnings) = read("unknown_model: refuse");
    assert_eq!(ids, ["listed", "claude-haiku-4-5"]);
    assert!(
        warnings[0].starts_with("models[1]: strange has no price on anthropic; it is not served there"),
        "{warnings:?}"
    );
    assert!(valid(&file("unknown_model: tier").replace("admin: {}", "managed: {policies: []}")).1.is_empty());
    for model in ["strange", "MODEL-X"] {
        let row = format!("{{model: {model}, input: 1, output: 1, cache_read: 1, cache_write: 1}}");
        assert_eq!(read(&format!("unknown_model: refuse, overrides: [{row}]")).1, Vec::<String>::new(), "{model}");
    }
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
