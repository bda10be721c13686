//! Identity: who is calling.
//!
//! An OpenID Connect relying party, an RFC 8628 device-grant server and the issuer of our own bearers. Knows nothing of
//! policy, of money, or of HTTP routes and pages.

pub mod admin_key;
mod chance;
mod device_grant;
#[cfg(test)]
mod fake_provider;
#[cfg(fuzzing)]
pub mod fuzzing;
mod oidc;
pub mod principal;
mod seal;
pub mod session;
pub mod sign_in;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use url::Url;

pub use chance::NoChance;
pub use device_grant::{Begun, GRANT_LIFE, POLL_INTERVAL, Pending, UserCode};
pub use oidc::{ClientAssertion, ClientCredential, DiscoveryError, GoogleGroups, ID_TOKEN_ALGORITHMS, SecretMethod};
pub use principal::Principal;
pub use session::register::{Lasting, Sessions};
pub use session::{BearerError, Bearers, Issued};
pub use sign_in::SignIn;

/// The `oidc:` section.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// `oidc.issuer`, without a trailing slash.
    pub issuer: Url,
    /// `oidc.client_id`.
    pub client_id: String,
    /// How the token endpoint knows us.
    pub client: ClientCredential,
    /// `oidc.discovery_url`, where the document is not at the issuer's own place.
    pub discovery_url: Option<Url>,
    /// `oidc.id_token_signed_response_alg`: the one of [`ID_TOKEN_ALGORITHMS`] to accept; else what the provider lists.
    pub id_token_algorithm: Option<&'static str>,
    /// How far the provider's clock may be from ours, in seconds.
    pub clock_skew_seconds: u64,
    /// Values of `azp` beside our own client id.
    pub additional_authorized_parties: Vec<String>,
    /// Trusted for the provider's certificate, beside the system's authorities.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Through the forward proxy: yes, no, or (left out) only where the proxy is the boundary.
    pub use_proxy: Option<bool>,
    /// Groups come from the Google Workspace directory.
    pub google_groups: Option<GoogleGroups>,
    /// Send the scopes again on refresh.
    pub scope_on_refresh: bool,
    /// Requested scopes; holds `openid`.
    pub scopes: Vec<String>,
    /// `oidc.extra_auth_params`; none of the protocol's own names.
    pub extra_auth_params: BTreeMap<String, String>,
    /// Send a PKCE challenge (default).
    pub use_pkce: bool,
    /// Ask the userinfo endpoint for an email or groups that the id_token lacks.
    pub userinfo_fallback: bool,
    /// Lower-case domains; empty: no rule.
    pub allowed_email_domains: Vec<String>,
    /// Group names; empty: no rule.
    pub allowed_groups: Vec<String>,
    /// Flat key or JSON Pointer of the groups claim; default `groups`.
    pub groups_claim: String,
    /// Flat keys or JSON Pointers, first present wins; default `["email"]`.
    pub email_claim: Vec<String>,
}

/// The `session:` section with what bearers need beside it.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// `session.jwt_secret`: the first signs, all verify. At least 32 characters each; never empty.
    pub secrets: Vec<SecretString>,
    /// Life of a bearer.
    pub ttl: Duration,
    /// `iss` of bearers: the public origin, no trailing slash.
    pub issuer: String,
    /// `admin.billing_group_tag`.
    pub billing_group_tag: Option<String>,
    /// How long sessions last.
    pub lasting: Lasting,
}
