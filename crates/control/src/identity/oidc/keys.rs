//! The provider's signing keys, and the one question they answer: did the provider sign this?
//!
//! Knows JWKS (RFC 7517) and JWS (RFC 7515); knows nothing of what claims mean.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;
use wire::oidc::Claims;

use super::call::{self, CallError, Line};
use crate::clock::Clock;

/// Asymmetric only: with HS256 the client secret would sign, and `none` is no signature.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];
/// After a fetch that did not bring the key: garbage must not make us hammer the provider.
const FLOOR: Duration = Duration::from_secs(5);
/// Keys that the provider withdrew are trusted no longer than this.
const FRESH: Duration = Duration::from_secs(3600);

/// The provider's keys, fetched when first needed and again when a key id is unknown.
pub(super) struct Keys {
    uri: Url,
    line: Line,
    clock: Arc<dyn Clock>,
    algorithms: Vec<(&'static str, Algorithm)>,
    current: ArcSwapOption<KeySet>,
    /// When a fetch last failed to bring a wanted key; held while one is under way, so that there is one at a time.
    fruitless: Mutex<Option<Instant>>,
}

struct KeySet {
    keys: Vec<Key>,
    fetched: Instant,
}

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    decoding: DecodingKey,
}

/// A token's signature could not be accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("id_token is malformed")]
    Malformed,
    #[error("id_token is signed with {0}, which is not one of the provider's asymmetric algorithms")]
    Algorithm(String),
    #[error("id_token signature is wrong")]
    Signature,
    /// The provider and its keys disagree: a later attempt may succeed.
    #[error("no valid key found in issuer's jwks_uri for key parameters {0}")]
    NoKey(String),
    /// The keys could not be fetched.
    #[error("issuer's jwks_uri: {0}")]
    Fetch(CallError),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl Keys {
    /// `listed` are the algorithms of the discovery document; RS256 when it lists none (OpenID Connect Discovery 1.0,
    /// section 3). `None` when not one of them can be accepted.
    pub(super) fn new(uri: Url, listed: &[String], line: Line, clock: Arc<dyn Clock>) -> Option<Self> {
        let accepted =
            |name: &str| if listed.is_empty() { name == "RS256" } else { listed.iter().any(|one| one == name) };
        let algorithms: Vec<_> = ALGORITHMS.into_iter().filter(|(name, _)| accepted(name)).collect();
        if algorithms.is_empty() {
            return None;
        }
        Some(Self { uri, line, clock, algorithms, current: ArcSwapOption::empty(), fruitless: Mutex::new(None) })
    }

    /// The claims of a token that one of the provider's keys signed. Nothing in them is checked.
    pub(super) async fn verified(&self, token: &str) -> Result<Claims, KeyError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(KeyError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(KeyError::Malformed)?;
        let header: Header = decoded(header)?;
        let algorithm = self.algorithms.iter().find(|(name, _)| *name == header.alg);
        let Some((_, algorithm)) = algorithm else { return Err(KeyError::Algorithm(header.alg)) };
        if header.crit.is_some() {
            return Err(KeyError::Malformed);
        }
        let set = self.set_with(&header, *algorithm).await?;
        let verifies = |key: &Key| {
            jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.decoding, *algorithm).unwrap_or(false)
        };
        // A token without a key id is tried with every key that fits.
        if set.fitting(&header, *algorithm).any(verifies) { decoded(payload) } else { Err(KeyError::Signature) }
    }

    async fn set_with(&self, header: &Header, algorithm: Algorithm) -> Result<Arc<KeySet>, KeyError> {
        if let Some(set) = self.fresh_with(header, algorithm) {
            return Ok(set);
        }
        let mut fruitless = self.fruitless.lock().await;
        // Another sign-in may have fetched while this one waited.
        if let Some(set) = self.fresh_with(header, algorithm) {
            return Ok(set);
        }
        let unknown =
            || KeyError::NoKey(format!("alg={}, kid={}", header.alg, header.kid.as_deref().unwrap_or("none")));
        let now = self.clock.instant();
        if fruitless.is_some_and(|last| now.saturating_duration_since(last) < FLOOR) {
            return Err(unknown());
        }
        *fruitless = Some(now);
        let set = Arc::new(self.fetch(now).await?);
        self.current.store(Some(Arc::clone(&set)));
        if set.fitting(header, algorithm).next().is_none() {
            return Err(unknown());
        }
        *fruitless = None;
        Ok(set)
    }

    fn fresh_with(&self, header: &Header, algorithm: Algorithm) -> Option<Arc<KeySet>> {
        let set = self.current.load_full()?;
        let age = self.clock.instant().saturating_duration_since(set.fetched);
        let usable = age < FRESH && set.fitting(header, algorithm).next().is_some();
        usable.then_some(set)
    }

    async fn fetch(&self, now: Instant) -> Result<KeySet, KeyError> {
        let document: Document = call::json(self.line.get(&self.uri, None).await).map_err(KeyError::Fetch)?;
        // One key of a kind that we cannot read must not cost the others.
        Ok(KeySet { keys: document.keys.into_iter().filter_map(Key::read).collect(), fetched: now })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("uri", &self.uri.as_str()).finish_non_exhaustive()
    }
}

impl KeySet {
    fn fitting<'a>(&'a self, header: &'a Header, algorithm: Algorithm) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| {
            key.decoding.family() == algorithm.family()
                && key.algorithm.as_deref().is_none_or(|name| name == header.alg)
                && header.kid.as_deref().is_none_or(|id| key.id.as_deref() == Some(id))
        })
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let algorithm = value.get("alg").and_then(Value::as_str).map(str::to_owned);
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithm, decoding })
    }
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, KeyError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| KeyError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| KeyError::Malformed)
}
