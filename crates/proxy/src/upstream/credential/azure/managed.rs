//! Managed identities: what Azure gives to a machine or a container that runs there
//! (<https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>).

use std::path::Path;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::RESOURCE;
use crate::upstream::credential::CredentialError;
use crate::upstream::credential::exchange::{Answer, Question, Way, Ways, proof};
use crate::upstream::credential::tokens::Fetched;

const INSTANCE: &str = "http://169.254.169.254";
/// Where Azure Arc's agent writes the answers to its challenges; a file elsewhere is none of its.
const ARC_FOLDER: &str = "/var/opt/azcmagent/tokens";

/// A service beside us that knows who this machine is.
#[derive(Debug, Clone)]
pub(super) struct Managed {
    url: Url,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The instance metadata service of virtual machines and Kubernetes nodes.
    Instance,
    /// App Service, Functions, Container Apps: an endpoint with a secret of the environment.
    AppService(SecretString),
    /// Azure Arc: who can read a file of the machine's administrators is trusted.
    Arc,
}

impl Managed {
    /// `IDENTITY_ENDPOINT`, with `IDENTITY_HEADER` or, on machines of Azure Arc, without.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn beside(
        endpoint: &str,
        header: Option<SecretString>,
        client_id: Option<String>,
    ) -> Result<Self, String> {
        let (kind, version) = match header {
            Some(header) => (Kind::AppService(header), "2019-08-01"),
            None => (Kind::Arc, "2020-06-01"),
        };
        let url = url(endpoint, version, client_id.filter(|_| !matches!(kind, Kind::Arc)));
        Ok(Self { url: url.map_err(|why| format!("IDENTITY_ENDPOINT {why}"))?, kind })
    }

    pub(super) fn of_instance(host: Option<&str>, client_id: Option<String>) -> Result<Self, &'static str> {
        let host = host.unwrap_or(INSTANCE).trim_end_matches('/');
        let url = url(&format!("{host}/metadata/identity/oauth2/token"), "2018-02-01", client_id)?;
        Ok(Self { url, kind: Kind::Instance })
    }

    pub(super) async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        let metadata = HeaderName::from_static("metadata");
        let question = Question::get(&self.url);
        match &self.kind {
            Kind::Instance => ways.token(Way::Near, question.known(metadata, "true")).await,
            Kind::AppService(secret) => {
                let header = HeaderName::from_static("x-identity-header");
                ways.token(Way::Near, question.header(header, secret)).await
            }
            Kind::Arc => {
                let challenge = ways.ask(Way::Near, question.known(metadata.clone(), "true")).await?;
                let answer = answer_of_arc(challenge).await?;
                let question = Question::get(&self.url).known(metadata, "true").header(AUTHORIZATION, &answer);
                ways.token(Way::Near, question).await
            }
        }
    }
}

fn url(endpoint: &str, version: &str, client_id: Option<String>) -> Result<Url, &'static str> {
    let mut url = Url::parse(endpoint).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("must be an http or https URL");
    }
    url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", RESOURCE);
    if let Some(id) = client_id {
        url.query_pairs_mut().append_pair("client_id", &id);
    }
    Ok(url)
}

/// <https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication>
async fn answer_of_arc(challenge: Answer) -> Result<SecretString, CredentialError> {
    let header = challenge.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(path) = header.strip_prefix("Basic realm=").map(|path| path.trim_matches('"')) else {
        let why = "it gave no challenge with a file";
        let endpoint = challenge.endpoint.clone();
        return Err(challenge.accepted().err().unwrap_or(CredentialError::Unreadable { endpoint, why }));
    };
    let path = Path::new(path);
    let is_arcs = path.parent() == Some(Path::new(ARC_FOLDER)) && path.extension().is_some_and(|end| end == "key");
    if challenge.status != StatusCode::UNAUTHORIZED || !is_arcs {
        let why = "its challenge names a file that is not Azure Arc's";
        return Err(CredentialError::Unreadable { endpoint: challenge.endpoint, why });
    }
    Ok(format!("Basic {}", proof(path).await?.expose_secret()).into())
}
