//! Identity: bearers minted with the gateways' own signing secret, and the documents of an identity provider nobody signs in at.
//! Knows the bearer's format; knows no user and no gateway.

use anyhow::{Context, Result};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The signing secret every gateway under test is configured with. It signs for loopback only.
pub(crate) const JWT_SECRET: &str = "loopback-benchmark-signing-secret-0123456789";

/// The key set of the mock identity provider: an RSA public key whose private half was thrown away.
pub(crate) const KEY_SET: &str = concat!(
    r#"{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"bench","e":"AQAB","n":""#,
    "ottoGcp7AP5JltAdJx7v3HcpCvNhq_K4mNaQ6_K17aaDtqVhnpQ3BpASx7RxcLabRgm-rU32xcMEGkKlAxMw2wMqZcck_JMGEx2gIAH2moS7FpxWDqHi",
    "UhnU4SmYgKdBg2A8hXqYv6exopLA6X8O-d9LucjBRVsaH4LzSgbyvZ1X5oEVm9CdtqAYTfTxWhZMvNHsyqUrhhV2VvD4cC3jf5e02E3uVNsmFPFZUPHS",
    "OIyRP8ZThB95VIwuZDwO012ojMp0rtx7r-7g5APj9ci0kUdf8CeDvwUb3bPqPj2SYmuv3zRk73_nARTnpbRMuxS9NVAJsi2UITnVYTACOHTkYQ",
    r#""}]}"#
);

/// The discovery document (OpenID Connect Discovery 1.0 section 3) of the mock identity provider.
pub(crate) fn discovery(issuer: &str) -> String {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
    })
    .to_string()
}

/// A bearer as a gateway issues it after sign-in: HS256, the key named by the secret's digest, valid for a day.
pub(crate) fn bearer(public_url: &str, subject: &str, group: &str) -> Result<String> {
    let digest = digest::digest(&digest::SHA256, JWT_SECRET.as_bytes());
    let key_id: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    let claims = json!({
        "sub": subject,
        "email": format!("{subject}@example.com"),
        "groups": [group],
        "aud": "claude-gateway",
        "iss": public_url,
        "iat": now.as_secs(),
        "exp": (now + Duration::from_secs(24 * 3600)).as_secs(),
    });
    let header = json!({"alg": "HS256", "typ": "JWT", "kid": key_id});
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET.as_bytes()), signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)))
}
