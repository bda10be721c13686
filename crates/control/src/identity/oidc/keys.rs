//! The provider's signing keys, and the one question they answer: did the provider sign this?
//!
//! Knows JWKS (RFC 7517) and JWS (RFC 7515); knows nothing of what claims mean.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;
use wire::oidc::Claims;

use super::call::{self, CallError, Line};
use crate::clock::Clock;

/// What an id_token may be signed with (RFC 7518, section 3.1; RFC 8037). Asymmetric only: with HS256 the client secret would
/// sign, and `none` is no signature.
pub const ID_TOKEN_ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

/// Who checks a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// jsonwebtoken.
    Jwt(Algorithm),
    /// aws-lc directly: jsonwebtoken has no ES512.
    Es512,
}

/// After a fetch that did not bring the key: garbage must not make us hammer the provider.
const FLOOR: Duration = Duration::from_secs(5);
/// Keys that the provider withdrew are trusted no longer than this, while it can be asked.
const FRESH: Duration = Duration::from_secs(3600);
/// And no longer than this while it cannot.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The provider's keys, fetched when first needed and again when a key id is unknown.
pub(super) struct Keys {
    uri: Url,
    line: Line,
    clock: Arc<dyn Clock>,
    algorithms: Vec<(&'static str, Check)>,
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
    curve: Option<EllipticCurve>,
    decoding: DecodingKey,
}

/// A token's signature could not be accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("id_token is malformed")]
    Malformed,
    #[error("id_token is signed with {0}, which is not one of the accepted algorithms")]
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

/// A JWS in its parts; nothing is checked but that its algorithm is accepted.
struct Token<'t> {
    header: Header,
    check: Check,
    /// Header and payload, as they were signed.
    signed: &'t str,
    payload: &'t str,
    signature: &'t str,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl Keys {
    /// `accepted` are names of [`ID_TOKEN_ALGORITHMS`].
    pub(super) fn new(uri: Url, accepted: &[&'static str], line: Line, clock: Arc<dyn Clock>) -> Self {
        let algorithms = accepted.iter().filter_map(|name| Some((*name, Check::named(name)?))).collect();
        Self { uri, line, clock, algorithms, current: ArcSwapOption::empty(), fruitless: Mutex::new(None) }
    }

    /// Whether these are the keys of that place, for those algorithms.
    pub(super) fn are_of(&self, uri: &Url, accepted: &[&'static str]) -> bool {
        self.uri == *uri && self.algorithms.iter().map(|(name, _)| *name).eq(accepted.iter().copied())
    }

    /// The claims of a token that one of the provider's keys signed. Nothing in them is checked.
    pub(super) async fn verified(&self, token: &str) -> Result<Claims, KeyError> {
        let token = Token::read(token, &self.algorithms)?;
        self.set_with(&token.header, token.check).await?.verified(&token)
    }

    async fn set_with(&self, header: &Header, check: Check) -> Result<Arc<KeySet>, KeyError> {
        if let Some(set) = self.with(header, check, FRESH) {
            return Ok(set);
        }
        let mut fruitless = self.fruitless.lock().await;
        // Another sign-in may have fetched while this one waited.
        if let Some(set) = self.with(header, check, FRESH) {
            return Ok(set);
        }
        let now = self.clock.instant();
        if fruitless.is_some_and(|last| now.saturating_duration_since(last) < FLOOR) {
            return self.with(header, check, STALE).ok_or_else(|| unknown(header));
        }
        *fruitless = Some(now);
        let set = match self.fetch(now).await {
            Ok(set) => Arc::new(set),
            Err(error) => {
                let stale = self.with(header, check, STALE).ok_or(error)?;
                tracing::warn!("the identity provider's keys could not be fetched; the known ones are used");
                return Ok(stale);
            }
        };
        self.current.store(Some(Arc::clone(&set)));
        if set.fitting(header, check).next().is_none() {
            return Err(unknown(header));
        }
        *fruitless = None;
        Ok(set)
    }

    /// The keys at hand, when they are younger than `life` and one of them fits.
    fn with(&self, header: &Header, check: Check, life: Duration) -> Option<Arc<KeySet>> {
        let set = self.current.load_full()?;
        let age = self.clock.instant().saturating_duration_since(set.fetched);
        let usable = age < life && set.fitting(header, check).next().is_some();
        usable.then_some(set)
    }

    async fn fetch(&self, now: Instant) -> Result<KeySet, KeyError> {
        let document: Document = call::json(self.line.get(&self.uri, None).await).map_err(KeyError::Fetch)?;
        Ok(KeySet::read(document, now))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("uri", &self.uri.as_str()).finish_non_exhaustive()
    }
}

impl KeySet {
    fn read(document: Document, fetched: Instant) -> Self {
        // One key of a kind that we cannot read must not cost the others.
        Self { keys: document.keys.into_iter().filter_map(Key::read).collect(), fetched }
    }

    /// The claims, when one of these keys signed the token. One without a key id is tried with every key that fits.
    fn verified(&self, token: &Token<'_>) -> Result<Claims, KeyError> {
        let signed_by = |key: &Key| token.check.verifies(token.signature, token.signed.as_bytes(), &key.decoding);
        let is_signed = self.fitting(&token.header, token.check).any(signed_by);
        if is_signed { decoded(token.payload) } else { Err(KeyError::Signature) }
    }

    fn fitting<'a>(&'a self, header: &'a Header, check: Check) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| {
            key.decoding.family() == check.family()
                && key.curve == check.curve()
                && key.algorithm.as_deref().is_none_or(|name| name == header.alg)
                && header.kid.as_deref().is_none_or(|id| key.id.as_deref() == Some(id))
        })
    }
}

impl Key {
    fn read(mut value: Value) -> Option<Self> {
        // Taken out: jsonwebtoken reads no key whose algorithm it does not know.
        let algorithm = value.as_object_mut()?.remove("alg");
        let algorithm = algorithm.as_ref().and_then(Value::as_str).map(str::to_owned);
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let curve = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(parameters) => Some(parameters.curve.clone()),
            AlgorithmParameters::OctetKeyPair(parameters) => Some(parameters.curve.clone()),
            _ => None,
        };
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithm, curve, decoding })
    }
}

impl<'t> Token<'t> {
    fn read(token: &'t str, algorithms: &[(&'static str, Check)]) -> Result<Self, KeyError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(KeyError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(KeyError::Malformed)?;
        let header: Header = decoded(header)?;
        let algorithm = algorithms.iter().find(|(name, _)| *name == header.alg);
        let Some((_, check)) = algorithm else { return Err(KeyError::Algorithm(shown(&header.alg))) };
        if header.crit.is_some() {
            return Err(KeyError::Malformed);
        }
        Ok(Self { header, check: *check, signed, payload, signature })
    }
}

impl Check {
    fn named(name: &str) -> Option<Self> {
        if name == "ES512" { Some(Self::Es512) } else { name.parse().ok().map(Self::Jwt) }
    }

    fn family(self) -> AlgorithmFamily {
        match self {
            Self::Jwt(algorithm) => algorithm.family(),
            Self::Es512 => AlgorithmFamily::Ec,
        }
    }

    /// The one curve that the algorithm is of; `None` for RSA.
    fn curve(self) -> Option<EllipticCurve> {
        match self {
            Self::Jwt(Algorithm::ES256) => Some(EllipticCurve::P256),
            Self::Jwt(Algorithm::ES384) => Some(EllipticCurve::P384),
            Self::Jwt(Algorithm::EdDSA) => Some(EllipticCurve::Ed25519),
            Self::Jwt(_) => None,
            Self::Es512 => Some(EllipticCurve::P521),
        }
    }

    fn verifies(self, signature: &str, signed: &[u8], key: &DecodingKey) -> bool {
        match self {
            Self::Jwt(algorithm) => jsonwebtoken::crypto::verify(signature, signed, key, algorithm).unwrap_or(false),
            Self::Es512 => {
                let (Ok(signature), Ok(point)) = (URL_SAFE_NO_PAD.decode(signature), key.try_get_as_bytes()) else {
                    return false;
                };
                UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(signed, &signature).is_ok()
            }
        }
    }
}

fn unknown(header: &Header) -> KeyError {
    let kid = header.kid.as_deref().map_or_else(|| "none".to_owned(), shown);
    KeyError::NoKey(format!("alg={}, kid={kid}", header.alg))
}

/// Nobody has signed these words yet: no more of them than a log line bears.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, KeyError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| KeyError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| KeyError::Malformed)
}

/// As [`Keys::verified`], with a key set at hand.
#[cfg(fuzzing)]
pub(super) fn verified_with(keys: &[u8], token: &str) -> Result<Claims, KeyError> {
    let now = crate::clock::SystemClock.instant();
    let document: Document = serde_json::from_slice(keys).map_err(|_| KeyError::Malformed)?;
    let algorithms: Vec<_> = ID_TOKEN_ALGORITHMS.iter().filter_map(|name| Some((*name, Check::named(name)?))).collect();
    KeySet::read(document, now).verified(&Token::read(token, &algorithms)?)
}
