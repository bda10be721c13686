//! The header tables of contract B1 and R27.
#![expect(clippy::unwrap_used, reason = "tests")]

use wire::messages::read_head;

use super::super::tests::config;
use super::*;
use crate::upstream::{ApiConfig, Endpoint};

const BODY: &str = r#"{"model":"m","tags":{"team":"eng"}}"#;

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = lines.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value);
    }
    headers
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

fn built(config: &Config, api: &AnthropicConfig) -> Result<Anthropic, Invalid> {
    let egress = Egress::new(&control::connect::Config::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(control::clock::SystemClock);
    Anthropic::new(config, api, &egress, &clock)
}

/// The request that goes out for a client's headers.
fn sent(config: &Config, strip_tags: bool, client: &[(&'static str, &'static str)]) -> Request<Parts> {
    let ApiConfig::Anthropic(api) = &config.api else { unreachable!() };
    let (body, client) = (Bytes::from_static(BODY.as_bytes()), headers(client));
    let call = Call {
        request_id: "r-1",
        endpoint: Endpoint::Messages,
        query: None,
        headers: &client,
        body: &body,
        head: &read_head(&body).unwrap(),
        strip_tags,
        caller: Caller { sub: "u-1", email: Some("zoë@example.com") },
    };
    let anthropic = built(config, api).unwrap();
    let Proof::Known(name, value) = &anthropic.proof else { unreachable!() };
    anthropic.request(&call, "m", (name.clone(), value.clone()), Sent::default()).unwrap()
}

fn sent_lines(config: &Config, strip_tags: bool, client: &[(&'static str, &'static str)]) -> Vec<String> {
    lines(sent(config, strip_tags, client).headers())
}

fn oauth() -> Config {
    with(Credential::OauthToken("token".into()), false)
}

fn with(credential: Credential, forward_user_identity: bool) -> Config {
    let api = AnthropicConfig { credential, forward_user_identity };
    Config { api: ApiConfig::Anthropic(api), ..config("a", "https://h") }
}

fn version(client: &str) -> String {
    format!("user-agent: {client}cc-gateway/{}", env!("CARGO_PKG_VERSION"))
}

#[test]
fn only_the_listed_headers_of_a_client_go_out() {
    let kept = [
        ("accept", "a"),
        ("accept-encoding", "gzip"),
        ("anthropic-beta", "one, two"),
        ("anthropic-beta", "three"),
        ("anthropic-version", "2023-06-01"),
        ("content-type", "text/odd"),
        ("x-stainless-lang", "js"),
    ];
    let dropped = [
        ("accept-language", "de"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("anthropic-workspace-id", "w"),
        ("authorization", "Bearer client"),
        ("cookie", "a=b"),
        ("forwarded", "for=1"),
        ("host", "gateway"),
        ("idempotency-key", "k"),
        ("origin", "https://o"),
        ("traceparent", "00"),
        ("transfer-encoding", "chunked"),
        ("via", "1.1 v"),
        ("x-api-key", "client"),
        ("x-app", "cli"),
        ("x-claude-code-session-id", "s"),
        ("x-claude-gateway-user-id", "spoofed"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-litellm-end-user-id", "spoofed"),
        ("x-request-id", "r"),
    ];
    let client = [kept.as_slice(), &dropped, &[("user-agent", "claude-cli/2")]].concat();
    let mut expected = lines(&headers(&kept));
    expected.extend([version("claude-cli/2 "), "x-api-key: sk-test".to_owned()]);
    expected.sort();
    assert_eq!(sent_lines(&config("a", "https://h"), false, &client), expected);
}

#[test]
fn nothing_is_invented_for_a_client_that_sends_no_headers() {
    assert_eq!(sent_lines(&config("a", "https://h"), true, &[]), [version(""), "x-api-key: sk-test".to_owned()]);
}

#[test]
fn an_oauth_token_brings_its_beta() {
    let betas = |client: &[_]| sent_lines(&oauth(), false, client).remove(0);
    assert_eq!(betas(&[]), "anthropic-beta: oauth-2025-04-20");
    assert_eq!(betas(&[("anthropic-beta", "a, b")]), "anthropic-beta: a,b,oauth-2025-04-20");
    assert_eq!(betas(&[("anthropic-beta", "oauth-2025-04-20, b")]), "anthropic-beta: oauth-2025-04-20, b");
    assert!(sent_lines(&oauth(), false, &[]).contains(&"authorization: Bearer token".to_owned()));
}

#[test]
fn the_beta_of_tags_goes_with_them() {
    let tags = "a, request-tags-2026-08-21";
    let config = config("a", "https://h");
    assert!(sent_lines(&config, true, &[("anthropic-beta", tags)]).contains(&"anthropic-beta: a".to_owned()));
    assert!(sent_lines(&config, false, &[("anthropic-beta", tags)]).contains(&format!("anthropic-beta: {tags}")));
    let only = [("anthropic-beta", "request-tags-2026-08-21")];
    assert!(!sent(&config, true, &only).headers().contains_key("anthropic-beta"));
}

#[test]
fn identity_and_configured_headers_are_added_where_wanted() {
    let extra = (HeaderName::from_static("x-extra"), HeaderValue::from_static("1"));
    let config = Config { headers: vec![extra], ..with(Credential::ApiKey("sk-test".into()), true) };
    let request = sent(&config, false, &[("x-extra", "client")]);
    let value = |name| request.headers()[name].as_bytes();
    assert_eq!(value("x-extra"), b"1");
    assert_eq!(value("x-claude-gateway-user-id"), b"u-1");
    assert_eq!(value("x-claude-gateway-user-email"), "zoë@example.com".as_bytes());
    assert_eq!(value("x-litellm-end-user-id"), "zoë@example.com".as_bytes());
}

#[test]
fn the_base_url_keeps_its_path_and_loses_its_credentials() {
    for (base_url, uri) in [
        ("https://api.example.com", "https://api.example.com/v1/messages"),
        ("http://h:8080/prefix/", "http://h:8080/prefix/v1/messages"),
        ("https://user:secret@h/", "https://h/v1/messages"),
    ] {
        assert_eq!(sent(&config("a", base_url), false, &[]).uri(), uri);
    }
}

#[test]
fn a_credential_that_no_header_can_carry_is_refused_without_being_shown() {
    let config = with(Credential::ApiKey("sk-\nsecret".into()), false);
    let ApiConfig::Anthropic(api) = &config.api else { unreachable!() };
    let refusal = built(&config, api).unwrap_err();
    assert_eq!(refusal.to_string(), "upstream a: the credential of auth must be printable ASCII on one line");
}

#[test]
fn no_header_of_the_upstreams_account_or_infrastructure_comes_back() {
    let kept = [
        ("anthropic-beta-hint", "x"),
        ("cache-control", "no-cache"),
        ("content-encoding", "gzip"),
        ("content-type", "application/json"),
        ("retry-after", "3"),
        ("x-should-retry", "true"),
    ];
    let dropped = [
        ("access-control-allow-origin", "*"),
        ("anthropic-fast-input-tokens-limit", "1"),
        ("anthropic-organization-id", "org"),
        ("anthropic-priority-input-tokens-limit", "1"),
        ("anthropic-ratelimit-requests-limit", "1"),
        ("cf-ray", "x"),
        ("connection", "close"),
        ("content-length", "3"),
        ("location", "/x"),
        ("request-id", "req_up"),
        ("server", "s"),
        ("set-cookie", "a=b"),
        ("strict-transport-security", "max-age=1"),
        ("via", "v"),
        ("www-authenticate", "Bearer"),
        ("x-request-id", "up"),
    ];
    assert_eq!(lines(&answer_headers(&headers(&[kept.as_slice(), &dropped].concat()))), lines(&headers(&kept)));
}
