//! Sealing: opaque tokens that only the gateway can make and read (AES-256-GCM under keys derived from the session
//! secrets by HKDF, one per purpose).
//!
//! Knows bytes and purposes; knows nothing of what is inside. All secrets open, the first seals, so that what was begun
//! under an old secret can be finished under `[new, old]`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hkdf};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// What a sealed token is for; one of another purpose does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What a client refreshes its bearer with.
    RefreshToken,
    /// The `state` of an authorization request.
    LoginState,
    /// What an approved device grant holds in its row.
    DeviceGrant,
}

/// The keys of every secret.
pub(super) struct Seals(Vec<SecretKeys>);

struct SecretKeys {
    id: [u8; ID],
    refresh_token: RandomizedNonceKey,
    login_state: RandomizedNonceKey,
    device_grant: RandomizedNonceKey,
}

const VERSION: u8 = 1;
const ID: usize = 8;
const NONCE: usize = 12;
const HEADER: usize = 1 + ID + NONCE;

/// A token could not be sealed, or does not open: forged, cut, of another purpose or place, or under a dropped secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not one of ours")]
pub(super) struct SealError;

impl Seals {
    /// # Errors
    /// When a key cannot be derived, which no secret causes.
    pub(super) fn new(secrets: &[SecretString]) -> Result<Self, SealError> {
        secrets.iter().map(SecretKeys::derive).collect::<Result<_, _>>().map(Self)
    }

    /// `content` as an opaque text that fits into URLs; `place` (such as a row's key) must be the same at opening.
    pub(super) fn seal(&self, purpose: Purpose, place: &str, content: &impl Serialize) -> Result<String, SealError> {
        let keys = self.0.first().ok_or(SealError)?;
        let mut content = serde_json::to_vec(content).map_err(|_| SealError)?;
        let aad = Aad::from([&[VERSION], place.as_bytes()].concat());
        let nonce = keys.of(purpose).seal_in_place_append_tag(aad, &mut content).map_err(|_| SealError)?;
        let token = [&[VERSION], &keys.id[..], nonce.as_ref(), &content].concat();
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// What was sealed.
    pub(super) fn open<T: DeserializeOwned>(&self, purpose: Purpose, place: &str, token: &str) -> Result<T, SealError> {
        let mut token = Zeroizing::new(URL_SAFE_NO_PAD.decode(token).map_err(|_| SealError)?);
        let (header, content) = token.split_at_mut_checked(HEADER).ok_or(SealError)?;
        let (version, header) = header.split_first().ok_or(SealError)?;
        let (id, nonce) = header.split_at(ID);
        let keys = self.0.iter().find(|keys| *version == VERSION && keys.id == id).ok_or(SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let aad = Aad::from([&[VERSION], place.as_bytes()].concat());
        let content = keys.of(purpose).open_in_place(nonce, aad, content).map_err(|_| SealError)?;
        serde_json::from_slice(content).map_err(|_| SealError)
    }
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seals")
    }
}

impl SecretKeys {
    fn derive(secret: &SecretString) -> Result<Self, SealError> {
        let secret = secret.expose_secret().as_bytes();
        let mut id = [0; ID];
        id.copy_from_slice(&digest::digest(&digest::SHA256, secret).as_ref()[..ID]);
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tollgate").extract(secret);
        let key = |label: &'static str| {
            let mut bytes = Zeroizing::new([0; 32]);
            let info = [b"seal/v1/", label.as_bytes()];
            let expanded = root.expand(&info, &AES_256_GCM).map_err(|_| SealError)?;
            expanded.fill(bytes.as_mut()).map_err(|_| SealError)?;
            RandomizedNonceKey::new(&AES_256_GCM, bytes.as_ref()).map_err(|_| SealError)
        };
        Ok(Self {
            id,
            refresh_token: key("refresh token")?,
            login_state: key("login state")?,
            device_grant: key("device grant")?,
        })
    }

    fn of(&self, purpose: Purpose) -> &RandomizedNonceKey {
        match purpose {
            Purpose::RefreshToken => &self.refresh_token,
            Purpose::LoginState => &self.login_state,
            Purpose::DeviceGrant => &self.device_grant,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const OLD: &str = "old-secret-0123456789abcdefghijklmnop";
    const NEW: &str = "new-secret-0123456789abcdefghijklmnop";

    fn seals(secrets: &[&str]) -> Seals {
        Seals::new(&secrets.iter().map(|secret| SecretString::from(*secret)).collect::<Vec<_>>()).unwrap()
    }

    fn sealed(by: &Seals) -> String {
        by.seal(Purpose::LoginState, "row-1", &"a secret").unwrap()
    }

    fn opened(by: &Seals, token: &str) -> Result<String, SealError> {
        by.open(Purpose::LoginState, "row-1", token)
    }

    #[test]
    fn what_was_sealed_opens_and_shows_nothing_of_its_content() {
        let seals = seals(&[NEW]);
        let token = sealed(&seals);
        assert_eq!(opened(&seals, &token).unwrap(), "a secret");
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{token}");
        assert!(!String::from_utf8_lossy(&URL_SAFE_NO_PAD.decode(&token).unwrap()).contains("secret"));
        assert_ne!(token, sealed(&seals), "every token has a nonce of its own");
    }

    #[test]
    fn a_rotated_secret_still_opens_and_a_dropped_one_does_not() {
        let token = sealed(&seals(&[OLD]));
        assert_eq!(opened(&seals(&[NEW, OLD]), &token).unwrap(), "a secret");
        assert_eq!(opened(&seals(&[NEW]), &token), Err(SealError));
        assert_eq!(opened(&seals(&[OLD]), &sealed(&seals(&[NEW, OLD]))), Err(SealError), "the first secret seals");
    }

    #[test]
    fn a_token_of_another_purpose_or_place_does_not_open() {
        let seals = seals(&[NEW]);
        let token = sealed(&seals);
        for purpose in [Purpose::RefreshToken, Purpose::DeviceGrant] {
            assert_eq!(seals.open::<String>(purpose, "row-1", &token), Err(SealError), "{purpose:?}");
        }
        assert_eq!(seals.open::<String>(Purpose::LoginState, "row-2", &token), Err(SealError));
    }

    #[test]
    fn a_token_with_any_byte_changed_or_cut_does_not_open() {
        let seals = seals(&[NEW]);
        let token = URL_SAFE_NO_PAD.decode(sealed(&seals)).unwrap();
        for position in 0..token.len() {
            let mut changed = token.clone();
            changed[position] ^= 1;
            assert_eq!(opened(&seals, &URL_SAFE_NO_PAD.encode(changed)), Err(SealError), "byte {position}");
            assert_eq!(
                opened(&seals, &URL_SAFE_NO_PAD.encode(&token[..position])),
                Err(SealError),
                "cut at {position}"
            );
        }
        assert_eq!(opened(&seals, "not base64!"), Err(SealError));
    }
}
