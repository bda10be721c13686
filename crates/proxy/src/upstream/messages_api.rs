//! Clouds that speak the Messages API itself: the client's body with another model id, below their own address.

use std::sync::Arc;

use bytes::Bytes;
use control::clock::Clock;
use control::connect::Egress;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use wire::catalog;
use wire::messages::Rewrite;

use super::aws::{Authority, AwsConfig};
use super::cloud::{Framing, Outgoing, Provider, Unsigned, Without, anthropic_headers};
use super::credential::azure::Azure;
use super::credential::google::Google;
use super::credential::{Source, Tokens};
use super::renewed::NoCredential;
use super::vertex::GoogleAuthority;
use super::{Call, Caller, Invalid};

const WORKSPACE: HeaderName = HeaderName::from_static("anthropic-workspace-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// An upstream with `provider: anthropicAws`.
#[derive(Debug, Clone)]
pub struct AnthropicAwsConfig {
    /// `workspace_id`.
    pub workspace_id: HeaderValue,
    /// `auth`.
    pub credential: AnthropicAwsCredential,
}

/// `auth` of an upstream with `provider: anthropicAws`.
#[derive(Debug, Clone)]
pub enum AnthropicAwsCredential {
    /// `api_key`: sent as `x-api-key`.
    ApiKey(SecretString),
    /// Signed for `aws-external-anthropic`; without a role or a bearer token.
    Aws(AwsConfig),
}

/// `auth` of an upstream with `provider: foundry`.
#[derive(Debug, Clone)]
pub enum FoundryCredential {
    /// `api_key`: sent as `x-api-key`.
    ApiKey(SecretString),
    /// `use_azure_ad`: a token of Microsoft Entra.
    Entra(Azure),
}

/// Where a workspace of Claude Platform on Google Cloud is served; only the location `global` is.
/// <https://platform.claude.com/docs/en/build-with-claude/claude-models-on-google-cloud/anthropic-managed>
#[must_use]
pub fn anthropic_google_cloud_url(project_id: &str, workspace_id: &str) -> String {
    let workspace = format!("projects/{project_id}/locations/global/workspaces/{workspace_id}");
    format!("https://claude.googleapis.com/v1alpha/{workspace}/invoke")
}

/// Where a resource of Microsoft Foundry is served.
/// <https://platform.claude.com/docs/en/build-with-claude/claude-in-microsoft-foundry>
#[must_use]
pub fn foundry_url(resource: &str) -> String {
    format!("https://{resource}.services.ai.azure.com/anthropic")
}

/// Amazon Bedrock's endpoint of Anthropic's format.
#[derive(Debug)]
pub(super) struct Mantle {
    authority: Authority,
}

/// Claude Platform on AWS.
#[derive(Debug)]
pub(super) struct AnthropicAws {
    workspace_id: HeaderValue,
    authority: Authority,
}

/// Claude Platform on Google Cloud.
#[derive(Debug)]
pub(super) struct AnthropicGoogleCloud {
    authority: GoogleAuthority,
}

/// Microsoft Foundry.
#[derive(Debug)]
pub(super) enum Foundry {
    Key(HeaderValue),
    Entra(Box<Tokens>),
}

impl Mantle {
    /// For the upstream `name`.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(super) fn new(name: &str, aws: AwsConfig, egress: &Egress, clock: &Arc<dyn Clock>) -> Result<Self, Invalid> {
        Ok(Self { authority: Authority::new(name, aws, "bedrock-mantle", egress, clock)? })
    }
}

impl AnthropicAws {
    /// For the upstream `name`.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(super) fn new(
        name: &str,
        config: AnthropicAwsConfig,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Invalid> {
        let authority = match config.credential {
            AnthropicAwsCredential::Aws(aws) => Authority::new(name, aws, "aws-external-anthropic", egress, clock)?,
            AnthropicAwsCredential::ApiKey(key) => Authority::header(name, API_KEY, &key)?,
        };
        Ok(Self { workspace_id: config.workspace_id, authority })
    }
}

impl AnthropicGoogleCloud {
    pub(super) fn new(google: Google, egress: &Egress, clock: &Arc<dyn Clock>) -> Self {
        Self { authority: GoogleAuthority::new(google, egress, clock) }
    }
}

impl Foundry {
    /// For the upstream `name`.
    ///
    /// # Errors
    /// [`Invalid::Credential`].
    pub(super) fn new(
        name: &str,
        credential: FoundryCredential,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Invalid> {
        match credential {
            FoundryCredential::ApiKey(key) => {
                let value = HeaderValue::from_str(key.expose_secret());
                let mut value = value.map_err(|_| Invalid::Credential(name.to_owned()))?;
                value.set_sensitive(true);
                Ok(Self::Key(value))
            }
            FoundryCredential::Entra(azure) => {
                Ok(Self::Entra(Box::new(Tokens::new(Source::Azure(azure), egress, clock))))
            }
        }
    }
}

impl Provider for Mantle {
    const KIND: catalog::Provider = catalog::Provider::Mantle;
    const FRAMING: Framing = Framing::Events;

    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String> {
        // It knows neither the field nor its beta.
        let body = body(call, model_id, without, false);
        let headers = anthropic_headers(call, without, false);
        Ok(Outgoing { path: call.endpoint.path().to_owned(), headers, body })
    }

    async fn authorize(&self, request: &mut Unsigned, caller: &Caller<'_>) -> Result<(), NoCredential> {
        self.authority.authorize(request, caller).await
    }

    fn refused(&self, shown: &HeaderValue, caller: &Caller<'_>) -> bool {
        self.authority.refused(shown, caller)
    }
}

impl Provider for AnthropicAws {
    const KIND: catalog::Provider = catalog::Provider::AnthropicAws;
    const FRAMING: Framing = Framing::Events;

    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String> {
        let mut outgoing = as_it_is(call, model_id, without);
        outgoing.headers.insert(WORKSPACE, self.workspace_id.clone());
        Ok(outgoing)
    }

    async fn authorize(&self, request: &mut Unsigned, caller: &Caller<'_>) -> Result<(), NoCredential> {
        self.authority.authorize(request, caller).await
    }

    fn refused(&self, shown: &HeaderValue, caller: &Caller<'_>) -> bool {
        self.authority.refused(shown, caller)
    }
}

impl Provider for AnthropicGoogleCloud {
    const KIND: catalog::Provider = catalog::Provider::AnthropicGoogleCloud;
    const FRAMING: Framing = Framing::Events;

    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String> {
        Ok(as_it_is(call, model_id, without))
    }

    async fn authorize(&self, request: &mut Unsigned, _: &Caller<'_>) -> Result<(), NoCredential> {
        self.authority.authorize(&mut request.headers).await
    }

    fn refused(&self, shown: &HeaderValue, _: &Caller<'_>) -> bool {
        self.authority.refused(shown)
    }
}

impl Provider for Foundry {
    const KIND: catalog::Provider = catalog::Provider::Foundry;
    const FRAMING: Framing = Framing::Events;

    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String> {
        Ok(as_it_is(call, model_id, without))
    }

    async fn authorize(&self, request: &mut Unsigned, _: &Caller<'_>) -> Result<(), NoCredential> {
        let (name, value) = match self {
            Self::Key(key) => (API_KEY, key.clone()),
            Self::Entra(tokens) => (AUTHORIZATION, tokens.authorization().await?),
        };
        request.headers.insert(name, value);
        Ok(())
    }

    fn refused(&self, shown: &HeaderValue, _: &Caller<'_>) -> bool {
        matches!(self, Self::Entra(tokens) if tokens.refused(shown))
    }
}

/// The client's request at the client's path.
fn as_it_is(call: &Call<'_>, model_id: &str, without: &Without) -> Outgoing {
    let headers = anthropic_headers(call, without, !call.strip_tags);
    let body = body(call, model_id, without, !call.strip_tags);
    Outgoing { path: call.endpoint.path().to_owned(), headers, body }
}

/// The client's bytes with the upstream's model id.
pub(super) fn body(call: &Call<'_>, model_id: &str, without: &Without, keep_tags: bool) -> Vec<Bytes> {
    let mut body = Rewrite::new(call.body, &call.head.layout);
    if call.head.model != model_id {
        // A text always serialises.
        body.replace("model", serde_json::to_vec(model_id).unwrap_or_default());
    }
    if !keep_tags {
        body.remove("tags");
    }
    without.apply(&mut body);
    body.finish()
}
