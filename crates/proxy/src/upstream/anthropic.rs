//! The Claude API, and servers that speak it: what is sent there and which of its headers come back.
//!
//! The body is the client's own; the model id and `tags` are the only parts that may change, by splicing.

use std::sync::Arc;

use bytes::Bytes;
use control::clock::Clock;
use control::connect::Egress;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use secrecy::{ExposeSecret, SecretString};
use wire::messages::{Edit, splice};

use super::base::Base;
use super::cloud::{ANTHROPIC_BETA, ANTHROPIC_VERSION, TAGS_BETA};
use super::credential::anthropic::Federation;
use super::credential::{Source, Tokens};
use super::parts::{Parts, Sent};
use super::renewed::NoCredential;
use super::{AnthropicConfig, Call, Caller, Config, Credential, Invalid};

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The beta that lets an OAuth token in.
const OAUTH_BETA: &str = "oauth-2025-04-20";
/// Names us after the client's own product, as the reference does.
pub(super) const VERSION: &str = concat!("cc-gateway/", env!("CARGO_PKG_VERSION"));

/// Headers of answers that speak of our account, not of the client's request: rate limits and who pays.
const OURS_ALONE: [&str; 5] = [
    "anthropic-ratelimit-",
    "anthropic-priority-",
    "anthropic-fast-",
    "anthropic-organization-",
    "anthropic-workspace-",
];

/// Where and as whom to send.
#[derive(Debug)]
pub(super) struct Anthropic {
    base: Base,
    proof: Proof,
    /// The credential is an OAuth token.
    oauth: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    forward_user_identity: bool,
}

/// What makes a request ours.
#[derive(Debug)]
enum Proof {
    Known(HeaderName, HeaderValue),
    /// Exchanged for the workload's own token.
    Federated(Box<Tokens>),
}

impl Proof {
    fn known(config: &Config, name: HeaderName, value: &SecretString) -> Result<Self, Invalid> {
        let value = HeaderValue::from_str(value.expose_secret());
        let mut value = value.map_err(|_| Invalid::Credential(config.name.clone()))?;
        value.set_sensitive(true);
        Ok(Self::Known(name, value))
    }
}

impl Anthropic {
    pub(super) fn new(
        config: &Config,
        api: &AnthropicConfig,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Invalid> {
        let proof = match &api.credential {
            Credential::ApiKey(key) => Proof::known(config, HeaderName::from_static("x-api-key"), key)?,
            Credential::OauthToken(token) => {
                let bearer = format!("Bearer {}", token.expose_secret());
                Proof::known(config, AUTHORIZATION, &bearer.into())?
            }
            Credential::Federation(federation) => {
                let federation = Federation::new(federation.clone(), &config.base_url);
                Proof::Federated(Box::new(Tokens::new(Source::Anthropic(federation), egress, clock)))
            }
        };
        Ok(Self {
            base: Base::new(&config.name, &config.base_url)?,
            proof,
            oauth: !matches!(api.credential, Credential::ApiKey(_)),
            headers: config.headers.clone(),
            forward_user_identity: api.forward_user_identity,
        })
    }

    /// The header that makes a request ours.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn proof(&self) -> Result<(HeaderName, HeaderValue), NoCredential> {
        match &self.proof {
            Proof::Known(name, value) => Ok((name.clone(), value.clone())),
            Proof::Federated(tokens) => Ok((AUTHORIZATION, tokens.authorization().await?)),
        }
    }

    /// It refused what was `shown`: another one is fetched for the next request. Whether it will be; what the configuration
    /// holds stays.
    pub(super) fn refused(&self, shown: &HeaderValue) -> bool {
        matches!(&self.proof, Proof::Federated(tokens) if tokens.refused(shown))
    }

    /// The request to send; `model_id` is what this upstream calls the model.
    pub(super) fn request(
        &self,
        call: &Call<'_>,
        model_id: &str,
        proof: (HeaderName, HeaderValue),
        sent: Sent,
    ) -> Result<Request<Parts>, http::Error> {
        let mut request = Request::new(Parts::new(body(call, model_id), sent));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.base.uri_of(call.endpoint.path(), call.query)?;
        *request.headers_mut() = self.request_headers(call, proof);
        Ok(request)
    }

    fn request_headers(&self, call: &Call<'_>, proof: (HeaderName, HeaderValue)) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(24);
        for (name, value) in call.headers {
            if passes_to_upstream(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers.insert(USER_AGENT, user_agent(call.headers.get(USER_AGENT)));
        self.adjust_betas(&mut headers, call.strip_tags);
        headers.insert(proof.0, proof.1);
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if self.forward_user_identity {
            identify(&mut headers, &call.caller);
        }
        headers
    }

    /// Leaves the client's lines as they are unless one beta must go or come.
    fn adjust_betas(&self, headers: &mut HeaderMap, strip_tags: bool) {
        let lines = || headers.get_all(ANTHROPIC_BETA).iter().filter_map(|line| line.to_str().ok());
        let named = || lines().flat_map(|line| line.split(',')).map(str::trim).filter(|beta| !beta.is_empty());
        let strip = strip_tags && named().any(|beta| beta == TAGS_BETA);
        let add = self.oauth && !named().any(|beta| beta == OAUTH_BETA);
        if !strip && !add {
            return;
        }
        let kept = named().filter(|&beta| !(strip && beta == TAGS_BETA));
        let betas: Vec<_> = kept.chain(add.then_some(OAUTH_BETA)).collect();
        match HeaderValue::try_from(betas.join(",")) {
            Ok(value) if !value.is_empty() => headers.insert(ANTHROPIC_BETA, value),
            _ => headers.remove(ANTHROPIC_BETA),
        };
    }
}

/// Which of the client's headers pass to an upstream (contract B1).
fn passes_to_upstream(name: &HeaderName) -> bool {
    *name == ACCEPT
        || *name == ACCEPT_ENCODING
        || *name == CONTENT_TYPE
        || *name == ANTHROPIC_VERSION
        || *name == ANTHROPIC_BETA
        || name.as_str().starts_with("x-stainless-")
}

/// Copies of the client's headers that an upstream may see; of the client's name it sees a longer one.
#[must_use]
pub fn request_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(16);
    for (name, value) in headers {
        if (passes_to_upstream(name) || name == USER_AGENT)
            && let Ok(copy) = HeaderValue::from_bytes(value.as_bytes())
        {
            kept.append(name.clone(), copy);
        }
    }
    kept
}

/// The headers of an answer that pass to the client (contract R27).
#[must_use]
pub fn answer_headers(headers: &HeaderMap) -> HeaderMap {
    // Room for our own headers too, so that the map does not grow.
    let mut kept = HeaderMap::with_capacity(24);
    for (name, value) in headers {
        if passes_to_client(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn passes_to_client(name: &HeaderName) -> bool {
    if name.as_str().starts_with("anthropic-") {
        return !OURS_ALONE.iter().any(|prefix| name.as_str().starts_with(prefix));
    }
    [CONTENT_TYPE, CACHE_CONTROL, CONTENT_ENCODING, RETRY_AFTER, X_SHOULD_RETRY].contains(name)
}

fn user_agent(client: Option<&HeaderValue>) -> HeaderValue {
    let named = client.map(|client| [client.as_bytes(), b" ", VERSION.as_bytes()].concat());
    named.and_then(|value| HeaderValue::try_from(value).ok()).unwrap_or(HeaderValue::from_static(VERSION))
}

/// Tells who is calling; a name that no header can carry is left out.
fn identify(headers: &mut HeaderMap, caller: &Caller<'_>) {
    let mut insert = |name, value: Option<&str>| {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    insert("x-litellm-end-user-id", caller.email);
    insert("x-claude-gateway-user-id", Some(caller.sub));
    insert("x-claude-gateway-user-email", caller.email);
}

/// The client's bytes, with the upstream's model id in place of the client's and without `tags`, where that is needed.
fn body(call: &Call<'_>, model_id: &str) -> Vec<Bytes> {
    let mut edits = Vec::with_capacity(2);
    if call.head.model != model_id {
        // A JSON string always serialises.
        let quoted = serde_json::to_vec(model_id).unwrap_or_default();
        edits.push(Edit { span: call.head.model_span.clone(), replacement: quoted.into() });
    }
    if let Some(span) = call.head.tags.clone().filter(|_| call.strip_tags) {
        edits.push(Edit { span, replacement: Bytes::new() });
    }
    if edits.is_empty() { vec![call.body.clone()] } else { splice(call.body, &mut edits) }
}

#[cfg(test)]
mod tests;
