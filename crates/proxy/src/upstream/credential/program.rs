//! Programs that give a credential because an operator said so: the only ones that are ever run.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Of its complaint into our log.
const MAX_SAID: usize = 300;

/// What the program prints, told these variables of the environment and no others.
///
/// # Errors
/// Why it printed nothing that counts: a sentence, with the end of what it complained of.
#[expect(clippy::disallowed_methods, reason = "the operator asked for the program")]
pub(super) async fn printed(
    program: &Path,
    arguments: &[&str],
    variables: impl Iterator<Item = (&str, &str)>,
    budget: Duration,
) -> Result<Vec<u8>, String> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(variables).stdin(Stdio::null()).kill_on_drop(true);
    let running = tokio::time::timeout(budget, command.output()).await;
    let output = running.map_err(|_| format!("it did not end within {} s", budget.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(output.stdout) } else { Err(said(&String::from_utf8_lossy(&output.stderr))) }
}

/// A stranger's words, fit for a line of the log.
pub(super) fn said(words: &str) -> String {
    let said: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID).collect();
    said.trim().to_owned()
}
