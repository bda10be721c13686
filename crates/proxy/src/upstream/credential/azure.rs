//! Microsoft Entra: the default chain of Azure's own libraries
//! (<https://learn.microsoft.com/azure/developer/intro/passwordless-overview>): what the environment names, a federated
//! workload, the machine's managed identity, a person who signed in with the Azure CLI.

mod certificate;
mod cli;
mod managed;

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::exchange::{Question, Way, Ways, endpoint, proof, readable};
use super::tokens::Fetched;
use super::{CredentialError, Unusable};
use certificate::Certificate;
use cli::Cli;
use managed::Managed;

/// What Azure's AI services are called as a resource; with `/.default` behind it, as a scope.
const RESOURCE: &str = "https://cognitiveservices.azure.com";
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const AUTHORITY: &str = "https://login.microsoftonline.com";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The variables of the environment that count, as plain values; what is empty is left out.
#[derive(Debug, Clone, Default)]
pub struct AzureEnvironment {
    /// `AZURE_AUTHORITY_HOST`.
    pub authority_host: Option<String>,
    /// `AZURE_TENANT_ID`.
    pub tenant_id: Option<String>,
    /// `AZURE_CLIENT_ID`.
    pub client_id: Option<String>,
    /// `AZURE_CLIENT_SECRET`.
    pub client_secret: Option<SecretString>,
    /// `AZURE_CLIENT_CERTIFICATE_PATH`: a PEM file with the certificate and its private key.
    pub client_certificate_path: Option<PathBuf>,
    /// `AZURE_CLIENT_SEND_CERTIFICATE_CHAIN` is `1` or `true`.
    pub send_certificate_chain: bool,
    /// `AZURE_FEDERATED_TOKEN_FILE`.
    pub federated_token_file: Option<PathBuf>,
    /// `IDENTITY_ENDPOINT`.
    pub identity_endpoint: Option<String>,
    /// `IDENTITY_HEADER`.
    pub identity_header: Option<SecretString>,
    /// `AZURE_POD_IDENTITY_AUTHORITY_HOST`: where the instance metadata service is instead of its usual address.
    pub metadata_host: Option<String>,
    /// `PATH`: where the Azure CLI is looked for.
    pub path: Option<String>,
    /// `HOME`: where the Azure CLI keeps what it knows, unless `azure_config_dir` says otherwise.
    pub home: Option<String>,
    /// `AZURE_CONFIG_DIR`.
    pub azure_config_dir: Option<String>,
}

/// An identity in Microsoft Entra.
#[derive(Debug, Clone)]
pub struct Azure {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Application(Box<Application>),
    Managed(Managed),
    /// What is left: the instance's identity where there is one, else the Azure CLI.
    Found(Managed, Cli),
}

/// An application with its own proof (RFC 6749, section 4.4).
#[derive(Debug, Clone)]
struct Application {
    client_id: String,
    token_url: Url,
    proof: Proof,
}

#[derive(Debug, Clone)]
enum Proof {
    Secret(SecretString),
    Certificate(Certificate),
    /// A token of another provider that Entra trusts for this application, in a file that is renewed.
    Federated(PathBuf),
}

impl Azure {
    /// The identity that the environment gives. What is configured decides; a configured identity that is refused is not
    /// replaced by the next one.
    ///
    /// # Errors
    /// A sentence, when what is configured is impossible.
    pub fn from_environment(environment: &AzureEnvironment) -> Result<Self, Unusable> {
        if let Some(application) = Application::read(environment)? {
            return Ok(Self { source: Source::Application(Box::new(application)) });
        }
        let client_id = environment.client_id.clone();
        let source = match &environment.identity_endpoint {
            Some(url) => {
                Source::Managed(Managed::beside(url, environment.identity_header.clone(), client_id).map_err(Unusable)?)
            }
            None => {
                let instance = Managed::of_instance(environment.metadata_host.as_deref(), client_id);
                let instance = instance.map_err(|why| Unusable(format!("AZURE_POD_IDENTITY_AUTHORITY_HOST {why}")))?;
                Source::Found(instance, Cli::new(environment))
            }
        };
        Ok(Self { source })
    }

    pub(super) async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        match &self.source {
            Source::Application(application) => application.fetch(ways).await,
            Source::Managed(managed) => managed.fetch(ways).await,
            Source::Found(managed, cli) => match managed.fetch(ways).await {
                // Only where there is no such service at all: a refusal of it is an answer.
                Err(absent @ CredentialError::Unreachable { .. }) => cli.fetch(ways, &absent).await,
                answered => answered,
            },
        }
    }
}

impl Application {
    fn read(environment: &AzureEnvironment) -> Result<Option<Self>, Unusable> {
        let Some(proof) = Proof::read(environment)? else { return Ok(None) };
        let (Some(tenant), Some(client_id)) = (&environment.tenant_id, &environment.client_id) else {
            return Err(Unusable(format!("{} needs AZURE_TENANT_ID and AZURE_CLIENT_ID beside it", proof.variable())));
        };
        if !tenant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
            return Err(Unusable("AZURE_TENANT_ID must be an id or a domain name".to_owned()));
        }
        let authority = environment.authority_host.as_deref().unwrap_or(AUTHORITY).trim_end_matches('/');
        // Azure's libraries also take the host alone.
        let authority = if authority.contains("://") { authority.to_owned() } else { format!("https://{authority}") };
        let token_url = endpoint(&format!("{authority}/{tenant}/oauth2/v2.0/token"));
        let token_url = token_url.map_err(|why| Unusable(format!("AZURE_AUTHORITY_HOST {why}")))?;
        Ok(Some(Self { client_id: client_id.clone(), token_url, proof }))
    }

    async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        let assertion = match &self.proof {
            Proof::Secret(_) => None,
            Proof::Certificate(certificate) => {
                Some(certificate.sign(&self.client_id, self.token_url.as_str(), ways.now())?)
            }
            Proof::Federated(path) => Some(proof(path).await?),
        };
        let fields = [("grant_type", "client_credentials"), ("client_id", &self.client_id), ("scope", SCOPE)];
        let proof = match (&self.proof, &assertion) {
            (Proof::Secret(secret), _) => vec![("client_secret", secret.expose_secret())],
            (_, assertion) => {
                let assertion = assertion.iter().map(|assertion| ("client_assertion", assertion.expose_secret()));
                assertion.chain([("client_assertion_type", ASSERTION_TYPE)]).collect()
            }
        };
        ways.token(Way::Far, Question::form(&self.token_url, fields.into_iter().chain(proof))).await
    }
}

impl Proof {
    fn read(environment: &AzureEnvironment) -> Result<Option<Self>, Unusable> {
        if let Some(secret) = &environment.client_secret {
            return Ok(Some(Self::Secret(secret.clone())));
        }
        if let Some(path) = &environment.client_certificate_path {
            let named = |why| Unusable(format!("AZURE_CLIENT_CERTIFICATE_PATH: {}: {why}", path.display()));
            let pem = std::fs::read_to_string(path).map(SecretString::from);
            let pem = pem.map_err(|error| named(format!("it cannot be read: {error}")))?;
            let certificate = Certificate::read(&pem, environment.send_certificate_chain).map_err(named)?;
            return Ok(Some(Self::Certificate(certificate)));
        }
        if let Some(path) = &environment.federated_token_file {
            readable(path).map_err(|Unusable(why)| Unusable(format!("AZURE_FEDERATED_TOKEN_FILE: {why}")))?;
            return Ok(Some(Self::Federated(path.clone())));
        }
        Ok(None)
    }

    const fn variable(&self) -> &'static str {
        match self {
            Self::Secret(_) => "AZURE_CLIENT_SECRET",
            Self::Certificate(_) => "AZURE_CLIENT_CERTIFICATE_PATH",
            Self::Federated(_) => "AZURE_FEDERATED_TOKEN_FILE",
        }
    }
}

/// A whole number of seconds since 1970, also as text.
fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests;
