//! When the gateway refuses to begin, and in which words.

use std::net::TcpListener;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::database::{Database, Store};
use crate::support::gateway::{Setup, TestGateway, tollgate};
use crate::support::http::unused_port;

/// The last line of a gateway that must not start.
async fn refusal(setup: Setup) -> String {
    let (status, log) = setup.refuse().await;
    assert_eq!(status.code(), Some(1), "{log}");
    log.lines().last().unwrap_or_default().to_owned()
}

fn configured(config: Value) -> Setup {
    TestGateway::setup().config(config)
}

#[tokio::test]
async fn a_configuration_that_cannot_be_meant_is_refused_with_every_problem_named() {
    let (status, log) = configured(json!({
        "listne": {}, "listen": { "port": 99999 }, "session": { "jwt_secret": "short" },
        "upstreams": [{ "provider": "anthropic", "base_url": "http://169.254.169.254", "auth": { "api_key": "k" } }],
    }))
    .refuse()
    .await;
    assert_eq!(status.code(), Some(1));
    for part in ["listne", "listen", "listen.port", "session.jwt_secret", "upstreams[0].base_url"] {
        assert!(log.contains(part), "{part} is not named:\n{log}");
    }
    assert!(log.lines().all(|line| !line.contains("listening on")) && log.contains("tollgate: "), "{log}");
}

#[tokio::test]
async fn a_dead_database_is_named_without_its_password() {
    let url = format!("postgres://postgres:the-password@127.0.0.1:{}/gone", unused_port());
    let said = refusal(TestGateway::setup().store(Store::Postgres(url))).await;
    assert!(said.starts_with("tollgate: ") && !said.contains("the-password"), "{said}");
    assert!(said.to_lowercase().contains("postgresql") || said.contains("database"), "{said}");
}

#[tokio::test]
async fn a_dead_identity_provider_is_named() {
    let issuer = format!("http://127.0.0.1:{}", unused_port());
    let said = refusal(configured(json!({ "oidc": { "issuer": issuer } }))).await;
    assert!(said.starts_with("tollgate: ") && said.contains(&issuer), "{said}");
}

#[tokio::test]
async fn a_port_that_somebody_has_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = refusal(configured(json!({ "listen": { "port": port } }))).await;
    assert!(said.starts_with("tollgate: ") && said.contains(&port.to_string()), "{said}");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let said = refusal(configured(json!({ "listen": { "tls": { "cert": file.path(), "key": file.path() } } }))).await;
    assert!(said.starts_with("tollgate: ") && said.contains(file.path().to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn a_database_file_serves_one_process_at_a_time() {
    let mut first = TestGateway::setup().on(Database::Sqlite).start_process().await;
    let path = first.store().sqlite_path().unwrap();
    let second = || configured(json!({ "store": { "sqlite_path": path } }));
    let said = refusal(second()).await;
    assert!(said.starts_with("tollgate: ") && said.contains(path.to_str().unwrap()), "{said}");
    first.process().signal("KILL");
    assert_eq!(first.process().exit().await.code(), None);
    assert_eq!(second().start_process().await.anyone().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_port_is_not_taken_from_a_boot_that_fails_later() {
    let port = unused_port();
    let dead = configured(json!({ "listen": { "port": port }, "oidc": { "issuer": "http://127.0.0.1:1" } }));
    refusal(dead).await;
    let gateway = configured(json!({ "listen": { "port": port } })).start_process().await;
    assert_eq!(gateway.anyone().get("/readyz").await.status, 200);
}

fn ran(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = tollgate(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_mistake_on_the_command_line_is_status_2_with_a_hint() {
    for arguments in [&[][..], &["serve"], &["serve", "--port", "1"], &["sevre"], &["check"]] {
        let (status, _, stderr) = ran(arguments);
        assert_eq!(status, Some(2), "{arguments:?}");
        assert!(stderr.contains("Usage:"), "{stderr}");
    }
    let (status, _, stderr) = ran(&["serve", "--config", "/nowhere/gateway.yaml"]);
    assert_eq!(status, Some(1));
    assert!(stderr.starts_with("tollgate: ") && stderr.contains("/nowhere/gateway.yaml"), "{stderr}");
}

#[test]
fn help_is_no_error_and_teaches() {
    for (arguments, taught) in
        [(&["--help"][..], "tollgate demo"), (&["serve", "--help"], "--config"), (&["check", "--help"], "Exit status")]
    {
        let (status, stdout, stderr) = ran(arguments);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(stdout.contains(taught), "{stdout}");
    }
}

#[test]
fn a_configuration_is_checked_without_asking_anyone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.yaml");
    let config = |secret: &str| {
        format!(
            "listen: {{host: 127.0.0.1}}\noidc: {{issuer: 'https://idp.example.com', client_id: a, client_secret: b}}\n\
             session: {{jwt_secret: {secret}}}\nupstreams: [{{provider: anthropic, auth: {{api_key: k}}}}]\n"
        )
    };
    let check = || ran(&["check", "--config", file.to_str().unwrap()]);
    std::fs::write(&file, config("0123456789abcdef0123456789abcdef")).unwrap();
    let (status, stdout, stderr) = check();
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("no problems"), "{stdout}");
    std::fs::write(&file, config("short")).unwrap();
    let (status, _, stderr) = check();
    assert_eq!(status, Some(1));
    assert!(stderr.contains("session.jwt_secret") && !stderr.contains("short"), "{stderr}");
}
