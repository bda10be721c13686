//! Clouds that speak the Messages API itself: the client's body with another model id, below their own address.

use std::sync::Arc;

use bytes::Bytes;
use control::clock::Clock;
use control::connect::Egress;
use http::{HeaderName, HeaderValue};
use secrecy::SecretString;
use wire::catalog;
use wire::messages::Rewrite;

use super::aws::{Authority, AwsConfig};
use super::cloud::{Framing, Outgoing, Provider, Unsigned, Without, anthropic_headers};
use super::renewed::NoCredential;
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
}

impl Provider for AnthropicAws {
    const KIND: catalog::Provider = catalog::Provider::AnthropicAws;
    const FRAMING: Framing = Framing::Events;

    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String> {
        let body = body(call, model_id, without, !call.strip_tags);
        let mut headers = anthropic_headers(call, without, !call.strip_tags);
        headers.insert(WORKSPACE, self.workspace_id.clone());
        Ok(Outgoing { path: call.endpoint.path().to_owned(), headers, body })
    }

    async fn authorize(&self, request: &mut Unsigned, caller: &Caller<'_>) -> Result<(), NoCredential> {
        self.authority.authorize(request, caller).await
    }
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
