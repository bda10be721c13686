//! Upstreams: the configured deployments that can answer a request.
//!
//! Knows how to address, authenticate and judge each of them; knows nothing of who is calling beyond plain values, and
//! nothing of budgets or policies.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use secrecy::SecretString;
use url::Url;

/// One entry of `upstreams:` with `provider: anthropic`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `name`, unique among the upstreams.
    pub name: String,
    /// `base_url`: http or https, without query or fragment; a path is kept as a prefix.
    pub base_url: Url,
    /// `auth`.
    pub credential: Credential,
    /// `headers`: added to every request; none of the reserved names (contract B4).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `models`: the client-facing ids it serves; `None`: every model it has an id for.
    pub models: Option<Vec<String>>,
    /// `groups`: only members of one of these use it; `None`: everyone.
    pub groups: Option<Vec<String>>,
    /// `forward_user_identity`: tell it who is calling.
    pub forward_user_identity: bool,
    /// `timeouts.upstream_ttfb_ms`: how long it may take to send response headers; `None`: as long as it likes.
    pub ttfb_timeout: Option<Duration>,
}

/// What we show an upstream. Never shown to a client.
#[derive(Debug, Clone)]
pub enum Credential {
    /// `auth.api_key`: sent as `x-api-key`.
    ApiKey(SecretString),
    /// `auth.oauth_token`: sent as a bearer, with the beta that allows it.
    OauthToken(SecretString),
}
