//! Schemathesis asks the API for whatever its document allows, and for what it does not. `scripts/test` installs it and
//! names it in `TOLLGATE_SCHEMATHESIS`; without that, as in a plain `cargo test`, nobody is asked.

use std::process::Stdio;

use serde_json::json;
use tokio::process::Command;

use crate::support::database::{Database, on_both_databases};
use crate::support::gateway::{TestGateway, WRITE_KEY};

on_both_databases!(nothing_that_the_document_allows_or_forbids_breaks_the_api);

async fn nothing_that_the_document_allows_or_forbids_breaks_the_api(database: Database) {
    let Some(schemathesis) = std::env::var_os("TOLLGATE_SCHEMATHESIS") else { return };
    // Wrong credentials enough to be locked out for.
    let unlimited = json!({ "rate_limits": { "admin_auth": { "max": 100_000 } } });
    let gateway = TestGateway::setup().on(database).config(unlimited).start().await;
    let cap = json!({ "scope": { "type": "user", "user_id": "alice" }, "amount": "5" });
    assert_eq!(gateway.admin().post("/v1/organizations/spend_limits", cap.to_string()).await.status, 200);
    let folder = tempfile::tempdir().unwrap();
    let document = gateway.auditor().get("/v1/openapi.json").await.body;
    std::fs::write(folder.path().join("openapi.json"), &document).unwrap();
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    let run = Command::new(schemathesis)
        .args(["run", "openapi.json", "--url", gateway.url(), "--header", &format!("x-api-key: {WRITE_KEY}")])
        .args(["--checks", checks, "--phases", "examples,coverage,fuzzing", "--mode", "all"])
        .args(["--max-examples", "25", "--seed", "1", "--generation-deterministic", "--no-color"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{told}\n{}", String::from_utf8_lossy(&run.stderr));
}
