//! An application that proves itself with a certificate (RFC 7523, section 3;
//! <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use crate::upstream::credential::CredentialError;

/// How long an assertion is good for, in seconds: the longest that Entra advises.
const LIFE: i64 = 600;

#[derive(Debug, Clone)]
pub(super) struct Certificate {
    key: EncodingKey,
    /// SHA-256 of the certificate: Entra finds the key by it.
    thumbprint: String,
    /// The certificates, for applications that are known by their issuer; empty: not sent.
    chain: Vec<String>,
}

impl Certificate {
    /// # Errors
    /// A sentence that shows nothing of the key.
    pub(super) fn read(pem: &SecretString, send_chain: bool) -> Result<Self, String> {
        let text = pem.expose_secret();
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|_| "its certificate cannot be read".to_owned())?;
        let first = certificates.first().ok_or_else(|| "it holds no certificate in PEM form".to_owned())?;
        let key =
            key_of(text).ok_or_else(|| "it holds no RSA private key in PEM form without a password".to_owned())?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, first);
        let sent = if send_chain { certificates.as_slice() } else { &[] };
        let chain = sent.iter().map(|certificate| STANDARD.encode(certificate)).collect();
        Ok(Self { key, thumbprint: URL_SAFE_NO_PAD.encode(digest), chain })
    }

    pub(super) fn sign(&self, client: &str, audience: &str, now: i64) -> Result<SecretString, CredentialError> {
        let mut header = Header::new(Algorithm::PS256);
        header.x5t_s256 = Some(self.thumbprint.clone());
        header.x5c = (!self.chain.is_empty()).then(|| self.chain.clone());
        let claims = json!({
            "aud": audience, "iss": client, "sub": client, "jti": Uuid::new_v4(),
            "iat": now, "nbf": now, "exp": now + LIFE,
        });
        let signed = jsonwebtoken::encode(&header, &claims, &self.key);
        signed.map(SecretString::from).map_err(|_| CredentialError::Unsigned("the certificate"))
    }
}

/// The first section that is an RSA key: the reader of keys takes one section only.
fn key_of(pem: &str) -> Option<EncodingKey> {
    let sections = pem.split("-----BEGIN ").skip(1).filter(|section| section.contains("PRIVATE KEY-----"));
    let keys = sections.map(|section| SecretString::from(format!("-----BEGIN {}", section.trim_end())));
    keys.filter_map(|key| EncodingKey::from_rsa_pem(key.expose_secret().as_bytes()).ok()).next()
}
