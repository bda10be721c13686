//! What a browser carries to the provider and back, sealed in `state`: so that no row waits for it and any replica can
//! take it up.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::identity::chance::{self, NoChance};
use crate::identity::device_grant::{GRANT_LIFE, Pending};

/// Letters of an attempt's name: enough that two in one browser do not meet.
const ATTEMPT_LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoginState {
    pub(super) attempt: String,
    pub(super) grant: String,
    pub(super) flow: String,
    pub(super) nonce: String,
    /// PKCE's code verifier (RFC 7636, section 4.1).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) verifier: Option<String>,
    /// SHA-256 of what the browser must present.
    binding: String,
    /// Unix seconds.
    expires: i64,
}

impl LoginState {
    /// A fresh state, and what the browser must present with it.
    pub(super) fn begin(grant: &Pending, with_pkce: bool, now: Timestamp) -> Result<(Self, SecretString), NoChance> {
        let binding = chance::token()?;
        let attempt: [u8; 8] = chance::letters(ATTEMPT_LETTERS)?;
        let state = Self {
            attempt: attempt.into_iter().map(char::from).collect(),
            grant: grant.id().to_owned(),
            flow: grant.flow.clone(),
            nonce: chance::token()?,
            verifier: with_pkce.then(chance::token).transpose()?,
            binding: sha256(&binding),
            expires: now.as_second().saturating_add_unsigned(GRANT_LIFE.as_secs()),
        };
        Ok((state, binding.into()))
    }

    /// PKCE's S256 challenge (RFC 7636, section 4.2).
    pub(super) fn challenge(&self) -> Option<String> {
        self.verifier.as_deref().map(sha256)
    }

    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now.as_second() < self.expires
    }

    pub(super) fn is_bound_to(&self, binding: Option<&str>) -> bool {
        binding.is_some_and(|binding| sha256(binding).as_bytes().ct_eq(self.binding.as_bytes()).into())
    }
}

fn sha256(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_rfc_7636_appendix_b() {
        let with = |verifier: Option<&str>| state(verifier.map(str::to_owned), 0).challenge();
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(with(Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")).as_deref(), Some(challenge));
        assert_eq!(with(None), None);
    }

    fn state(verifier: Option<String>, expires: i64) -> LoginState {
        let [attempt, grant, flow, nonce] = ["a", "g", "f", "n"].map(str::to_owned);
        LoginState { attempt, grant, flow, nonce, verifier, binding: sha256("right"), expires }
    }

    #[test]
    fn a_state_is_bound_to_one_browser_and_ends_with_the_device_code() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let state = state(None, now.as_second() + 600);
        assert!(state.is_bound_to(Some("right")));
        assert!(!state.is_bound_to(Some("wrong")) && !state.is_bound_to(Some("")) && !state.is_bound_to(None));
        assert!(state.is_fresh(now) && !state.is_fresh(now + jiff::SignedDuration::from_secs(600)));
    }
}
