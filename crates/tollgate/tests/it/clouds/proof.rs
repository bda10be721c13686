//! Whether the mocks are right, as far as the clouds' own libraries can tell.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::support::cloud::azure::{self, Azure};
use crate::support::cloud::google::Google;

/// The interpreter of an environment with google-auth, requests and azure-identity in it.
const PYTHON: &str = "CLOUD_SDKS_PYTHON";

#[tokio::test]
#[ignore = "needs the clouds' Python libraries; CLOUD_SDKS_PYTHON names the interpreter that has them"]
async fn the_clouds_own_libraries_get_their_tokens_from_our_mocks() {
    let python = env::var_os(PYTHON).expect(PYTHON);
    let folder = tempfile::tempdir().unwrap();
    let (google, azure) = (Google::start().await, Azure::start().await);
    let at = folder.path();
    let asked = json!({
        "metadata_host": google.metadata_host(),
        "google": {
            "service_account": google.key_file(at), "person": google.person_file(at), "machine": null,
            "external": google.external_file(at), "executable": google.executable_file(at),
            "impersonating": google.impersonating_file(at),
        },
        "azure": {
            "url": azure.url(), "tenant": azure::TENANT, "client": azure::CLIENT, "secret": azure::SECRET,
            "certificate": azure.certificate_file(at), "federated": Azure::federated_file(at),
            "identity_header": azure::IDENTITY_HEADER,
        },
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/cloud/prove.py");
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("HOME", at);
    let output = spawn_blocking(move || {
        let mut running = command.spawn().unwrap();
        running.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
        running.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let given: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "google": {
            "service_account": "ya29.service-account", "person": "ya29.person", "machine": "ya29.machine",
            "external": "ya29.impersonated", "executable": "ya29.impersonated", "impersonating": "ya29.impersonated",
        },
        "azure": {
            "secret": "entra-secret", "certificate": "entra-certificate", "federated": "entra-federated",
            "instance": "entra-instance", "app_service": "entra-app-service",
        },
    });
    assert_eq!(given, expected);
}
