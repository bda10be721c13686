//! `oidc`: the identity provider and who may sign in.

use std::collections::BTreeMap;

use control::connect;
use control::identity::{
    ClientAssertion, ClientCredential, GoogleGroups, ID_TOKEN_ALGORITHMS, OidcConfig, SecretMethod,
};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use url::Url;

use super::environment::Environment;
use super::read::{Field, Mapping, all};
use super::reference::{Later, Section, key, later};

pub(super) const LIST: Later = later("oidc", "several identity providers at once");

pub(super) const SECTION: Section = Section {
    path: "oidc",
    about: "The OpenID Connect identity provider, and who may sign in.",
    keys: &[
        key("issuer", "http or https URL", "required", "Issuer; its discovery document is read at boot."),
        key("client_id", "text", "required", "The OAuth client registered for the gateway."),
        key("client_secret", "text; required without `client_assertion`", "", "Its secret."),
        key(
            "token_endpoint_auth_method",
            "`client_secret_basic`, `client_secret_post` or `private_key_jwt`",
            "",
            "How the client proves itself; left out, the secret goes as the provider's discovery document allows.",
        ),
        key("client_assertion", "mapping", "", "The key of `private_key_jwt`, in place of the secret."),
        key(
            "discovery_url",
            "URL with `/.well-known/` in it",
            "",
            "The discovery document, where it is not at the issuer's own place. It must still name the issuer.",
        ),
        key(
            "id_token_signed_response_alg",
            "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA",
            "",
            "The one algorithm of id_tokens; left out, those that the discovery document lists.",
        ),
        key("clock_skew_seconds", "whole number from 0", "30", "How far the provider's clock may be from ours."),
        key(
            "additional_authorized_parties",
            "list of texts",
            "[]",
            "Values of `azp` that are accepted beside the client id.",
        ),
        key(
            "ca_cert_pem",
            "certificates in PEM form",
            "",
            "Authorities that are trusted for the provider's certificate, beside the system's.",
        ),
        key(
            "use_proxy",
            "boolean",
            "",
            "Whether requests to the provider go through the forward proxy; left out, only where the proxy is the egress \
             boundary.",
        ),
        key("google_groups", "mapping", "", "Groups from the Google Workspace directory, in place of a claim."),
        key(
            "scope_on_refresh",
            "boolean",
            "false",
            "Send `scopes` again with every refresh, for providers that want it.",
        ),
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
    later: &[],
};

pub(super) const ASSERTION: Section = Section {
    path: "oidc.client_assertion",
    about: "A key that signs in place of a client secret (`private_key_jwt`). The provider finds it by the certificate.",
    keys: &[
        key(
            "private_key_pem",
            "RSA, P-256 or P-384 key in PEM form",
            "required",
            "The private key; write a reference to it.",
        ),
        key(
            "certificate_pem",
            "certificate in PEM form",
            "required",
            "Its certificate, as it was uploaded to the provider.",
        ),
    ],
    later: &[],
};

pub(super) const GOOGLE: Section = Section {
    path: "oidc.google_groups",
    about: "The Directory API, asked by a service account with domain-wide delegation for the scope \
            `https://www.googleapis.com/auth/admin.directory.group.readonly`. Groups are known by their e-mail addresses.",
    keys: &[
        key(
            "service_account_json_path",
            "path",
            "`GOOGLE_APPLICATION_CREDENTIALS`, else the machine's identity",
            "The service account's key file. Without one, Google Cloud's metadata server (`GCE_METADATA_HOST`) says which \
             service account the machine is, and IAM signs for it.",
        ),
        key(
            "admin_email",
            "e-mail address",
            "required",
            "An administrator who may read groups, and in whose name it asks.",
        ),
    ],
    later: &[],
};

/// What `oidc` says: to the relying party, and to the approval page.
pub(super) struct Oidc {
    pub(super) relying_party: OidcConfig,
    pub(super) form_action_origins: Vec<String>,
}

/// Parameters that are the protocol's own.
const RESERVED_PARAMS: &[&str] =
    &["state", "nonce", "redirect_uri", "scope", "response_type", "response_mode", "client_id"];

const CLOCK_SKEW: u64 = 30;
/// Clocks that are further apart than this are broken.
const LONG_SKEW: u64 = 300;

pub(super) fn read(oidc: &Mapping<'_>, connect: &connect::Config, environment: &Environment) -> Option<Oidc> {
    let allow_loopback = connect.allow_loopback;
    let issuer = oidc.required("issuer", "write the issuer URL of your identity provider", |field| {
        read_issuer(field, allow_loopback)
    });
    let client_id = oidc.required("client_id", "write the id of the OAuth client", Field::string);
    let client = read_client(oidc);
    let discovery_url = oidc.maybe("discovery_url", |field| read_discovery_url(field, allow_loopback));
    let id_token_algorithm =
        oidc.maybe("id_token_signed_response_alg", |field| field.one_of(&ID_TOKEN_ALGORITHMS.map(|name| (name, name))));
    let clock_skew_seconds = oidc.or("clock_skew_seconds", CLOCK_SKEW, read_clock_skew);
    let parties = oidc.or("additional_authorized_parties", Vec::new(), Field::texts);
    let authorities = oidc.or("ca_cert_pem", Vec::new(), read_authorities);
    let use_proxy = oidc.maybe("use_proxy", |field| read_use_proxy(field, connect));
    let google_groups = oidc.maybe("google_groups", |field| read_google_groups(field, allow_loopback, environment));
    let scope_on_refresh = oidc.or("scope_on_refresh", false, Field::flag);
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
            client: client?,
            discovery_url: discovery_url?,
            id_token_algorithm: id_token_algorithm?,
            clock_skew_seconds: clock_skew_seconds?,
            additional_authorized_parties: parties?,
            authorities: authorities?,
            use_proxy: use_proxy?,
            google_groups: google_groups?,
            scope_on_refresh: scope_on_refresh?,
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

#[derive(Clone, Copy)]
enum Method {
    Secret(SecretMethod),
    PrivateKeyJwt,
}

/// A secret or a key, as the method says; never both.
fn read_client(oidc: &Mapping<'_>) -> Option<ClientCredential> {
    let method = oidc.maybe("token_endpoint_auth_method", |field| {
        field.one_of(&[
            ("client_secret_basic", Method::Secret(SecretMethod::Basic)),
            ("client_secret_post", Method::Secret(SecretMethod::Post)),
            ("private_key_jwt", Method::PrivateKeyJwt),
        ])
    })?;
    let secret_method = match method {
        Some(Method::PrivateKeyJwt) => {
            if let Some(field) = oidc.get("client_secret") {
                field.refuse("stands beside token_endpoint_auth_method: private_key_jwt; leave one of them out");
            }
            return oidc.required("client_assertion", "private_key_jwt needs its key", read_assertion);
        }
        Some(Method::Secret(method)) => Some(method),
        None => None,
    };
    if let Some(field) = oidc.get("client_assertion") {
        field.refuse("needs token_endpoint_auth_method: private_key_jwt, and no client_secret");
        return None;
    }
    let hint = "write a reference to it, such as ${OIDC_CLIENT_SECRET}";
    let secret = oidc.required("client_secret", hint, Field::secret)?;
    Some(ClientCredential::Secret { secret, method: secret_method })
}

fn read_assertion(field: &Field<'_>) -> Option<ClientCredential> {
    let assertion = field.mapping(&ASSERTION)?;
    let key = assertion.required("private_key_pem", "write ${file:/path/of/key.pem}", Field::secret);
    let certificate = assertion.required("certificate_pem", "write ${file:/path/of/certificate.pem}", Field::text);
    match ClientAssertion::from_pem(&key?, certificate?) {
        Ok(assertion) => Some(ClientCredential::Assertion(assertion)),
        Err(reason) => {
            field.refuse(reason);
            None
        }
    }
}

fn read_discovery_url(field: &Field<'_>, allow_loopback: bool) -> Option<Url> {
    let url = field.target_url(allow_loopback)?;
    if !url.path().contains("/.well-known/") {
        field.refuse("must be the URL of a discovery document, with /.well-known/ in its path");
        return None;
    }
    Some(url)
}

fn read_clock_skew(field: &Field<'_>) -> Option<u64> {
    let seconds = field.whole(0..=u64::MAX)?;
    if seconds > LONG_SKEW {
        field.warn("long; id_tokens are accepted that long after they have expired");
    }
    Some(seconds)
}

fn read_authorities(field: &Field<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let pem = field.text()?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let trusted = |certificates: &Vec<CertificateDer<'static>>| {
        let mut roots = RootCertStore::empty();
        !certificates.is_empty() && certificates.iter().all(|one| roots.add(one.clone()).is_ok())
    };
    let authorities = read.ok().filter(trusted);
    if authorities.is_none() {
        field.refuse("must be one or more certificates in PEM form (BEGIN CERTIFICATE)");
    }
    authorities
}

fn read_use_proxy(field: &Field<'_>, connect: &connect::Config) -> Option<bool> {
    let use_proxy = field.flag()?;
    if use_proxy && connect.proxy.is_none() {
        field.warn("neither HTTPS_PROXY nor HTTP_PROXY is set; the provider is reached directly");
    }
    Some(use_proxy)
}

fn read_google_groups(field: &Field<'_>, allow_loopback: bool, environment: &Environment) -> Option<GoogleGroups> {
    const KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
    let google = field.mapping(&GOOGLE)?;
    let file = google.maybe("service_account_json_path", |path| {
        Some((path.clone(), std::fs::read_to_string(path.existing_file()?).unwrap_or_default()))
    });
    let admin = google.required("admin_email", "write the address of an administrator who may read groups", |field| {
        let address = field.string()?;
        if !address.contains('@') {
            field.refuse("must be an e-mail address");
            return None;
        }
        Some(address)
    });
    let (file, admin) = (file?, admin?);
    let of_environment = environment.get(KEY_FILE).filter(|path| !path.is_empty());
    let (groups, place) = match (&file, of_environment) {
        (Some((path, json)), _) => (GoogleGroups::from_key_file(json, admin), (path, "")),
        (None, Some(path)) => {
            let json = std::fs::read_to_string(path).unwrap_or_default();
            (GoogleGroups::from_key_file(&json, admin), (field, "GOOGLE_APPLICATION_CREDENTIALS names a file that "))
        }
        (None, None) => (GoogleGroups::from_metadata_server(environment.get("GCE_METADATA_HOST"), admin), (field, "")),
    };
    match groups.and_then(|groups| safe_token_uri(groups, allow_loopback)) {
        Ok(groups) => Some(groups),
        Err(reason) => {
            place.0.refuse(format!("{}{reason}", place.1));
            None
        }
    }
}

fn safe_token_uri(groups: GoogleGroups, allow_loopback: bool) -> Result<GoogleGroups, String> {
    let uri = groups.token_uri();
    connect::check_literal_host(uri.host_str().unwrap_or_default(), allow_loopback)
        .map_err(|blocked| format!("the key's token_uri: {blocked}"))?;
    // What is sent there is as good as the key for an hour.
    if uri.scheme() != "https" && !allow_loopback {
        return Err("the key's token_uri is not an https URL".to_owned());
    }
    Ok(groups)
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
