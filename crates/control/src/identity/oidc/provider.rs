//! The provider as its discovery document describes it (OpenID Connect Discovery 1.0, section 3), checked.

use std::sync::Arc;

use url::Url;
use wire::oidc::Discovery;

use super::call::{self, Line};
use super::client::ClientAuth;
use super::keys::{ID_TOKEN_ALGORITHMS, Keys};
use crate::clock::Clock;
use crate::identity::OidcConfig;

/// Where the provider's endpoints are and what they take.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    /// The issuer, as it names itself.
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) userinfo_endpoint: Option<Url>,
    pub(super) client_auth: ClientAuth,
    pub(super) keys: Arc<Keys>,
}

/// The provider cannot be used: the boot stops.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The document did not come.
    #[error("oidc.issuer: {url}: {reason}")]
    Fetch {
        /// Where it was asked for.
        url: String,
        /// What came instead.
        reason: String,
    },
    /// The document is another issuer's.
    #[error("oidc.issuer is {configured}, but its discovery document names {found}; write that one")]
    IssuerMismatch {
        /// What the configuration says.
        configured: String,
        /// What the document says.
        found: String,
    },
    /// An address in the document is no URL, or would carry secrets over plain http.
    #[error("the provider's {0} is not an https URL")]
    Endpoint(&'static str),
    /// The provider signs with nothing that can be verified with a public key.
    #[error("the provider lists no asymmetric algorithm in id_token_signing_alg_values_supported")]
    Algorithms,
    /// The way to the provider cannot be built.
    #[error("oidc: {0}")]
    Egress(String),
}

impl Provider {
    /// Asks the provider; keeps `known` keys where they are still the ones.
    pub(super) async fn discover(
        config: &OidcConfig,
        line: &Line,
        clock: &Arc<dyn Clock>,
        known: Option<&Arc<Keys>>,
    ) -> Result<Self, DiscoveryError> {
        let configured = config.issuer.as_str().trim_end_matches('/').to_owned();
        let url = match &config.discovery_url {
            Some(url) => url.to_string(),
            None => format!("{configured}/.well-known/openid-configuration"),
        };
        let failed = |reason: String| DiscoveryError::Fetch { url: url.clone(), reason };
        let place = Url::parse(&url).map_err(|error| failed(error.to_string()))?;
        let document: Discovery =
            call::json(line.get(&place, None).await).map_err(|error| failed(error.to_string()))?;
        if comparable(&document.issuer) != comparable(&configured) {
            return Err(DiscoveryError::IssuerMismatch { configured, found: document.issuer });
        }
        let endpoint = |name, text: &str| {
            let url = Url::parse(text).map_err(|_| DiscoveryError::Endpoint(name))?;
            // Plain http only where the configured issuer is so too.
            let fits = url.scheme() == "https" || url.scheme() == config.issuer.scheme();
            if fits { Ok(url) } else { Err(DiscoveryError::Endpoint(name)) }
        };
        let userinfo = document.userinfo_endpoint.as_deref();
        let jwks_uri = endpoint("jwks_uri", &document.jwks_uri)?;
        let accepted = accepted(config.id_token_algorithm, &document.id_token_signing_alg_values_supported);
        if accepted.is_empty() {
            return Err(DiscoveryError::Algorithms);
        }
        let keys = match known.filter(|keys| keys.are_of(&jwks_uri, &accepted)) {
            Some(keys) => Arc::clone(keys),
            None => Arc::new(Keys::new(jwks_uri, &accepted, line.clone(), Arc::clone(clock))),
        };
        Ok(Self {
            authorization_endpoint: endpoint("authorization_endpoint", &document.authorization_endpoint)?,
            token_endpoint: endpoint("token_endpoint", &document.token_endpoint)?,
            userinfo_endpoint: userinfo.map(|text| endpoint("userinfo_endpoint", text)).transpose()?,
            client_auth: config.client.choose(&document),
            keys,
            issuer: document.issuer,
        })
    }
}

/// The algorithm that the configuration names, whatever the provider lists; else those that it lists, and RS256 when it
/// lists none.
fn accepted(configured: Option<&'static str>, listed: &[String]) -> Vec<&'static str> {
    match configured {
        Some(name) => vec![name],
        None if listed.is_empty() => vec!["RS256"],
        None => ID_TOKEN_ALGORITHMS.into_iter().filter(|name| listed.iter().any(|one| one == name)).collect(),
    }
}

/// An issuer less its trailing slash, with both names of this machine alike.
fn comparable(issuer: &str) -> String {
    let issuer = issuer.trim_end_matches('/');
    match Url::parse(issuer) {
        Ok(mut url) if url.host_str() == Some("localhost") => {
            let _ = url.set_host(Some("127.0.0.1"));
            url.as_str().trim_end_matches('/').to_owned()
        }
        Ok(url) => url.as_str().trim_end_matches('/').to_owned(),
        Err(_) => issuer.to_owned(),
    }
}
