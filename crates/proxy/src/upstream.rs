//! Upstreams: the configured deployments that can answer a request.
//!
//! Knows how to address, authenticate and judge each of them; knows nothing of who is calling beyond plain values, and
//! nothing of budgets or policies.

mod answer;
mod anthropic;
mod aws;
mod base;
mod bedrock;
mod candidates;
mod cloud;
pub mod credential;
mod failure;
mod messages_api;
mod parts;
mod renewed;
#[cfg(test)]
pub(crate) mod scripted;
mod vertex;

use std::borrow::Cow;
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use control::clock::Clock;
use control::connect::{Egress, UpstreamClient, chain, connect_error};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::SecretString;
use url::Url;
use wire::catalog::{Catalog, Model, Provider};
use wire::messages::RequestHead;

use anthropic::Anthropic;
use bedrock::Bedrock;
use cloud::Cloud;
use credential::anthropic::FederationConfig;
use credential::google::Google;
use messages_api::{AnthropicAws, AnthropicGoogleCloud, Foundry, Mantle};
use renewed::NoCredential;
use vertex::Vertex;

pub use answer::{Answer, AnswerBody, AnswerError};
pub use anthropic::answer_headers;
pub use aws::{AssumeRole, AwsConfig, AwsCredential, SessionName};
pub use bedrock::{BedrockConfig, Guardrail};
pub use candidates::{Candidate, Unserved};
pub use failure::{Failed, Failure, Verdict, verdict};
pub use messages_api::{
    AnthropicAwsConfig, AnthropicAwsCredential, FoundryCredential, anthropic_google_cloud_url, foundry_url,
};
pub use parts::{Parts, Sent};
pub use vertex::VertexConfig;

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
    /// `timeouts.upstream_ttfb_ms`: how long it may take to send response headers; `None`: as long as it likes.
    pub ttfb_timeout: Option<Duration>,
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

/// What is asked of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// An answer.
    Messages,
    /// How many tokens a request has.
    CountTokens,
}

impl Endpoint {
    /// Its path, ours and the upstream's.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
        }
    }
}

/// A client's request on its way to an upstream.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The request's id, for logs and for errors that are told.
    pub request_id: &'a str,
    /// What is asked.
    pub endpoint: Endpoint,
    /// The client's query string, verbatim.
    pub query: Option<&'a str>,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// The client's body.
    pub body: &'a Bytes,
    /// What was found in that body.
    pub head: &'a RequestHead,
    /// Take `tags`, and the beta that they need, out.
    pub strip_tags: bool,
    /// Who is calling.
    pub caller: Caller<'a>,
}

/// Who is calling, for upstreams that are told.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The subject.
    pub sub: &'a str,
    /// The e-mail address.
    pub email: Option<&'a str>,
}

/// All upstreams, in the order of the configuration, and the way to them.
#[derive(Debug)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
    client: UpstreamClient<Parts>,
}

impl Upstreams {
    /// The upstreams of `configs`; the ids in their `models` are looked up in `catalog`.
    ///
    /// # Errors
    /// [`Invalid`] for the first that cannot be used.
    pub fn new(
        configs: Vec<Config>,
        catalog: &Catalog,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Invalid> {
        let all = configs.into_iter().map(|config| Upstream::new(config, catalog, egress, clock).map(Arc::new));
        Ok(Self { all: all.collect::<Result<_, _>>()?, client: egress.client() })
    }

    /// How many are configured.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Those that serve `model` for a member of `groups`. `requested` is the client's word for the model.
    ///
    /// # Errors
    /// [`Unserved`] when there is none.
    pub fn candidates(&self, model: &Model, requested: &str, groups: &[String]) -> Result<Vec<Candidate>, Unserved> {
        candidates::candidates(&self.all, model, requested, groups)
    }

    /// Asks one upstream, once. `sent` tells whether it has the whole request; dropping the future takes it back by
    /// closing the connection.
    ///
    /// # Errors
    /// [`Failure`] when another upstream may be asked.
    pub async fn ask(&self, candidate: &Candidate, call: &Call<'_>, sent: &Sent) -> Result<Answer, Failure> {
        let upstream = &candidate.upstream;
        let asking = self.exchange(upstream, &candidate.model_id, call, sent);
        match upstream.ttfb_timeout {
            Some(budget) => tokio::time::timeout(budget, asking).await.unwrap_or(Err(Failure::Silent(budget))),
            None => asking.await,
        }
    }

    async fn exchange(
        &self,
        upstream: &Upstream,
        model_id: &str,
        call: &Call<'_>,
        sent: &Sent,
    ) -> Result<Answer, Failure> {
        let client = &self.client;
        // Boxed: the futures of clouds are large, and the first kind is the common one.
        let asking: Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + '_>> = match &upstream.api {
            Api::Anthropic(api) => return self.ask_anthropic(api, model_id, call, sent).await,
            Api::Bedrock(cloud) if call.endpoint == Endpoint::CountTokens => {
                return Box::pin(bedrock::count(cloud, client, call, model_id, sent)).await;
            }
            Api::Bedrock(cloud) => Box::pin(cloud.ask(client, call, model_id, sent)),
            Api::Mantle(cloud) => Box::pin(cloud.ask(client, call, model_id, sent)),
            Api::AnthropicAws(cloud) => Box::pin(cloud.ask(client, call, model_id, sent)),
            Api::AnthropicGoogleCloud(cloud) => Box::pin(cloud.ask(client, call, model_id, sent)),
            Api::Vertex(cloud) => Box::pin(cloud.ask(client, call, model_id, sent)),
            Api::Foundry(cloud) => Box::pin(cloud.ask(client, call, model_id, sent)),
        };
        Failure::judge(asking.await?)
    }

    async fn ask_anthropic(
        &self,
        api: &Anthropic,
        model_id: &str,
        call: &Call<'_>,
        sent: &Sent,
    ) -> Result<Answer, Failure> {
        let proof = api.proof().await.map_err(|NoCredential(why)| Failure::Uncredentialed(why))?;
        let request = api.request(call, model_id, proof, sent.clone());
        let request = request.map_err(|error| Failure::Unsendable(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| match connect_error(&error) {
            Some(error) => Failure::Unreachable(error.to_string()),
            None => Failure::Interrupted(chain(&error)),
        })?;
        let mut answer = Failure::judge(Answer::arriving(response))?;
        if answer.status() == StatusCode::BAD_REQUEST {
            let message = answer.error_message().await.map_err(|error| Failure::Interrupted(chain(&error)))?;
            if message.is_some_and(|message| failure::is_usage_limit(&message)) {
                return Err(Failure::Status(Box::new(answer)));
            }
        }
        Ok(answer)
    }
}

/// One configured upstream.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    /// Catalogue ids; `None`: all.
    models: Option<HashSet<String>>,
    groups: Option<Vec<String>>,
    ttfb_timeout: Option<Duration>,
    provider: Provider,
    region: Option<String>,
    api: Api,
    is_known_unmetered: AtomicBool,
}

/// How each kind of vendor API is spoken to.
#[derive(Debug)]
enum Api {
    Anthropic(Anthropic),
    Bedrock(Cloud<Bedrock>),
    Mantle(Cloud<Mantle>),
    AnthropicAws(Cloud<AnthropicAws>),
    AnthropicGoogleCloud(Cloud<AnthropicGoogleCloud>),
    Vertex(Cloud<Vertex>),
    Foundry(Cloud<Foundry>),
}

impl Api {
    fn new(config: &Config, egress: &Egress, clock: &Arc<dyn Clock>) -> Result<Self, Invalid> {
        let name = &config.name;
        Ok(match config.api.clone() {
            ApiConfig::Anthropic(api) => Self::Anthropic(Anthropic::new(config, &api, egress, clock)?),
            ApiConfig::Bedrock(api) => Self::Bedrock(Cloud::new(config, Bedrock::new(name, api, egress, clock)?)?),
            ApiConfig::Mantle(aws) => Self::Mantle(Cloud::new(config, Mantle::new(name, aws, egress, clock)?)?),
            ApiConfig::AnthropicAws(api) => {
                Self::AnthropicAws(Cloud::new(config, AnthropicAws::new(name, api, egress, clock)?)?)
            }
            ApiConfig::AnthropicGoogleCloud(google) => {
                Self::AnthropicGoogleCloud(Cloud::new(config, AnthropicGoogleCloud::new(google, egress, clock))?)
            }
            ApiConfig::Vertex(api) => Self::Vertex(Cloud::new(config, Vertex::new(api, egress, clock))?),
            ApiConfig::Foundry(api) => Self::Foundry(Cloud::new(config, Foundry::new(name, api, egress, clock)?)?),
        })
    }
}

impl Upstream {
    fn new(config: Config, catalog: &Catalog, egress: &Egress, clock: &Arc<dyn Clock>) -> Result<Self, Invalid> {
        let api = Api::new(&config, egress, clock)?;
        let ids = |listed: Vec<String>| listed.iter().filter_map(|id| Some(catalog.resolve(id)?.id.clone())).collect();
        Ok(Self {
            name: config.name,
            models: config.models.map(ids),
            groups: config.groups,
            ttfb_timeout: config.ttfb_timeout,
            provider: config.api.provider(),
            region: config.api.region().map(str::to_owned),
            api,
            is_known_unmetered: AtomicBool::new(false),
        })
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An answer of it said nothing of its usage. Logged once: it will hardly be the last.
    pub fn tell_unmetered(&self) {
        if !self.is_known_unmetered.swap(true, Ordering::Relaxed) {
            tracing::warn!(upstream = self.name, "an answer reports no usage; such answers are charged by their size");
        }
    }

    fn admits(&self, model: &Model, groups: &[String]) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(&model.id))
            && self.groups.as_ref().is_none_or(|admitted| admitted.iter().any(|group| groups.contains(group)))
    }

    fn id_for<'a>(&self, model: &'a Model) -> Option<Cow<'a, str>> {
        model.id_for(&self.name, self.provider, self.region.as_deref())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// An upstream that is configured with a name and an address only.
    pub(super) fn config(name: &str, base_url: &str) -> Config {
        Config {
            name: name.to_owned(),
            base_url: base_url.parse().unwrap(),
            headers: Vec::new(),
            models: None,
            groups: None,
            api: ApiConfig::Anthropic(AnthropicConfig {
                credential: Credential::ApiKey("sk-test".into()),
                forward_user_identity: false,
            }),
            ttfb_timeout: None,
        }
    }

    pub(super) fn upstream(name: &str) -> Arc<Upstream> {
        let catalog = Catalog::new(Vec::new(), true).unwrap();
        build(config(name, "http://127.0.0.1:1"), &catalog)
    }

    pub(super) fn build(config: Config, catalog: &Catalog) -> Arc<Upstream> {
        let egress = Egress::new(&control::connect::Config::default()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(control::clock::SystemClock);
        Arc::new(Upstream::new(config, catalog, &egress, &clock).unwrap())
    }
}
