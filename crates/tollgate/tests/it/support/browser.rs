//! A real browser: Debian's Chromium, driven with the keyboard by `tests/idp/browser.mjs`.

use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tokio::task::spawn_blocking;

use super::idp::node_directory;

/// What a sign-in looked like.
#[derive(Debug, Deserialize)]
pub(crate) struct Walk {
    /// Approval page, the provider's login page, final page; or a page and what its links lead to.
    pub(crate) pages: Vec<Seen>,
    /// Errors on the console (blocked by a policy, script failures) and requests to other machines.
    pub(crate) complaints: Vec<String>,
}

/// A page as rendered.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) status: Option<u16>,
    pub(crate) url: String,
    pub(crate) title: String,
    /// The text of the first heading.
    pub(crate) heading: String,
    pub(crate) text: String,
    /// The language the page declares.
    pub(crate) lang: Option<String>,
}

/// Opens the link of a device sign-in and completes it as `account`, with or without scripts. Each page is
/// photographed in light and dark when a directory for that is given.
pub(crate) async fn sign_in(
    verification_uri_complete: &str,
    account: &str,
    scripts: bool,
    screenshots: Option<&Path>,
) -> Walk {
    walk(&json!({ "url": verification_uri_complete, "account": account, "scripts": scripts, "screenshots": screenshots }))
        .await
}

/// Looks at a page without scripts, and follows each of its links with the keyboard.
pub(crate) async fn look_around(url: &str, screenshots: &Path) -> Walk {
    walk(&json!({ "url": url, "account": null, "scripts": false, "screenshots": screenshots })).await
}

async fn walk(task: &Value) -> Walk {
    let mut command = Command::new("node");
    command.args(["browser.mjs", &task.to_string()]).current_dir(node_directory());
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the browser did not get through:\n{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}
