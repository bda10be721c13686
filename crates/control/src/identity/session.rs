//! Bearers: HS256 JSON Web Tokens (RFC 7519) that the gateway issues and verifies by itself.
//!
//! Verification is on every request's path, so it is one HMAC and one parse, without a JWT library. Knows nothing of the
//! identity provider's tokens.

pub mod ending;
mod groups;
pub mod list;
pub mod register;
mod revoked;
mod table;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, de};

pub(super) use self::groups::digest_of;
pub use self::revoked::Revoked;
use super::{Principal, SessionConfig};

/// `aud` of every bearer.
const AUDIENCE: &str = "claude-gateway";
/// Proxies commonly refuse header fields of 8 kB; the rest of the request line and headers need room too.
const LONGEST_BEARER: usize = 6000;
/// Longer ones, which we never issue, are not even decoded.
const LONGEST_READ: usize = 16 * 1024;
/// Replicas' clocks differ a little: a bearer minted by one must be good at another at once.
const CLOCK_TOLERANCE_SECONDS: i64 = 5;

/// Issues and verifies bearers.
pub struct Bearers {
    /// The first signs; all verify.
    keys: Vec<Key>,
    issuer: String,
    ttl_seconds: u64,
    billing_group_tag: Option<String>,
    named_groups: HashSet<String>,
    revoked: Arc<Revoked>,
}

struct Key {
    kid: String,
    hmac: hmac::Key,
    /// `{"alg":"HS256","typ":"JWT","kid":...}` as it stands in the tokens that we sign.
    header: String,
}

/// A fresh bearer.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The bearer.
    pub token: SecretString,
    /// Its life in seconds.
    pub expires_in: u64,
}

/// Who a bearer speaks of.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The principal. Its groups are a part when there are more than a bearer can carry: [`register::Sessions::complete`]
    /// knows the rest.
    pub principal: Principal,
    /// Names the whole list of groups.
    pub(super) all_groups: Option<String>,
}

/// What a list's digest is as long as.
const SOME_DIGEST: &str = "0123456789abcdef";

/// Why a bearer is refused; [`BearerError::cause`] is for the audit, the client is told nothing but `invalid token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// No `Authorization: Bearer` header.
    #[error("no bearer was sent")]
    Missing,
    /// Not a JSON Web Token of ours: broken, too long, or with a claim of the wrong type.
    #[error("the bearer is malformed")]
    Malformed,
    /// `alg` is not HS256.
    #[error("the bearer is signed with another algorithm")]
    WrongAlgorithm,
    /// `kid` names none of our secrets.
    #[error("the bearer is signed with an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the bearer's signature is wrong")]
    BadSignature,
    /// `aud` does not hold ours.
    #[error("the bearer is for another audience")]
    WrongAudience,
    /// `iss` is not ours.
    #[error("the bearer is of another issuer")]
    WrongIssuer,
    /// `sub` is absent or empty.
    #[error("the bearer names no subject")]
    NoSubject,
    /// `exp` is absent.
    #[error("the bearer never expires")]
    NoExpiry,
    /// `exp` has passed.
    #[error("the bearer has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the bearer is not valid yet")]
    NotYetValid,
    /// Its session has ended, or the person was revoked after it was issued.
    #[error("the bearer was revoked")]
    Revoked,
}

impl BearerError {
    /// The word for it in audit events.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::NoSubject => "no_subject",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
        }
    }
}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [&'a str],
    /// Names the list of which `groups` is a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billing_group_tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    aud: &'static str,
    iat: i64,
    exp: i64,
    iss: &'a str,
}

#[derive(Deserialize)]
struct ReadClaims<'a> {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default)]
    groups_digest: Option<String>,
    #[serde(default)]
    billing_group_tag: Option<String>,
    #[serde(default)]
    sid: Option<String>,
    #[serde(borrow, default)]
    aud: Option<Audience<'a>>,
    #[serde(borrow, default)]
    iss: Option<Cow<'a, str>>,
    #[serde(default)]
    exp: Option<NumericDate>,
    #[serde(default)]
    nbf: Option<NumericDate>,
    #[serde(default)]
    iat: Option<NumericDate>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Many(#[serde(borrow)] Vec<Cow<'a, str>>),
}

#[derive(Deserialize)]
struct ReadHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    #[serde(default)]
    crit: Option<de::IgnoredAny>,
}

/// Seconds since 1970, whole or not (RFC 7519, section 2), cut to whole ones.
#[derive(Clone, Copy)]
struct NumericDate(i64);

impl Bearers {
    /// Bearers under the configured secrets.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        Self {
            keys: config.secrets.iter().map(Key::new).collect(),
            issuer: config.issuer,
            ttl_seconds: config.ttl.as_secs().max(1),
            billing_group_tag: config.billing_group_tag,
            named_groups: HashSet::new(),
            revoked: Arc::default(),
        }
    }

    /// The groups that the configuration names: those that a bearer keeps when not all of a person's fit.
    #[must_use]
    pub fn keeping_groups(self, named_groups: Vec<String>) -> Self {
        Self { named_groups: named_groups.into_iter().collect(), ..self }
    }

    /// Refuses what is revoked there.
    #[must_use]
    pub fn heeding(self, revoked: Arc<Revoked>) -> Self {
        Self { revoked, ..self }
    }

    /// Life of a bearer in seconds.
    #[must_use]
    pub fn ttl_seconds(&self) -> u64 {
        self.ttl_seconds
    }

    /// A bearer for the principal, with the groups that fit.
    #[must_use]
    pub fn issue(&self, principal: &Principal, now: Timestamp) -> Issued {
        self.issue_part(principal, None, now)
    }

    /// As [`Bearers::issue`], for a principal whose groups are a part of the list of that digest.
    pub(super) fn issue_part(&self, principal: &Principal, all_groups: Option<&str>, now: Timestamp) -> Issued {
        let fitting = self.fitting(principal);
        let groups: Vec<&str> = fitting.as_ref().unwrap_or(&principal.groups).iter().map(String::as_str).collect();
        Issued { token: self.sign(principal, &groups, all_groups, now).into(), expires_in: self.ttl_seconds }
    }

    /// The groups that a bearer of less than 6 kB carries, where not all fit: those that the configuration names, and when
    /// these do not fit either, the first ones of them.
    pub(super) fn fitting(&self, principal: &Principal) -> Option<Vec<String>> {
        let fits =
            |groups: &[&str]| self.sign(principal, groups, Some(SOME_DIGEST), Timestamp::MAX).len() < LONGEST_BEARER;
        let mut groups: Vec<&str> = principal.groups.iter().map(String::as_str).collect();
        if fits(&groups) {
            return None;
        }
        groups.retain(|group| self.named_groups.contains(*group));
        while !groups.is_empty() && !fits(&groups) {
            groups.truncate(groups.len() / 2);
        }
        Some(groups.into_iter().map(str::to_owned).collect())
    }

    /// The principal of an `Authorization` header: `Bearer`, one space, the token; the scheme's letter case counts.
    ///
    /// # Errors
    /// Why the request is not authenticated.
    pub fn authenticate(&self, authorization: Option<&str>, now: Timestamp) -> Result<Authenticated, BearerError> {
        let token = authorization.and_then(|header| header.strip_prefix("Bearer ")).ok_or(BearerError::Missing)?;
        if token.is_empty() {
            return Err(BearerError::Missing);
        }
        self.read(token, now)
    }

    /// The principal of a token.
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Principal, BearerError> {
        self.read(token, now).map(|authenticated| authenticated.principal)
    }

    fn read(&self, token: &str, now: Timestamp) -> Result<Authenticated, BearerError> {
        if token.len() > LONGEST_READ {
            return Err(BearerError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BearerError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(BearerError::Malformed)?;
        let key = self.key_of(header)?;
        let mut tag = [0; 64];
        let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut tag).map_err(|_| BearerError::Malformed)?;
        // Compares in constant time.
        hmac::verify(&key.hmac, signed.as_bytes(), &tag[..length]).map_err(|_| BearerError::BadSignature)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| BearerError::Malformed)?;
        let claims: ReadClaims<'_> = serde_json::from_slice(&payload).map_err(|_| BearerError::Malformed)?;
        self.accept(claims, now.as_second())
    }

    fn key_of(&self, header: &str) -> Result<&Key, BearerError> {
        if let Some(key) = self.keys.iter().find(|key| key.header == header) {
            return Ok(key);
        }
        let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| BearerError::Malformed)?;
        let header: ReadHeader<'_> = serde_json::from_slice(&json).map_err(|_| BearerError::Malformed)?;
        if header.alg != "HS256" {
            return Err(BearerError::WrongAlgorithm);
        }
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: an extension that is not understood.
            return Err(BearerError::Malformed);
        }
        match header.kid {
            Some(kid) => self.keys.iter().find(|key| key.kid == kid),
            None => self.keys.first(),
        }
        .ok_or(BearerError::UnknownKey)
    }

    fn accept(&self, claims: ReadClaims<'_>, now: i64) -> Result<Authenticated, BearerError> {
        let for_us = match &claims.aud {
            Some(Audience::One(one)) => one == AUDIENCE,
            Some(Audience::Many(many)) => many.iter().any(|one| one == AUDIENCE),
            None => false,
        };
        if !for_us {
            return Err(BearerError::WrongAudience);
        }
        if claims.iss.as_deref() != Some(self.issuer.as_str()) {
            return Err(BearerError::WrongIssuer);
        }
        if claims.exp.ok_or(BearerError::NoExpiry)?.0 <= now {
            return Err(BearerError::Expired);
        }
        let begins_later = claims.nbf.is_some_and(|nbf| nbf.0 > now);
        let minted_later = claims.iat.is_some_and(|iat| iat.0 > now + CLOCK_TOLERANCE_SECONDS);
        if begins_later || minted_later {
            return Err(BearerError::NotYetValid);
        }
        let sub = claims.sub.filter(|sub| !sub.is_empty()).ok_or(BearerError::NoSubject)?;
        if self.revoked.covers_bearer(claims.sid.as_deref(), &sub, claims.iat.map(|iat| iat.0)) {
            return Err(BearerError::Revoked);
        }
        let principal = Principal {
            sub,
            email: claims.email,
            name: claims.name,
            groups: claims.groups.unwrap_or_default(),
            session: claims.sid,
            groups_unread: false,
            billing_group_tag: claims.billing_group_tag,
        };
        Ok(Authenticated { principal, all_groups: claims.groups_digest })
    }

    fn sign(&self, principal: &Principal, groups: &[&str], all_groups: Option<&str>, now: Timestamp) -> String {
        let iat = now.as_second();
        let claims = IssuedClaims {
            sub: &principal.sub,
            email: principal.email.as_deref(),
            name: principal.name.as_deref(),
            groups,
            groups_digest: all_groups,
            billing_group_tag: self.billing_group_tag.as_deref(),
            sid: principal.session.as_deref(),
            aud: AUDIENCE,
            iat,
            exp: iat.saturating_add_unsigned(self.ttl_seconds),
            iss: &self.issuer,
        };
        // Strings and numbers only: nothing here can fail to serialise, and an empty token would be refused everywhere.
        let payload = serde_json::to_vec(&claims).unwrap_or_default();
        let Some(key) = self.keys.first() else { return String::new() };
        let mut token = String::with_capacity(key.header.len() + payload.len() * 4 / 3 + 48);
        token.push_str(&key.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        let tag = hmac::sign(&key.hmac, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(tag.as_ref(), &mut token);
        token
    }
}

impl fmt::Debug for Bearers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearers")
            .field("issuer", &self.issuer)
            .field("ttl_seconds", &self.ttl_seconds)
            .finish_non_exhaustive()
    }
}

impl Key {
    fn new(secret: &SecretString) -> Self {
        let secret = secret.expose_secret().as_bytes();
        let kid = kid_of(secret);
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{kid}"}}"#));
        Self { kid, hmac: hmac::Key::new(hmac::HMAC_SHA256, secret), header }
    }
}

/// The first 16 hexadecimal digits of the secret's SHA-256.
pub(super) fn kid_of(secret: &[u8]) -> String {
    hex(&digest::digest(&digest::SHA256, secret).as_ref()[..8])
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NumericDate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970")
            }
            fn visit_i64<E>(self, seconds: i64) -> Result<NumericDate, E> {
                Ok(NumericDate(seconds))
            }
            fn visit_u64<E>(self, seconds: u64) -> Result<NumericDate, E> {
                Ok(NumericDate(i64::try_from(seconds).unwrap_or(i64::MAX)))
            }
            fn visit_f64<E>(self, seconds: f64) -> Result<NumericDate, E> {
                Ok(NumericDate(seconds as i64))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
