//! `oidc`: the identity provider and who may sign in.

use std::collections::BTreeMap;

use control::identity::OidcConfig;
use url::Url;

use super::read::{Field, Mapping, all};
use super::reference::{Later, Section, key, later};

pub(super) const LIST: Later = later("oidc", "several identity providers at once");

pub(super) const SECTION: Section = Section {
    path: "oidc",
    about: "The OpenID Connect identity provider, and who may sign in.",
    keys: &[
        key("issuer", "http or https URL", "required", "Issuer; its discovery document is read at boot."),
        key("client_id", "text", "required", "The OAuth client registered for the gateway."),
        key("client_secret", "text", "required", "Its secret."),
        key("allowed_email_domains", "list of domains", "[]", "Only these e-mail domains sign in; empty: no rule."),
        key("allowed_groups", "list of group names", "[]", "Only members of one of these sign in; empty: no rule."),
        key("groups_claim", "claim name or JSON Pointer", "groups", "Where the groups are in the id_token."),
        key(
            "email_claim",
            "claim name or JSON Pointer, or a list of them",
            "email",
            "Where the e-mail address is; the first claim that is present counts.",
        ),
        key(
            "scopes",
            "list that holds `openid`",
            "[openid, profile, email, offline_access]",
            "Scopes that are requested; without `offline_access` people sign in anew whenever their bearer ends.",
        ),
        key(
            "extra_auth_params",
            "mapping of texts",
            "{}",
            "More parameters for the authorization request; none of the protocol's own.",
        ),
        key(
            "userinfo_fallback",
            "boolean",
            "false",
            "Ask the userinfo endpoint for the e-mail address or groups that an id_token lacks.",
        ),
        key("use_pkce", "boolean", "true", "Send a PKCE challenge (RFC 7636)."),
        key(
            "form_action_origins",
            "list of http or https URLs",
            "[]",
            "More origins that a sign-in may be redirected through, for the approval page's Content-Security-Policy.",
        ),
    ],
    later: &[
        later("client_assertion", "a signed assertion in place of the client secret"),
        later("google_groups", "groups from the Google Workspace directory"),
        later("use_proxy", "the identity provider through the forward proxy"),
        later("clock_skew_seconds", "tolerance for the identity provider's clock"),
        later("token_endpoint_auth_method", "a fixed way to authenticate the client; it is negotiated"),
        later("id_token_signed_response_alg", "a fixed signing algorithm of id_tokens"),
        later("additional_authorized_parties", "more values of azp"),
        later("discovery_url", "a discovery document at another address"),
        later("ca_cert_pem", "an authority of your own for the identity provider's certificate"),
        later("scope_on_refresh", "scopes sent again on refresh"),
    ],
};

/// What `oidc` says: to the relying party, and to the approval page.
pub(super) struct Oidc {
    pub(super) relying_party: OidcConfig,
    pub(super) form_action_origins: Vec<String>,
}

/// Parameters that are the protocol's own.
const RESERVED_PARAMS: &[&str] =
    &["state", "nonce", "redirect_uri", "scope", "response_type", "response_mode", "client_id"];

pub(super) fn read(oidc: &Mapping<'_>, allow_loopback: bool) -> Option<Oidc> {
    let issuer = oidc.required("issuer", "write the issuer URL of your identity provider", |field| {
        read_issuer(field, allow_loopback)
    });
    let client_id = oidc.required("client_id", "write the id of the OAuth client", Field::string);
    let client_secret =
        oidc.required("client_secret", "write a reference to it, such as ${OIDC_CLIENT_SECRET}", Field::secret);
    let use_pkce = oidc.or("use_pkce", true, Field::flag);
    let userinfo_fallback = oidc.or("userinfo_fallback", false, Field::flag);
    let scopes = oidc.or("scopes", default_scopes(), read_scopes);
    let params = oidc.or("extra_auth_params", BTreeMap::new(), read_params);
    let domains = oidc.or("allowed_email_domains", Vec::new(), read_domains);
    let groups = oidc.or("allowed_groups", Vec::new(), Field::texts);
    let groups_claim = oidc.or("groups_claim", "groups".to_owned(), Field::string);
    let email_claim = oidc.or("email_claim", vec!["email".to_owned()], read_claims);
    let origins = oidc.or("form_action_origins", Vec::new(), read_origins);
    Some(Oidc {
        relying_party: OidcConfig {
            issuer: issuer?,
            client_id: client_id?,
            client_secret: client_secret?,
            scopes: scopes?,
            extra_auth_params: params?,
            use_pkce: use_pkce?,
            userinfo_fallback: userinfo_fallback?,
            allowed_email_domains: domains?,
            allowed_groups: groups?,
            groups_claim: groups_claim?,
            email_claim: email_claim?,
        },
        form_action_origins: origins?,
    })
}

/// One bare e-mail domain in lower case: `@Example.com ` is `example.com`.
pub(super) fn read_domain(field: &Field<'_>) -> Option<String> {
    let written = field.text()?.trim();
    let domain = written.strip_prefix('@').unwrap_or(written).trim();
    if domain.is_empty() || domain.contains(|c: char| c == '@' || c == ',' || c.is_whitespace()) {
        field.refuse("must be one bare domain, such as example.com");
        return None;
    }
    Some(domain.to_ascii_lowercase())
}

fn default_scopes() -> Vec<String> {
    ["openid", "profile", "email", "offline_access"].map(str::to_owned).to_vec()
}

fn read_issuer(field: &Field<'_>, allow_loopback: bool) -> Option<Url> {
    let mut url = field.target_url(allow_loopback)?;
    if url.query().is_some() || url.fragment().is_some() {
        field.refuse("must have no query and no fragment (OpenID Connect Discovery 1.0, section 3)");
        return None;
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Some(url)
}

fn read_scopes(field: &Field<'_>) -> Option<Vec<String>> {
    let scopes = field.texts()?;
    if let Some(scope) = scopes.iter().find(|scope| scope.contains(char::is_whitespace)) {
        field.refuse(format!("\"{}\" is not one scope; write each as an item of its own", scope.escape_debug()));
        return None;
    }
    if !scopes.iter().any(|scope| scope == "openid") {
        field.refuse("must hold openid, without which there is no id_token");
        return None;
    }
    Some(scopes)
}

fn read_params(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
    all(field.entries()?.iter().map(|(name, value)| {
        if RESERVED_PARAMS.contains(name) || name.starts_with("code_challenge") {
            value.refuse("the gateway sets this parameter itself; leave it out");
            return None;
        }
        Some(((*name).to_owned(), value.any_string()?))
    }))
}

fn read_domains(field: &Field<'_>) -> Option<Vec<String>> {
    all(field.items()?.iter().map(read_domain))
}

fn read_claims(field: &Field<'_>) -> Option<Vec<String>> {
    if field.is_list() {
        return field.some_texts("claim");
    }
    field.string().map(|claim| vec![claim])
}

fn read_origins(field: &Field<'_>) -> Option<Vec<String>> {
    all(field.items()?.iter().map(|item| item.url().map(|url| url.origin().ascii_serialization())))
}
