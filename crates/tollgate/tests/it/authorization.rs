//! Who may come in where: every route with every kind of credentials.

use std::fs;
use std::path::{Path, PathBuf};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::gateway::{ADMIN_GROUP, Caller, TestGateway};
use crate::support::http::Reply;

/// What answers without credentials. Closed by default: a new line here is a decision.
const OPEN: [&str; 15] = [
    "GET /",
    "GET /.well-known/oauth-authorization-server",
    "GET /device",
    "GET /favicon.ico",
    "GET /healthz",
    "GET /oauth/callback",
    "GET /protocol",
    "GET /readyz",
    "GET /robots.txt",
    "POST /device",
    "POST /device/deny",
    "POST /oauth/backchannel_logout",
    "POST /oauth/device_authorization",
    "POST /oauth/revoke",
    "POST /oauth/token",
];

/// Every path that the gateway serves.
const PATHS: &[&str] = &[
    "/",
    "/.well-known/oauth-authorization-server",
    "/api/oauth/usage",
    "/device",
    "/device/deny",
    "/favicon.ico",
    "/healthz",
    "/managed/settings",
    "/oauth/backchannel_logout",
    "/oauth/callback",
    "/oauth/device_authorization",
    "/oauth/revoke",
    "/oauth/token",
    "/protocol",
    "/readyz",
    "/robots.txt",
    "/user/bootstrap",
    "/v1/logs",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/metrics",
    "/v1/models",
    "/v1/openapi.json",
    "/v1/organizations/sessions",
    "/v1/organizations/sessions/revoke",
    "/v1/organizations/spend_limits",
    "/v1/organizations/spend_limits/audit",
    "/v1/organizations/spend_limits/effective",
    "/v1/organizations/cost_report",
    "/v1/organizations/usage_report/messages",
    "/v1/traces",
];
/// Paths with something in them, as an example of each.
const PATTERNS: &[(&str, &str)] = &[
    ("/v1/organizations/principals/{sub}", "/v1/organizations/principals/nobody"),
    ("/v1/organizations/sessions/{id}", "/v1/organizations/sessions/00000000-0000-4000-8000-000000000000"),
    ("/v1/organizations/spend_limits/{id}", "/v1/organizations/spend_limits/spl_00000000000000000000000000000000"),
];
/// Paths that the router is given as constants of other rooms; what [`PATHS`] holds of them. The last is
/// the admin API's list, of which its document is known to name every path.
const NAMED_ELSEWHERE: [&str; 4] =
    ["Endpoint::Messages.path()", "Endpoint::CountTokens.path()", "signal.path()", "path, handler"];

/// Served on a listener of its own, which is not the one that these tests ask.
const ELSEWHERE: &str = "/metrics";

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const NOWHERE: [&str; 6] = [
    "/protocol/",
    "/nowhere",
    "/healthz/",
    "/HEALTHZ",
    "/v1/messages/",
    "/v1/organizations/spend_limits/effective/more",
];

#[tokio::test]
async fn every_route_is_closed_to_those_it_is_not_for() {
    // Wrong credentials enough to be locked out for.
    let unlimited = json!({ "rate_limits": { "admin_auth": { "max": 100_000 } } });
    let gateway = TestGateway::setup().config(unlimited).start().await;
    let callers = [
        gateway.anyone(),
        gateway.as_user("alice"),
        gateway.as_member("grace", &[ADMIN_GROUP]),
        gateway.auditor(),
        gateway.admin(),
        gateway.anyone().bearer("forged.bearer.here"),
    ];
    let paths = PATHS.iter().copied().chain(PATTERNS.iter().map(|(_, example)| *example)).chain(NOWHERE);
    let mut matrix = String::from("nobody | user | admin group | read key | write key | forged bearer\n");
    for path in paths {
        // Methods that are answered alike stand together.
        let mut rows: Vec<(String, Vec<&str>)> = Vec::new();
        for method in METHODS {
            let mut answers = String::new();
            for caller in &callers {
                answers.push_str(&format!("{} ", answer(caller, method, path).await.status.as_u16()));
            }
            match rows.iter_mut().find(|(known, _)| *known == answers) {
                Some((_, methods)) => methods.push(method),
                None => rows.push((answers, vec![method])),
            }
        }
        matrix.push_str(&format!("\n{path}\n"));
        for (answers, methods) in rows {
            matrix.push_str(&format!("  {answers} {}\n", methods.join(" ")));
        }
    }
    insta::assert_snapshot!("matrix", matrix);
}

#[tokio::test]
async fn only_the_open_routes_answer_without_credentials() {
    let gateway = TestGateway::start().await;
    let nobody = gateway.anyone();
    let paths = PATHS.iter().copied().chain(PATTERNS.iter().map(|(_, example)| *example)).chain(NOWHERE);
    for path in paths {
        for method in METHODS {
            let status = answer(&nobody, method, path).await.status;
            let is_open = OPEN.contains(&format!("{method} {path}").as_str())
                // Load balancers may leave the body out.
                || ["/healthz", "/readyz"].contains(&path) && method == "HEAD";
            assert_eq!(is_open, status != StatusCode::UNAUTHORIZED, "{method} {path}: {status}");
        }
    }
}

/// The lists above hold what the code serves: nobody can add a route without walking it here.
#[test]
fn no_route_is_missing_here() {
    let mut unknown = Vec::new();
    let document: Value = include_str!("../../../../docs/admin.openapi.json").parse().unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        let known = PATHS.contains(&path.as_str()) || PATTERNS.iter().any(|(pattern, _)| pattern == path);
        assert!(known, "{path} is served, and the tests do not know it");
    }
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")) {
        let source = fs::read_to_string(&file).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        for (at, _) in code.match_indices(".route(") {
            let argument = code[at + ".route(".len()..].trim_start();
            let is_known = match argument.strip_prefix('"') {
                Some(literal) => {
                    let path = literal.split('"').next().unwrap();
                    path == ELSEWHERE || PATHS.contains(&path) || PATTERNS.iter().any(|(pattern, _)| *pattern == path)
                }
                None => NAMED_ELSEWHERE.iter().any(|named| argument.starts_with(named)),
            };
            if !is_known {
                unknown.push(format!("{}: {}", file.display(), argument.lines().next().unwrap()));
            }
        }
    }
    assert!(unknown.is_empty(), "routes that authorization.rs does not know:\n{}", unknown.join("\n"));
}

/// The document that clients are written from speaks of every path that they may call.
#[test]
fn the_protocol_names_every_path_of_clients() {
    let protocol = include_str!("../../../../docs/protocol.md");
    let of_others =
        |path: &&&str| ["/", "/favicon.ico", "/robots.txt"].contains(*path) || path.starts_with("/v1/organizations/");
    let silent: Vec<_> = PATHS.iter().filter(|path| !of_others(path) && !protocol.contains(**path)).collect();
    assert!(silent.is_empty(), "docs/protocol.md says nothing of {silent:?}");
}

async fn answer(caller: &Caller, method: &str, path: &str) -> Reply {
    caller.send(method, path, if method == "POST" { "{}" } else { "" }).await
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
