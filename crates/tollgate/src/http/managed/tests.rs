#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use axum::{Extension, Router};
use control::audit::AuditLog;
use control::clock::{Clock, TestClock};
use control::identity::Principal;
use control::policy::{Config, DesktopConfig, Kind, Policies, PolicyConfig};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use wire::catalog::Catalog;

use super::Desktop;
use crate::http::caller::Caller;
use crate::http::layers::RequestFacts;

/// The surface as it stands behind the bearer wall, and the audit lines it wrote.
struct Surface {
    routes: Router,
    audit: AuditLog,
    lines: Lines,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Surface {
    fn new(config: Config) -> Self {
        let lines = Lines::default();
        let clock = Arc::new(TestClock::at("2026-11-22T11:13:14.508Z".parse().unwrap()));
        let received = clock.instant();
        let audit = AuditLog::to(lines.clone(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let catalog = Arc::new(Catalog::new(Vec::new(), true).unwrap());
        let principal = Principal {
            sub: "u-1".to_owned(),
            email: Some("ann@example.com".to_owned()),
            name: None,
            groups: vec!["eng".to_owned()],
            session: None,
            groups_unread: false,
            billing_group_tag: None,
        };
        let facts =
            RequestFacts { request_id: Arc::from("req-1"), client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST), received };
        let desktop = Desktop {
            reach: Arc::new(|model, _| model.id != "claude-haiku-5-5"),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ttl: Duration::from_secs(3600),
            admin_groups: vec!["finops".to_owned()],
        };
        let policies = Arc::new(Policies::compile(config, catalog).0);
        let routes = super::routes(policies, desktop, audit.clone())
            .layer(Extension(Caller(Arc::new(principal))))
            .layer(Extension(facts));
        Self { routes, audit, lines }
    }

    /// One policy for the group of the caller.
    fn with_policy() -> Self {
        Self::new(policy_for("eng"))
    }

    async fn ask(&self, method: Method, headers: &[(&str, &str)]) -> Response {
        self.send("/managed/settings", method, headers).await
    }

    async fn send(&self, path: &str, method: Method, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn get(&self, headers: &[(&str, &str)]) -> Response {
        self.ask(Method::GET, headers).await
    }

    async fn audited(&self) -> Vec<Value> {
        self.audit.flush().await;
        let lines = self.lines.0.lock().unwrap().clone();
        String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn policy_for(group: &str) -> Config {
    let settings = json!({"model": "claude-opus-4-6"}).as_object().cloned();
    let policy = PolicyConfig { groups: Some(vec![group.to_owned()]), settings, ..PolicyConfig::default() };
    Config { policies: Some(vec![policy]), ..Config::default() }
}

async fn text(answer: Response) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// `name: value` lines in order, with our own version blanked.
fn shown(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            format!("{name}: {}", value.to_str().unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION"))
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

fn etag(answer: &Response) -> String {
    answer.headers()["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_document_comes_with_its_checksum_three_times() {
    let answer = Surface::with_policy().get(&[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    insta::assert_snapshot!(shown(answer.headers()), @r#"
    content-length: 206
    content-type: application/json;charset=utf-8
    etag: "sha256:39fd20ca963b35edba49e60010152c8eb2098583f048ced2707fd9f73e61685e"
    vary: User-Agent
    x-cc-gateway-version: VERSION
    "#);
    insta::assert_snapshot!(text(answer).await, @r#"{"uuid":"sha256:39fd20ca963b35edba49e60010152c8eb2098583f048ced2707fd9f73e61685e","checksum":"sha256:39fd20ca963b35edba49e60010152c8eb2098583f048ced2707fd9f73e61685e","settings":{"model":"claude-opus-4-6"}}"#);
}

#[tokio::test]
async fn every_method_is_answered_and_head_without_a_body() {
    let surface = Surface::with_policy();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let answer = surface.ask(method.clone(), &[]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{method}");
        assert_eq!(text(answer).await, text(surface.get(&[]).await).await, "{method}");
    }
    let head = surface.ask(Method::HEAD, &[]).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(etag(&head), etag(&surface.get(&[]).await));
    assert_eq!(text(head).await, "");
}

#[tokio::test]
async fn a_client_that_holds_the_document_is_told_so() {
    let surface = Surface::with_policy();
    let tag = etag(&surface.get(&[]).await);
    let answer = surface.get(&[("if-none-match", &tag)]).await;
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    insta::assert_snapshot!(shown(answer.headers()), @r#"
    etag: "sha256:39fd20ca963b35edba49e60010152c8eb2098583f048ced2707fd9f73e61685e"
    vary: User-Agent
    x-cc-gateway-version: VERSION
    "#);
    assert_eq!(text(answer).await, "");
}

#[tokio::test]
async fn if_none_match_may_be_weak_or_a_list() {
    let surface = Surface::with_policy();
    let tag = etag(&surface.get(&[]).await);
    for held in [format!("W/{tag}"), format!("\"a,b\" , {tag}"), format!("\"a\",W/{tag},\"b\"")] {
        let answer = surface.get(&[("if-none-match", &held)]).await;
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{held}");
    }
    let twice = surface.get(&[("if-none-match", "\"a\""), ("if-none-match", &tag)]).await;
    assert_eq!(twice.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn any_other_if_none_match_gets_the_document() {
    let surface = Surface::with_policy();
    let tag = etag(&surface.get(&[]).await);
    let unquoted = tag.trim_matches('"');
    for held in ["*", "", "\"sha256:0\"", unquoted, &tag.to_uppercase(), &format!("w/{tag}"), &format!("x{tag}")] {
        let answer = surface.get(&[("if-none-match", held)]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{held}");
    }
}

#[tokio::test]
async fn each_kind_of_absence_has_its_words() {
    let absent = [Surface::new(Config::default()), Surface::new(policy_for("ops"))];
    let mut told = Vec::new();
    for surface in &absent {
        let answer = surface.get(&[]).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let headers = "cache-control: no-store|content-type: text/plain;charset=utf-8|vary: User-Agent";
        for line in headers.split('|') {
            assert!(shown(answer.headers()).contains(line), "{line}");
        }
        told.push(text(answer).await);
        assert_eq!(surface.audited().await, Vec::<Value>::new());
    }
    assert_eq!(told, ["not configured", "no policy matched"]);
}

#[tokio::test]
async fn a_claude_desktop_session_is_not_served_a_policy_for_the_command_line() {
    let surface = Surface::with_policy();
    for agent in
        ["claude-cli/2.1.330 (external, claude-desktop)", "claude-cli/2.1.330 (local-agent,x)", "a (b) c (local-agent)"]
    {
        let answer = surface.get(&[("user-agent", agent)]).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{agent}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(text(answer).await.starts_with("not served to Claude Desktop sessions"));
    }
    for agent in
        ["claude-cli/2.1.330 (external, cli)", "claude-desktop", "x (claude-desktop", "x (claude-desktop-like)"]
    {
        assert_eq!(surface.get(&[("user-agent", agent)]).await.status(), StatusCode::OK, "{agent}");
    }
    assert_eq!(surface.audited().await.len(), 4);
}

#[tokio::test]
async fn serving_and_finding_unchanged_are_both_audited() {
    let surface = Surface::with_policy();
    let tag = etag(&surface.get(&[]).await);
    surface.get(&[("if-none-match", &tag)]).await;
    let line = json!({
        "ts": "2026-11-22T11:13:14.508Z",
        "evt": "managed.serve",
        "sub": "u-1",
        "email": "ann@example.com",
        "policy_index": 0,
        "checksum": tag.trim_matches('"'),
        "request_id": "req-1",
    });
    let mut again = line.clone();
    again["unchanged"] = json!(true);
    assert_eq!(surface.audited().await, [line, again]);
}

fn for_desktop(kind: Kind) -> Config {
    let policy = policy_for("eng").policies.unwrap().remove(0);
    let overlay = json!({"banner": {"enabled": true, "text": "pilot"}}).as_object().cloned();
    let policy = PolicyConfig { desktop: overlay, ..policy };
    let desktop = DesktopConfig { origin: "https://gw.example.com".to_owned(), telemetry: None };
    Config { policies: Some(vec![policy]), kind, desktop, ..Config::default() }
}

#[tokio::test]
async fn a_policy_for_code_reaches_every_session_and_says_so_to_those_that_take_none() {
    let surface = Surface::new(for_desktop(Kind::Code));
    for agent in ["claude-cli/2.1.330 (external, claude-desktop)", "claude-cli/2.1.330 (external, cli)"] {
        assert_eq!(surface.get(&[("user-agent", agent)]).await.status(), StatusCode::OK, "{agent}");
    }
    assert_eq!(surface.audited().await.len(), 2);
    for held in ["*", " * "] {
        let answer = surface.get(&[("if-none-match", held)]).await;
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{held}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(text(answer).await, "");
    }
    assert_eq!(surface.audited().await.len(), 2);
}

#[tokio::test]
async fn claude_desktop_receives_its_document_for_the_life_of_a_bearer() {
    let surface = Surface::new(for_desktop(Kind::Cli));
    let answer = surface.send("/user/bootstrap", Method::GET, &[("if-none-match", "*")]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    insta::assert_snapshot!(shown(answer.headers()).replace("content-length: ", "\ncontent-length: ").lines()
        .filter(|line| !line.starts_with("content-length")).collect::<Vec<_>>().join("\n"), @r"
    cache-control: no-store

    content-type: application/json;charset=utf-8
    x-gateway-spend-admin: false
    ");
    let document: Value = serde_json::from_str(&text(answer).await).unwrap();
    // 2026-11-22T12:13:14Z, an hour from now.
    assert_eq!(document["expiresAt"], 1_795_349_594);
    assert_eq!(
        (document["inferenceProvider"].as_str(), document["banner"]["text"].as_str()),
        (Some("gateway"), Some("pilot"))
    );
    let models: Vec<_> = document["inferenceModels"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert!(models.contains(&&json!("claude-opus-4-8")) && !models.contains(&&json!("claude-haiku-5-5")), "{models:?}");
    let line = json!({
        "ts": "2026-11-22T11:13:14.508Z", "evt": "desktop_bootstrap.serve", "sub": "u-1", "email": "ann@example.com",
        "policy_index": 0, "request_id": "req-1",
    });
    assert_eq!(surface.audited().await, [line]);
}

#[tokio::test]
async fn claude_desktop_is_turned_away_with_a_reason() {
    let mut told = Vec::new();
    let other = Config {
        policies: for_desktop(Kind::Cli).policies.map(|mut policies| {
            policies[0].groups = Some(vec!["ops".to_owned()]);
            policies
        }),
        ..Config::default()
    };
    let mut second = other.clone();
    second.policies.as_mut().unwrap().push(policy_for("eng").policies.unwrap().remove(0));
    for config in [policy_for("eng"), other, second] {
        let surface = Surface::new(config);
        let answer = surface.send("/user/bootstrap", Method::GET, &[]).await;
        assert_eq!(
            (answer.status(), &answer.headers()["cache-control"]),
            (StatusCode::NOT_FOUND, &"no-store".parse().unwrap())
        );
        let envelope: Value = serde_json::from_str(&text(answer).await).unwrap();
        let line = surface.audited().await.remove(0);
        assert_eq!((&line["evt"], &line["sub"]), (&json!("desktop_bootstrap.denied"), &json!("u-1")));
        told.push(format!("{} {}: {}", line["reason"], envelope["error"]["type"], envelope["error"]["message"]));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    "not_configured" "not_found_error": "this gateway has no configuration for Claude Desktop: no policy has `desktop`"
    "no_policy_matched" "not_found_error": "no policy matched"
    "policy_not_opted_in" "not_found_error": "the policy that is yours has no configuration for Claude Desktop: it lacks `desktop`"
    "#);
}

#[tokio::test]
async fn the_bootstrap_is_only_fetched() {
    let surface = Surface::new(for_desktop(Kind::Cli));
    for method in [Method::POST, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = surface.send("/user/bootstrap", method.clone(), &[]).await;
        assert_eq!(
            (answer.status(), answer.headers()["allow"].to_str().unwrap()),
            (StatusCode::METHOD_NOT_ALLOWED, "GET"),
            "{method}"
        );
    }
    assert_eq!(surface.audited().await, Vec::<Value>::new());
}
