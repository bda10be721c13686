//! The relying party: OpenID Connect's authorization-code flow with PKCE, towards one provider.
//!
//! Trusts the provider as configured and nothing on the way: issuer, keys, algorithm, audience, nonce and times are
//! checked here. Knows nothing of device grants, sessions or bearers.

mod call;
mod keys;
mod logout;
mod rules;

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use wire::oidc::{Claims, Discovery, TokenAnswer, TokenError};

use self::call::{CallError, ClientAuth, Line};
use self::keys::{KeyError, Keys};
use self::rules::Expected;
use super::OidcConfig;
use crate::clock::Clock;
use crate::connect::Egress;

pub(super) use self::logout::LogoutError;
pub(super) use self::rules::Person;

/// One provider, and us as its client.
#[derive(Debug)]
pub(super) struct RelyingParty {
    config: OidcConfig,
    redirect_uri: String,
    line: Line,
    clock: Arc<dyn Clock>,
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    userinfo_endpoint: Option<Url>,
    client_auth: ClientAuth,
    keys: Keys,
}

/// The provider cannot be used: the boot stops.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The document did not come.
    #[error("oidc.issuer: {url}: {reason}")]
    Fetch {
        /// Where it was asked for.
        url: String,
        /// What came instead.
        reason: String,
    },
    /// The document is another issuer's.
    #[error("oidc.issuer is {configured}, but its discovery document names {found}; write that one")]
    IssuerMismatch {
        /// What the configuration says.
        configured: String,
        /// What the document says.
        found: String,
    },
    /// An address in the document is no URL, or would carry secrets over plain http.
    #[error("the provider's {0} is not an https URL")]
    Endpoint(&'static str),
    /// The provider signs with nothing that can be verified with a public key.
    #[error("the provider lists no asymmetric algorithm in id_token_signing_alg_values_supported")]
    Algorithms,
}

/// A person signed in, or is still signed in.
#[derive(Debug)]
pub(super) struct SignedIn {
    pub(super) person: Person,
    /// The provider's refresh token: a new one, or none.
    pub(super) refresh_token: Option<SecretString>,
    /// The provider's own session (`sid`), which a back-channel logout may name.
    pub(super) idp_sid: Option<String>,
    /// Names of the claims that were read, for a debug line.
    pub(super) claim_names: String,
}

/// Nobody signed in.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// For the audit.
    pub(super) detail: String,
    /// Who it was, when the provider's signature said so.
    pub(super) who: Option<Box<Person>>,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The provider is slow, down or misconfigured: a later attempt may succeed.
    Unavailable,
    /// The provider refused the code or refresh token.
    Grant,
    /// The token or a sign-in rule says no.
    Claims,
    /// A refresh found another person than the one who signed in.
    OtherPerson,
}

impl Failure {
    pub(super) fn new(fault: Fault, detail: impl ToString) -> Self {
        Self { fault, detail: detail.to_string(), who: None }
    }
}

impl RelyingParty {
    /// Reads the provider's discovery document.
    pub(super) async fn discover(
        config: OidcConfig,
        public_origin: &str,
        egress: Egress,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DiscoveryError> {
        let configured = config.issuer.as_str().trim_end_matches('/').to_owned();
        let url = format!("{configured}/.well-known/openid-configuration");
        let failed = |reason: String| DiscoveryError::Fetch { url: url.clone(), reason };
        let line = Line::new(egress);
        let place = Url::parse(&url).map_err(|error| failed(error.to_string()))?;
        let document: Discovery =
            call::json(line.get(&place, None).await).map_err(|error| failed(error.to_string()))?;
        if comparable(&document.issuer) != comparable(&configured) {
            return Err(DiscoveryError::IssuerMismatch { configured, found: document.issuer });
        }
        let endpoint = |name, text: &str| {
            let url = Url::parse(text).map_err(|_| DiscoveryError::Endpoint(name))?;
            // Plain http only where the configured issuer is so too.
            let fits = url.scheme() == "https" || url.scheme() == config.issuer.scheme();
            if fits { Ok(url) } else { Err(DiscoveryError::Endpoint(name)) }
        };
        let userinfo = document.userinfo_endpoint.as_deref();
        let jwks_uri = endpoint("jwks_uri", &document.jwks_uri)?;
        let listed = &document.id_token_signing_alg_values_supported;
        Ok(Self {
            authorization_endpoint: endpoint("authorization_endpoint", &document.authorization_endpoint)?,
            token_endpoint: endpoint("token_endpoint", &document.token_endpoint)?,
            userinfo_endpoint: userinfo.map(|text| endpoint("userinfo_endpoint", text)).transpose()?,
            client_auth: client_auth(&document.token_endpoint_auth_methods_supported),
            keys: Keys::new(jwks_uri, listed, line.clone(), Arc::clone(&clock)).ok_or(DiscoveryError::Algorithms)?,
            redirect_uri: format!("{public_origin}/oauth/callback"),
            issuer: document.issuer,
            config,
            line,
            clock,
        })
    }

    /// The issuer, as it names itself.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn client_id(&self) -> &str {
        &self.config.client_id
    }

    /// Where browsers are sent.
    pub(super) fn authorization_endpoint(&self) -> &Url {
        &self.authorization_endpoint
    }

    pub(super) fn uses_pkce(&self) -> bool {
        self.config.use_pkce
    }

    /// The authorization request (OpenID Connect Core 1.0, section 3.1.2.1; RFC 7636 when there is a challenge).
    pub(super) fn authorization_url(&self, state: &str, nonce: &str, challenge: Option<&str>) -> Url {
        let mut url = self.authorization_endpoint.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", &self.config.client_id)
            .append_pair("scope", &self.config.scopes.join(" "))
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", state)
            .append_pair("nonce", nonce);
        if let Some(challenge) = challenge {
            query.append_pair("code_challenge", challenge).append_pair("code_challenge_method", "S256");
        }
        query.append_pair("response_mode", "query").extend_pairs(&self.config.extra_auth_params);
        drop(query);
        url
    }

    /// Exchanges an authorization code and says who signed in.
    pub(super) async fn exchange(&self, code: &str, verifier: Option<&str>, nonce: &str) -> Result<SignedIn, Failure> {
        let mut fields =
            vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &self.redirect_uri)];
        fields.extend(verifier.map(|verifier| ("code_verifier", verifier)));
        let answer = self.ask_token_endpoint(&fields).await?;
        let id_token = answer.id_token.as_deref();
        let id_token = id_token.ok_or_else(|| Failure::new(Fault::Claims, "the provider sent no id_token"))?;
        let claims = self.accepted(id_token, Some(nonce)).await?;
        let mut read = Read::of_id_token(&claims, &self.config);
        if self.lacks_claims(&read) {
            let known = Some(&read.person.sub);
            let userinfo = self.userinfo(answer.access_token.as_deref(), known).await;
            let userinfo =
                userinfo.map_err(|failure| Failure { who: Some(Box::new(read.person.clone())), ..failure })?;
            read.fill_from(&userinfo, &self.config);
        }
        self.admitted(read, answer.refresh_token)
    }

    /// Asks the provider again about a person who signed in before. What the provider leaves out of an answer without
    /// id_token stays as it was last known: it is never silently dropped.
    pub(super) async fn refresh(&self, refresh_token: &SecretString, known: &Person) -> Result<SignedIn, Failure> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose_secret())];
        let answer = self.ask_token_endpoint(&fields).await?;
        let access_token = answer.access_token.as_deref();
        let read = match answer.id_token.as_deref() {
            Some(id_token) => {
                let claims = self.accepted(id_token, None).await?;
                let mut read = Read::of_id_token(&claims, &self.config);
                same_person(&read.person.sub, &known.sub)?;
                if self.lacks_claims(&read) {
                    match self.userinfo(access_token, Some(&known.sub)).await {
                        Ok(userinfo) => read.fill_from(&userinfo, &self.config),
                        // The provider has just said that the person is still there, and may have rotated its token.
                        Err(failure) if failure.fault == Fault::Unavailable => read.keep_last_known(known),
                        Err(failure) => return Err(failure),
                    }
                }
                read
            }
            None => {
                let mut read = Read::nothing_of(&known.sub);
                match self.userinfo(access_token, Some(&known.sub)).await {
                    Ok(userinfo) => read.fill_from(&userinfo, &self.config),
                    Err(failure) if failure.fault == Fault::Unavailable => {}
                    Err(failure) => return Err(failure),
                }
                read.keep_last_known(known);
                read
            }
        };
        self.admitted(read, answer.refresh_token)
    }

    fn lacks_claims(&self, read: &Read) -> bool {
        self.config.userinfo_fallback && (read.person.email.is_none() || !read.groups_known)
    }

    fn admitted(&self, read: Read, refresh_token: Option<String>) -> Result<SignedIn, Failure> {
        match rules::admit(&read.person, read.email_verified, &self.config) {
            Ok(()) => Ok(SignedIn {
                person: read.person,
                refresh_token: refresh_token.map(SecretString::from),
                idp_sid: read.idp_sid,
                claim_names: read.claim_names,
            }),
            Err(detail) => Err(Failure { fault: Fault::Claims, detail, who: Some(Box::new(read.person)) }),
        }
    }

    async fn accepted(&self, id_token: &str, nonce: Option<&str>) -> Result<Claims, Failure> {
        let claims = self.keys.verified(id_token).await.map_err(|error| {
            let fault = match error {
                KeyError::NoKey(_) | KeyError::Fetch(_) => Fault::Unavailable,
                KeyError::Malformed | KeyError::Algorithm(_) | KeyError::Signature => Fault::Claims,
            };
            Failure::new(fault, error)
        })?;
        let expected = Expected { issuer: &self.issuer, client_id: &self.config.client_id, nonce };
        match rules::accept(&claims, &expected, self.clock.now()) {
            Ok(()) => Ok(claims),
            Err(detail) => Err(Failure::new(Fault::Claims, detail)),
        }
    }

    async fn ask_token_endpoint(&self, fields: &[(&str, &str)]) -> Result<TokenAnswer, Failure> {
        let client = (self.client_auth, self.config.client_id.as_str(), &self.config.client_secret);
        let answer = self.line.post(&self.token_endpoint, fields, client).await;
        let (status, body) = answer.map_err(|error| Failure::new(Fault::Unavailable, error))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|_| {
                Failure::new(Fault::Unavailable, "the token endpoint answered with an unreadable document")
            });
        }
        Err(refusal(status, &body))
    }

    async fn userinfo(&self, access_token: Option<&str>, sub: Option<&String>) -> Result<Claims, Failure> {
        let (Some(endpoint), Some(token)) = (&self.userinfo_endpoint, access_token) else {
            return Err(Failure::new(Fault::Unavailable, "the provider has no userinfo to ask"));
        };
        let token = SecretString::from(token);
        let claims: Claims = call::json(self.line.get(endpoint, Some(&token)).await)
            .map_err(|error: CallError| Failure::new(Fault::Unavailable, format!("userinfo endpoint: {error}")))?;
        // OpenID Connect Core 1.0, section 5.3.2: an answer about somebody else must not be used.
        if claims.string("sub") != sub.map(String::as_str) {
            return Err(Failure::new(Fault::Claims, "userinfo sub is not the id_token's"));
        }
        Ok(claims)
    }
}

/// What was read of a person so far, and where from.
struct Read {
    person: Person,
    /// The groups claim was there, if only to say that there are none.
    groups_known: bool,
    email_verified: Option<bool>,
    idp_sid: Option<String>,
    claim_names: String,
}

impl Read {
    fn nothing_of(sub: &str) -> Self {
        let person = Person { sub: sub.to_owned(), email: None, name: None, groups: Vec::new() };
        Self { person, groups_known: false, email_verified: None, idp_sid: None, claim_names: String::new() }
    }

    fn of_id_token(claims: &Claims, config: &OidcConfig) -> Self {
        Self {
            person: rules::person(claims, config),
            groups_known: claims.lookup(&config.groups_claim).is_some(),
            email_verified: claims.email_verified(),
            idp_sid: claims.string("sid").map(str::to_owned),
            claim_names: claims.names().collect::<Vec<_>>().join(","),
        }
    }

    /// Fills what is missing; overrides nothing.
    fn fill_from(&mut self, userinfo: &Claims, config: &OidcConfig) {
        let other = rules::person(userinfo, config);
        if self.person.email.is_none() && other.email.is_some() {
            self.person.email = other.email;
            // It speaks of this e-mail address.
            self.email_verified = userinfo.email_verified().or(self.email_verified);
        }
        if !self.groups_known {
            self.person.groups = other.groups;
            self.groups_known = userinfo.lookup(&config.groups_claim).is_some();
        }
        self.person.name = self.person.name.take().or(other.name);
        let names = userinfo.names().collect::<Vec<_>>().join(",");
        self.claim_names.push_str("; userinfo claim names: ");
        self.claim_names.push_str(&names);
    }

    fn keep_last_known(&mut self, known: &Person) {
        if self.person.email.is_none() {
            self.person.email.clone_from(&known.email);
        }
        if self.person.name.is_none() {
            self.person.name.clone_from(&known.name);
        }
        if !self.groups_known {
            self.person.groups.clone_from(&known.groups);
        }
    }
}

fn same_person(found: &str, known: &str) -> Result<(), Failure> {
    if found == known { Ok(()) } else { Err(Failure::new(Fault::OtherPerson, "id_token sub is another person's")) }
}

/// Only `invalid_grant` speaks of the person; every other error is the client's or the provider's own trouble.
fn refusal(status: StatusCode, body: &Bytes) -> Failure {
    match serde_json::from_slice::<TokenError>(body) {
        Ok(TokenError { error, error_description }) => {
            let fault = if error == "invalid_grant" { Fault::Grant } else { Fault::Unavailable };
            let description = error_description.map(|text| format!(" ({})", shortened(&text))).unwrap_or_default();
            Failure::new(fault, format!("token endpoint: {}{description}", shortened(&error)))
        }
        Err(_) => Failure::new(Fault::Unavailable, format!("token endpoint answered {status}")),
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// POST where it is offered: it needs no double encoding, which some providers get wrong. Basic is the standard's default.
fn client_auth(supported: &[String]) -> ClientAuth {
    if supported.iter().any(|method| method == "client_secret_post") { ClientAuth::Post } else { ClientAuth::Basic }
}

/// An issuer less its trailing slash, with both names of this machine alike.
fn comparable(issuer: &str) -> String {
    let issuer = issuer.trim_end_matches('/');
    match Url::parse(issuer) {
        Ok(mut url) if url.host_str() == Some("localhost") => {
            let _ = url.set_host(Some("127.0.0.1"));
            url.as_str().trim_end_matches('/').to_owned()
        }
        Ok(url) => url.as_str().trim_end_matches('/').to_owned(),
        Err(_) => issuer.to_owned(),
    }
}

#[cfg(test)]
mod tests;
