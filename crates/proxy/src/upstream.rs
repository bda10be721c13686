//! Upstreams: the configured deployments that can answer a request.
//!
//! Knows how to address, authenticate and judge each of them; knows nothing of who is calling beyond plain values, and
//! nothing of budgets or policies.

mod affinity;
mod answer;
mod anthropic;
mod aws;
mod base;
mod bedrock;
mod candidates;
mod cloud;
mod config;
pub mod credential;
mod failure;
#[cfg(test)]
mod golden;
mod health;
mod load_test;
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
use std::time::{Duration, Instant};

use bytes::Bytes;
use control::clock::Clock;
use control::connect::{Egress, UpstreamClient, chain, connect_error};
use http::{HeaderMap, StatusCode};
use wire::catalog::{Catalog, Model, Provider};
use wire::messages::RequestHead;

use affinity::Homes;
use anthropic::Anthropic;
use bedrock::Bedrock;
use cloud::{Cloud, Way};
use health::Health;
use messages_api::{AnthropicAws, AnthropicGoogleCloud, Foundry, Mantle};
use renewed::NoCredential;
use vertex::Vertex;

pub use affinity::{CACHE_LIFE, CacheKey, LONG_CACHE_LIFE};
pub use answer::{Answer, AnswerBody, AnswerError};
pub use anthropic::{answer_headers, request_headers};
pub use aws::{AssumeRole, AwsChain, AwsConfig, AwsCredential, SessionName};
pub use bedrock::{BedrockConfig, Guardrail};
pub use candidates::{Candidate, Round, Unserved};
pub use config::{AnthropicConfig, ApiConfig, Config, Credential, Invalid, Timeouts};
pub use failure::{Class, Failed, FailoverOn, Failure, Trigger, Verdict, verdict};
pub use health::{Breaker, CircuitFigures, CircuitState, Trial};
pub use load_test::LoadTest;
pub use messages_api::{
    AnthropicAwsConfig, AnthropicAwsCredential, FoundryCredential, anthropic_google_cloud_url, foundry_url,
};
pub use parts::{Parts, Sent};
pub use vertex::VertexConfig;

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
    homes: Homes,
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
        Ok(Self { all: all.collect::<Result<_, _>>()?, client: egress.client(), homes: Homes::default() })
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

    /// Whether any of them serves `model` to a member of `groups`.
    #[must_use]
    pub fn serve(&self, model: &Model, groups: &[String]) -> bool {
        self.all.iter().any(|upstream| upstream.admits(model, groups) && upstream.id_for(model).is_some())
    }

    /// The state of every circuit, and what its attempts came to.
    #[must_use]
    pub fn figures(&self) -> Vec<CircuitFigures> {
        self.all.iter().flat_map(|upstream| upstream.health.figures()).collect()
    }

    /// The key of a session's cache of a model.
    #[must_use]
    pub fn cache_key(&self, sub: &str, session: &str, model: &str) -> CacheKey {
        self.homes.key(sub, session, model)
    }

    /// The upstream that holds the cache, if that is not where the session would go anyway.
    #[must_use]
    pub fn home(&self, key: CacheKey, now: Instant) -> Option<Arc<Upstream>> {
        self.homes.find(key, now)
    }

    /// `upstream` holds the cache until then; `None`: it is the one where the session would go anyway.
    pub fn settle_at(&self, key: CacheKey, upstream: Option<&Arc<Upstream>>, until: Instant) {
        match upstream {
            Some(upstream) => self.homes.keep(key, upstream, until),
            None => self.homes.forget(key),
        }
    }

    /// Asks one upstream, once. `sent` tells whether it has the whole request; dropping the future takes it back by
    /// closing the connection.
    ///
    /// # Errors
    /// [`Failure`] when another upstream may be asked.
    pub async fn ask(&self, candidate: &Candidate, call: &Call<'_>, sent: &Sent) -> Result<Answer, Failure> {
        let upstream = &candidate.upstream;
        let asking = self.exchange(upstream, &candidate.model_id, call, sent);
        let budget = upstream.timeouts.first_byte;
        tokio::time::timeout(budget, asking).await.unwrap_or(Err(Failure::Silent(budget)))
    }

    async fn exchange(
        &self,
        upstream: &Upstream,
        model_id: &str,
        call: &Call<'_>,
        sent: &Sent,
    ) -> Result<Answer, Failure> {
        let Timeouts { connect, idle, .. } = upstream.timeouts;
        let way = Way { client: &self.client, connect, idle };
        // Boxed: the clouds' futures are large, and the first kind is the common one.
        let asking: Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + '_>> = match &upstream.api {
            Api::Anthropic(api) => return self.exchange_with(api, upstream, model_id, call, sent).await,
            Api::Bedrock(cloud) if call.endpoint == Endpoint::CountTokens => {
                Box::pin(bedrock::count(cloud, way, call, model_id, sent))
            }
            Api::Bedrock(cloud) => Box::pin(cloud.ask(way, call, model_id, sent)),
            Api::Mantle(cloud) => Box::pin(cloud.ask(way, call, model_id, sent)),
            Api::AnthropicAws(cloud) => Box::pin(cloud.ask(way, call, model_id, sent)),
            Api::AnthropicGoogleCloud(cloud) => Box::pin(cloud.ask(way, call, model_id, sent)),
            Api::Vertex(cloud) => Box::pin(cloud.ask(way, call, model_id, sent)),
            Api::Foundry(cloud) => Box::pin(cloud.ask(way, call, model_id, sent)),
        };
        Failure::judge(asking.await?, &upstream.failover_on)
    }

    async fn exchange_with(
        &self,
        api: &Anthropic,
        upstream: &Upstream,
        model_id: &str,
        call: &Call<'_>,
        sent: &Sent,
    ) -> Result<Answer, Failure> {
        let proof = api.proof().await.map_err(|NoCredential(why)| Failure::Uncredentialed(why))?;
        let shown = proof.1.clone();
        let request = api.request(call, model_id, proof, sent.clone());
        let request = request.map_err(|error| Failure::Unsendable(error.to_string()))?;
        let response =
            self.client.request_within(request, upstream.timeouts.connect).await.map_err(
                |error| match connect_error(&error) {
                    Some(error) => Failure::Unreachable(error.to_string()),
                    None => Failure::Interrupted(chain(&error)),
                },
            )?;
        if response.status() == StatusCode::UNAUTHORIZED && api.refused(&shown) {
            tracing::warn!(
                upstream = upstream.name,
                "its credential is not shown again: the next request fetches another"
            );
        }
        let mut answer = Failure::judge(Answer::arriving(response), &upstream.failover_on)?;
        if answer.status() == StatusCode::BAD_REQUEST {
            let message = answer.error_message().await.map_err(|error| Failure::Interrupted(chain(&error)))?;
            if message.is_some_and(|message| failure::is_usage_limit(&message)) {
                return Err(Failure::Spent(Box::new(answer)));
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
    timeouts: Timeouts,
    failover_on: FailoverOn,
    health: Health,
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
            health: Health::new(config.name.clone(), config.breaker, Arc::clone(clock)),
            name: config.name,
            models: config.models.map(ids),
            groups: config.groups,
            timeouts: config.timeouts,
            failover_on: config.failover_on,
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

    /// How long its answers may pause.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.timeouts.idle
    }

    /// Whether the next upstream is asked after this failure of it.
    #[must_use]
    pub fn fails_over_on(&self, failure: &Failure) -> bool {
        self.failover_on.includes(failure)
    }

    /// Its answer broke off. `model_id` is what it calls the model.
    pub fn broke_off(&self, model_id: &str) {
        self.health.broke_off(model_id);
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
            timeouts: Timeouts::default(),
            failover_on: FailoverOn::default(),
            breaker: Some(Breaker::default()),
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
