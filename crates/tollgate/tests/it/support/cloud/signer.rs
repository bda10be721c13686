//! A key pair of somebody who asks for tokens, and what it signed.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::clock::{Clock, SystemClock};
use jsonwebtoken::{Algorithm, DecodingKey, Header, TokenData, Validation};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::Value;

/// A new RSA key with a certificate.
pub(super) struct Signer {
    /// The private key, in PKCS#8 PEM form.
    pub(super) key: String,
    /// The certificate, in PEM form.
    pub(super) certificate: String,
    certificate_der: Vec<u8>,
    public: DecodingKey,
}

impl Signer {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        Self {
            key: key.serialize_pem(),
            certificate: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            public: DecodingKey::from_rsa_pem(key.public_key_pem().as_bytes()).unwrap(),
        }
    }

    /// The claims of a JWT that this key signed for `audience`, and that lives at most so long.
    pub(super) fn verify(
        &self,
        jwt: &str,
        algorithms: &[Algorithm],
        audience: &str,
        longest: i64,
    ) -> Result<TokenData<Value>, String> {
        let header = jsonwebtoken::decode_header(jwt).map_err(|_| "not a JWT".to_owned())?;
        super::require(algorithms.contains(&header.alg), "another algorithm")?;
        let mut rules = Validation::new(header.alg);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["exp", "aud", "iss"]);
        let verified = jsonwebtoken::decode::<Value>(jwt, &self.public, &rules).map_err(|error| error.to_string())?;
        let now = SystemClock.now().as_second();
        // Some write fractions of seconds.
        let at = |claim: &str| verified.claims[claim].as_f64().map(|seconds| seconds as i64);
        let begins = at("iat").or(at("nbf")).ok_or("neither iat nor nbf")?;
        let ends = at("exp").ok_or("no exp")?;
        super::require(begins <= now + 30 && ends - begins <= longest, "a life too long")?;
        Ok(verified)
    }

    /// Whether the header names this certificate, by either digest.
    pub(super) fn is_named_by(&self, header: &Header) -> bool {
        let of = |algorithm| URL_SAFE_NO_PAD.encode(digest(algorithm, &self.certificate_der));
        let (named, digest) = match header.alg {
            Algorithm::PS256 => (&header.x5t_s256, of(&SHA256)),
            _ => (&header.x5t, of(&SHA1_FOR_LEGACY_USE_ONLY)),
        };
        // Some pad it.
        named.as_ref().is_some_and(|named| named.trim_end_matches('=') == digest)
    }
}
