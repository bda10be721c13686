//! What an operator says of an upstream.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use secrecy::SecretString;
use url::Url;
use wire::catalog::Provider;

use super::aws::AwsConfig;
use super::bedrock::BedrockConfig;
use super::credential::anthropic::FederationConfig;
use super::credential::google::Google;
use super::failure::FailoverOn;
use super::health::Breaker;
use super::messages_api::{AnthropicAwsConfig, FoundryCredential};
use super::vertex::VertexConfig;

/// One entry of `upstreams:`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `name`, unique among the upstreams.
    pub name: String,
    /// `base_url`: http or https, without query or fragment; a path is kept as a prefix.
    pub base_url: Url,
    /// `headers`: added to every request; none of the reserved names (contract B4). Values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `models`: the client-facing ids it serves; `None`: every model it has an id for.
    pub models: Option<Vec<String>>,
    /// `groups`: only members of one of these use it; `None`: everyone.
    pub groups: Option<Vec<String>>,
    /// `provider`, and what only that one has.
    pub api: ApiConfig,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// `failover_on`: which of its failures lead to the next upstream.
    pub failover_on: FailoverOn,
    /// `breaker`: when it is left alone; `None`: never.
    pub breaker: Option<Breaker>,
}

/// How long an upstream may take: `upstreams[].timeouts`, else `timeouts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `connect_ms`: from the lookup of its name to the end of the TLS handshake.
    pub connect: Duration,
    /// `ttfb_ms`: from the beginning to its response headers; on streams of clouds, to the first event.
    pub first_byte: Duration,
    /// `idle_ms`: from one piece of the answer's body to the next.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), first_byte: Duration::from_secs(120), idle: Duration::from_secs(300) }
    }
}

/// What is different in each provider.
#[derive(Debug, Clone)]
pub enum ApiConfig {
    /// `provider: anthropic`.
    Anthropic(AnthropicConfig),
    /// `provider: bedrock`.
    Bedrock(BedrockConfig),
    /// `provider: mantle`.
    Mantle(AwsConfig),
    /// `provider: anthropicAws`.
    AnthropicAws(AnthropicAwsConfig),
    /// `provider: anthropicGoogleCloud`.
    AnthropicGoogleCloud(Google),
    /// `provider: vertex`.
    Vertex(VertexConfig),
    /// `provider: foundry`.
    Foundry(FoundryCredential),
}

impl ApiConfig {
    /// The provider.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::Anthropic(_) => Provider::Anthropic,
            Self::Bedrock(_) => Provider::Bedrock,
            Self::Mantle(_) => Provider::Mantle,
            Self::AnthropicAws(_) => Provider::AnthropicAws,
            Self::AnthropicGoogleCloud(_) => Provider::AnthropicGoogleCloud,
            Self::Vertex(_) => Provider::Vertex,
            Self::Foundry(_) => Provider::Foundry,
        }
    }

    /// `region`, where the ids of models depend on it.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        match self {
            Self::Bedrock(bedrock) => Some(&bedrock.aws.region),
            _ => None,
        }
    }
}

/// An upstream with `provider: anthropic`.
#[derive(Debug, Clone)]
pub struct AnthropicConfig {
    /// `auth`.
    pub credential: Credential,
    /// `forward_user_identity`: tell it who is calling.
    pub forward_user_identity: bool,
}

/// What we show an upstream. Never shown to a client.
#[derive(Debug, Clone)]
pub enum Credential {
    /// `auth.api_key`: sent as `x-api-key`.
    ApiKey(SecretString),
    /// `auth.oauth_token`: sent as a bearer, with the beta that allows it.
    OauthToken(SecretString),
    /// `auth.federation_rule_id` and the keys beside it: a token exchanged for the workload's own.
    Federation(FederationConfig),
}

/// A configured upstream that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// `base_url` cannot be asked.
    #[error("upstream {0}: base_url must be an http or https URL with a host")]
    BaseUrl(String),
    /// The credential cannot stand in a header.
    #[error("upstream {0}: the credential of auth must be printable ASCII on one line")]
    Credential(String),
}
