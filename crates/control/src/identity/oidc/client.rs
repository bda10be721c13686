//! Us, as the provider's client: how a token endpoint knows that it is us who asks.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::form_urlencoded;
use wire::oidc::Discovery;

use crate::identity::chance;

/// How long an assertion is good for. Clocks may differ by half of it.
const ASSERTION_LIFE: i64 = 300;

/// What the client was registered with.
#[derive(Debug, Clone)]
pub enum ClientCredential {
    /// `oidc.client_secret`.
    Secret {
        /// The secret.
        secret: SecretString,
        /// How it is sent; left out, as the provider's discovery document allows.
        method: Option<SecretMethod>,
    },
    /// `oidc.client_assertion`: a key whose certificate the provider knows.
    Assertion(ClientAssertion),
}

/// How a client secret is sent (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretMethod {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// A private key that signs assertions, and the certificate that names it.
#[derive(Debug, Clone)]
pub struct ClientAssertion {
    key: EncodingKey,
    /// Those that the key can sign with, the best first.
    algorithms: &'static [Algorithm],
    /// SHA-256 of the certificate.
    thumbprint: String,
}

/// What is chosen from a discovery document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    Basic,
    Post,
    Assertion(Algorithm),
}

/// What is added to a token request.
#[derive(Default)]
pub(super) struct Presented {
    pub(super) fields: Vec<(&'static str, String)>,
    /// Value of the `Authorization` header.
    pub(super) authorization: Option<String>,
}

/// Nothing can be signed.
#[derive(Debug, thiserror::Error)]
#[error("the client assertion cannot be signed")]
pub(super) struct NotSigned;

impl ClientAssertion {
    /// Reads `private_key_pem` (RSA in PKCS#8 or PKCS#1, or P-256 or P-384 in PKCS#8) and `certificate_pem`, whose first
    /// certificate counts.
    ///
    /// # Errors
    /// A sentence that shows nothing of the key.
    pub fn from_pem(key: &SecretString, certificate: &str) -> Result<Self, String> {
        let pem = key.expose_secret().as_bytes();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| "certificate_pem holds no certificate in PEM form".to_owned())?;
        let der = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| "private_key_pem holds no private key in PEM form".to_owned())?;
        let signer =
            any_supported_type(&der).map_err(|_| "private_key_pem is of a kind that cannot sign".to_owned())?;
        let (algorithms, encoding): (&'static [Algorithm], _) =
            if signer.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]).is_some() {
                (&[Algorithm::PS256, Algorithm::RS256], EncodingKey::from_rsa_pem(pem))
            } else if signer.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).is_some() {
                (&[Algorithm::ES256], EncodingKey::from_ec_pem(pem))
            } else if signer.choose_scheme(&[SignatureScheme::ECDSA_NISTP384_SHA384]).is_some() {
                (&[Algorithm::ES384], EncodingKey::from_ec_pem(pem))
            } else {
                return Err("private_key_pem must be an RSA, P-256 or P-384 key".to_owned());
            };
        let encoding = encoding
            .map_err(|_| "private_key_pem cannot be read; write it in PKCS#8 form (BEGIN PRIVATE KEY)".to_owned())?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate);
        CertifiedKey::new(vec![certificate], signer)
            .keys_match()
            .map_err(|_| "certificate_pem is not the certificate of private_key_pem".to_owned())?;
        Ok(Self { key: encoding, algorithms, thumbprint: URL_SAFE_NO_PAD.encode(digest) })
    }

    /// RFC 7523, section 3, and OpenID Connect Core 1.0, section 9. Entra ID finds the key by `x5t#S256`.
    fn sign(&self, algorithm: Algorithm, client: &str, audience: &str, now: Timestamp) -> Result<String, NotSigned> {
        let mut header = Header::new(algorithm);
        header.x5t_s256 = Some(self.thumbprint.clone());
        let now = now.as_second();
        let claims = json!({
            "iss": client, "sub": client, "aud": audience, "jti": chance::uuid().map_err(|_| NotSigned)?,
            "iat": now, "nbf": now, "exp": now.saturating_add(ASSERTION_LIFE),
        });
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|_| NotSigned)
    }
}

impl ClientCredential {
    /// How this is presented to the provider of that document.
    pub(super) fn choose(&self, document: &Discovery) -> ClientAuth {
        match self {
            Self::Secret { method: Some(SecretMethod::Basic), .. } => ClientAuth::Basic,
            Self::Secret { method: Some(SecretMethod::Post), .. } => ClientAuth::Post,
            // POST where it is offered: it needs no double encoding, which some providers get wrong. Basic is the
            // standard's default.
            Self::Secret { method: None, .. } => {
                let offered = &document.token_endpoint_auth_methods_supported;
                let post = offered.iter().any(|method| method == "client_secret_post");
                if post { ClientAuth::Post } else { ClientAuth::Basic }
            }
            Self::Assertion(assertion) => {
                let listed = &document.token_endpoint_auth_signing_alg_values_supported;
                let is_listed = |algorithm: &&Algorithm| listed.iter().any(|name| name.parse() == Ok(**algorithm));
                let found = assertion.algorithms.iter().find(is_listed).or(assertion.algorithms.first());
                ClientAuth::Assertion(found.copied().unwrap_or(Algorithm::RS256))
            }
        }
    }

    /// What makes a request to that token endpoint ours.
    pub(super) fn present(
        &self,
        auth: ClientAuth,
        client: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<Presented, NotSigned> {
        let id = ("client_id", client.to_owned());
        match (self, auth) {
            (Self::Secret { secret, .. }, ClientAuth::Basic) => {
                let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(client), encoded(secret.expose_secret()));
                Ok(Presented { authorization: Some(format!("Basic {}", STANDARD.encode(pair))), fields: Vec::new() })
            }
            (Self::Secret { secret, .. }, _) => {
                let fields = vec![id, ("client_secret", secret.expose_secret().to_owned())];
                Ok(Presented { fields, authorization: None })
            }
            (Self::Assertion(assertion), ClientAuth::Assertion(algorithm)) => {
                const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let signed = assertion.sign(algorithm, client, audience, now)?;
                let fields = vec![id, ("client_assertion_type", KIND.to_owned()), ("client_assertion", signed)];
                Ok(Presented { fields, authorization: None })
            }
            // `choose` never says so.
            (Self::Assertion(_), ClientAuth::Basic | ClientAuth::Post) => Err(NotSigned),
        }
    }
}
