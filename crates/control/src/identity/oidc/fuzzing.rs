//! The relying party's parsers, for the fuzz targets.

use jiff::Timestamp;
use secrecy::SecretString;
use wire::oidc::Claims;

use super::client::ClientCredential;
use super::keys;
use super::overage;
use super::rules::{self, Expected};
use crate::identity::OidcConfig;

/// Claims as somebody may have signed them: what is accepted is for us, and a person is read from anything.
pub fn claims(payload: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Claims>(payload) else { return };
    let Ok(issuer) = "https://idp.example".parse() else { return };
    let config = OidcConfig {
        issuer,
        client_id: "gateway".to_owned(),
        client: ClientCredential::Secret { secret: SecretString::from("s"), method: None },
        discovery_url: None,
        id_token_algorithm: None,
        clock_skew_seconds: 30,
        additional_authorized_parties: vec!["portal".to_owned()],
        authorities: Vec::new(),
        use_proxy: None,
        google_groups: None,
        scope_on_refresh: false,
        scopes: Vec::new(),
        extra_auth_params: std::collections::BTreeMap::new(),
        use_pkce: true,
        userinfo_fallback: false,
        allowed_email_domains: vec!["example.com".to_owned()],
        allowed_groups: vec!["eng".to_owned()],
        groups_claim: "/realm/groups".to_owned(),
        email_claim: vec!["email".to_owned(), "upn".to_owned()],
    };
    let expected = Expected {
        issuer: "https://idp.example",
        client_id: &config.client_id,
        other_parties: &config.additional_authorized_parties,
        nonce: Some("n"),
        clock_skew: config.clock_skew_seconds,
    };
    let person = rules::person(&claims, &config);
    if rules::accept(&claims, &expected, Timestamp::UNIX_EPOCH).is_ok() {
        assert!(!person.sub.is_empty() && claims.strings("aud").contains(&config.client_id));
    }
    if rules::admit(&person, claims.email_verified(), &config).is_ok() {
        assert!(person.email.is_some_and(|email| email.to_ascii_lowercase().ends_with("@example.com")));
    }
    let _ = overage::place(&claims, "groups", &config.issuer);
}

/// A token and a key set, neither of them ours: nothing that the fuzzer can make verifies.
pub fn signature(keys: &[u8], token: &str) {
    let _ = keys::verified_with(keys, token);
}
