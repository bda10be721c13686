//! The Azure CLI: the only program that is ever run, and only where nothing else says who we are
//! (<https://learn.microsoft.com/cli/azure/account#az-account-get-access-token>).

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::{AzureEnvironment, SCOPE, seconds};
use crate::upstream::credential::CredentialError;
use crate::upstream::credential::exchange::Ways;
use crate::upstream::credential::tokens::Fetched;

const PROGRAM: &str = "az";
const ARGUMENTS: [&str; 6] = ["account", "get-access-token", "--output", "json", "--scope", SCOPE];
/// It is a Python program that may have to ask Entra.
const BUDGET: Duration = Duration::from_secs(15);
/// Of its complaint into our log.
const MAX_SAID: usize = 300;

/// Where the program is and what it is told of the environment: nothing else.
#[derive(Debug, Clone)]
pub(super) struct Cli {
    path: Option<String>,
    variables: Vec<(&'static str, String)>,
    tenant: Option<String>,
}

impl Cli {
    pub(super) fn new(environment: &AzureEnvironment) -> Self {
        let known = [("HOME", &environment.home), ("AZURE_CONFIG_DIR", &environment.azure_config_dir)];
        let known = known.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        Self { path: environment.path.clone(), variables: known.collect(), tenant: environment.tenant_id.clone() }
    }

    /// `absent` says why there is no managed identity.
    pub(super) async fn fetch(&self, ways: &Ways, absent: &CredentialError) -> Result<Fetched, CredentialError> {
        let failed = |cause: String| CredentialError::Helper { program: "the Azure CLI", cause };
        let Some(program) = self.program() else {
            return Err(CredentialError::Nothing(format!(
                "the environment names none, there is no managed identity ({absent}), and no Azure CLI"
            )));
        };
        let running = tokio::time::timeout(BUDGET, self.run(&program)).await;
        let output = running.map_err(|_| failed(format!("it did not end within {} s", BUDGET.as_secs())))?;
        let output = output.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID).collect();
            return Err(failed(said.trim().to_owned()));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let token = answer["accessToken"].as_str().ok_or_else(|| failed("it printed no accessToken".to_owned()))?;
        // Before 2.54 there is only a local time, which says nothing without its zone: asked again soon.
        let ends = seconds(&answer["expires_on"]).unwrap_or_else(|| ways.now() + 300);
        Ok(Fetched { token: token.into(), ends })
    }

    fn program(&self) -> Option<std::path::PathBuf> {
        let folders = self.path.as_deref()?.split(':').filter(|folder| folder.starts_with('/'));
        folders.map(|folder| std::path::Path::new(folder).join(PROGRAM)).find(|program| program.is_file())
    }

    #[expect(clippy::disallowed_methods, reason = "the operator asked for the Azure CLI by use_azure_ad")]
    async fn run(&self, program: &std::path::Path) -> std::io::Result<Output> {
        let mut command = Command::new(program);
        command.args(ARGUMENTS).env_clear().env("PATH", self.path.as_deref().unwrap_or_default());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(tenant) = &self.tenant {
            command.args(["--tenant", tenant]);
        }
        command.stdin(Stdio::null()).kill_on_drop(true).output().await
    }
}
