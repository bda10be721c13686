//! The Azure CLI: asked only where nothing else says who we are
//! (<https://learn.microsoft.com/cli/azure/account#az-account-get-access-token>).

use std::time::Duration;

use serde_json::Value;

use super::{AzureEnvironment, SCOPE, seconds};
use crate::upstream::credential::CredentialError;
use crate::upstream::credential::exchange::Ways;
use crate::upstream::credential::program;
use crate::upstream::credential::tokens::Fetched;

const PROGRAM: &str = "az";
const ARGUMENTS: [&str; 6] = ["account", "get-access-token", "--output", "json", "--scope", SCOPE];
/// It is a Python program that may have to ask Entra.
const BUDGET: Duration = Duration::from_secs(15);

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
        let failed = |cause: String| CredentialError::Helper { program: "the Azure CLI".to_owned(), cause };
        let Some(program) = self.program() else {
            return Err(CredentialError::Nothing(format!(
                "the environment names none, there is no managed identity ({absent}), and no Azure CLI; set AZURE_TENANT_ID, \
                 AZURE_CLIENT_ID and a proof, give the machine an identity, or install `az` in PATH and run `az login`"
            )));
        };
        let tenant = self.tenant.iter().flat_map(|tenant| ["--tenant", tenant]);
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain(tenant).collect();
        let path = [("PATH", self.path.as_deref().unwrap_or_default())].into_iter();
        let variables = path.chain(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        let printed = program::printed(&program, &arguments, variables, BUDGET).await.map_err(failed)?;
        let answer: Value = serde_json::from_slice(&printed).unwrap_or_default();
        let token = answer["accessToken"].as_str().ok_or_else(|| failed("it printed no accessToken".to_owned()))?;
        // Before 2.54 there is only a local time, which says nothing without its zone: asked again soon.
        let ends = seconds(&answer["expires_on"]).unwrap_or_else(|| ways.now() + 300);
        Ok(Fetched { token: token.into(), ends })
    }

    fn program(&self) -> Option<std::path::PathBuf> {
        let folders = self.path.as_deref()?.split(':').filter(|folder| folder.starts_with('/'));
        folders.map(|folder| std::path::Path::new(folder).join(PROGRAM)).find(|program| program.is_file())
    }
}
