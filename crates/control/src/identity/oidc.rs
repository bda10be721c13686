//! The relying party: OpenID Connect's authorization-code flow with PKCE, towards one provider.
//!
//! Trusts the provider as configured and nothing on the way: issuer, keys, algorithm, audience, nonce and times are
//! checked here. Knows nothing of device grants, sessions or bearers.

mod call;
mod client;
mod directory;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod keys;
mod logout;
mod overage;
mod provider;
mod reading;
mod rules;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use url::Url;
use wire::oidc::{Claims, TokenAnswer, TokenError};

pub use self::client::{ClientAssertion, ClientCredential, SecretMethod};
pub use self::directory::GoogleGroups;
pub use self::keys::ID_TOKEN_ALGORITHMS;
pub use self::provider::DiscoveryError;

use self::call::{CallError, Line};
use self::directory::Directory;
use self::keys::{KeyError, Keys};
use self::provider::Provider;
use self::reading::Read;
use self::rules::Expected;
use super::OidcConfig;
use crate::clock::Clock;
use crate::connect::Egress;

pub(super) use self::logout::LogoutError;
pub(super) use self::rules::{Person, Rule};

/// The discovery document is read again this often,
const DOCUMENT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// and after this when that failed.
const DOCUMENT_RETRY: Duration = Duration::from_secs(600);

/// One provider, and us as its client.
#[derive(Debug)]
pub(super) struct RelyingParty {
    config: OidcConfig,
    redirect_uri: String,
    line: Line,
    clock: Arc<dyn Clock>,
    /// As it named itself at boot; sessions are bound to it.
    issuer: String,
    provider: ArcSwap<Provider>,
    /// When the discovery document is read again; held while it is.
    due: Mutex<Instant>,
    directory: Option<Directory>,
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
    /// The provider's answer is not one that can be believed.
    Claims,
    /// A sign-in rule says no.
    Rule(Rule),
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
        let egress = egress.towards(config.use_proxy, &config.authorities).map_err(DiscoveryError::Egress)?;
        let line = Line::new(egress);
        let provider = Provider::discover(&config, &line, &clock, None).await?;
        let directory =
            config.google_groups.clone().map(|groups| Directory::new(groups, line.clone(), Arc::clone(&clock)));
        Ok(Self {
            redirect_uri: format!("{public_origin}/oauth/callback"),
            issuer: provider.issuer.clone(),
            provider: ArcSwap::from_pointee(provider),
            due: Mutex::new(clock.instant() + DOCUMENT_LIFE),
            directory,
            config,
            line,
            clock,
        })
    }

    /// Reads the discovery document again when it is due. While it cannot be read, the known one stays.
    pub(super) async fn keep_current(&self) {
        let mut due = self.due.lock().await;
        let now = self.clock.instant();
        if now < *due {
            return;
        }
        let known = self.provider.load_full();
        match Provider::discover(&self.config, &self.line, &self.clock, Some(&known.keys)).await {
            Ok(provider) if provider.issuer == self.issuer => {
                self.provider.store(Arc::new(provider));
                *due = now + DOCUMENT_LIFE;
                return;
            }
            Ok(provider) => tracing::warn!(
                "the discovery document now names the issuer {}; the known one is used until a restart",
                shortened(&provider.issuer)
            ),
            Err(error) => {
                tracing::warn!("the discovery document is not read again yet; the known one is used: {error}")
            }
        }
        *due = now + DOCUMENT_RETRY;
    }

    #[cfg(test)]
    pub(super) fn give_up_after(&mut self, budget: Duration) {
        self.line.budget = budget;
    }

    /// The issuer, as it names itself.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn client_id(&self) -> &str {
        &self.config.client_id
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.provider.load().keys)
    }

    /// Where browsers are sent, such as `https://idp.example`.
    pub(super) fn authorization_origin(&self) -> String {
        self.provider.load().authorization_endpoint.origin().ascii_serialization()
    }

    pub(super) fn uses_pkce(&self) -> bool {
        self.config.use_pkce
    }

    /// The authorization request (OpenID Connect Core 1.0, section 3.1.2.1; RFC 7636 when there is a challenge).
    pub(super) fn authorization_url(&self, state: &str, nonce: &str, challenge: Option<&str>) -> Url {
        let mut url = self.provider.load().authorization_endpoint.clone();
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
        if let Err(failure) = self.complete(&mut read, Some(&claims), answer.access_token.as_deref()).await {
            return Err(Failure { who: Some(Box::new(read.person)), ..failure });
        }
        self.admitted(read, answer.refresh_token)
    }

    /// Asks the provider again about a person who signed in before. What the provider leaves out of an answer without
    /// id_token stays as it was last known: it is never silently dropped.
    pub(super) async fn refresh(&self, refresh_token: &SecretString, known: &Person) -> Result<SignedIn, Failure> {
        let scopes = self.config.scopes.join(" ");
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose_secret())];
        fields.extend(self.config.scope_on_refresh.then_some(("scope", scopes.as_str())));
        let answer = self.ask_token_endpoint(&fields).await?;
        let claims = match answer.id_token.as_deref() {
            Some(id_token) => Some(self.accepted(id_token, None).await?),
            None => None,
        };
        let mut read = match &claims {
            Some(claims) => Read::of_id_token(claims, &self.config),
            None => Read::nothing_of(&known.sub),
        };
        same_person(&read.person.sub, &known.sub)?;
        match self.complete(&mut read, claims.as_ref(), answer.access_token.as_deref()).await {
            Ok(()) if claims.is_some() => {}
            Ok(()) => read.keep_last_known(known),
            // The provider has just said that the person is still there, and may have rotated its token.
            Err(failure) if failure.fault == Fault::Unavailable => {
                tracing::warn!("a session keeps the claims that were last known: {}", failure.detail);
                read.keep_last_known(known);
            }
            Err(failure) => return Err(failure),
        }
        self.admitted(read, answer.refresh_token)
    }

    /// Asks the other places for what the id_token lacks; `claims` are the id_token's, where there is one.
    async fn complete(
        &self,
        read: &mut Read,
        claims: Option<&Claims>,
        access_token: Option<&str>,
    ) -> Result<(), Failure> {
        let pointer = claims.and_then(|claims| overage::place(claims, &self.config.groups_claim, &self.config.issuer));
        if let Some(place) = pointer.filter(|_| self.directory.is_none()) {
            read.learn_groups(self.overage(place, access_token).await?);
        }
        let lacks = read.person.email.is_none() || !read.groups_known;
        if claims.is_none() || (self.config.userinfo_fallback && lacks) {
            let userinfo = self.userinfo(access_token, &read.person.sub).await?;
            read.fill_from(&userinfo, &self.config);
        }
        if let Some(directory) = &self.directory {
            let key = read.person.email.as_ref().unwrap_or(&read.person.sub);
            let groups = directory.groups_of(key).await;
            read.learn_groups(groups.map_err(|error| Failure::new(Fault::Unavailable, error))?);
        }
        Ok(())
    }

    async fn overage(&self, place: Result<Url, String>, access_token: Option<&str>) -> Result<Vec<String>, Failure> {
        let place = place.map_err(|detail| Failure::new(Fault::Unavailable, detail))?;
        let token =
            access_token.ok_or_else(|| Failure::new(Fault::Unavailable, "no access token for Microsoft Graph"))?;
        let groups = overage::groups(&self.line, &place, &SecretString::from(token)).await;
        groups.map_err(|error| Failure::new(Fault::Unavailable, format!("Microsoft Graph: {error}")))
    }

    fn admitted(&self, read: Read, refresh_token: Option<String>) -> Result<SignedIn, Failure> {
        match rules::admit(&read.person, read.email_verified, &self.config) {
            Ok(()) => Ok(SignedIn {
                person: read.person,
                refresh_token: refresh_token.map(SecretString::from),
                idp_sid: read.idp_sid,
                claim_names: read.claim_names,
            }),
            Err(rule) => {
                let detail = rule.says_no(&self.config);
                Err(Failure { fault: Fault::Rule(rule), detail, who: Some(Box::new(read.person)) })
            }
        }
    }

    async fn accepted(&self, id_token: &str, nonce: Option<&str>) -> Result<Claims, Failure> {
        let claims = self.keys().verified(id_token).await.map_err(|error| {
            let fault = match error {
                KeyError::NoKey(_) | KeyError::Fetch(_) => Fault::Unavailable,
                KeyError::Malformed | KeyError::Algorithm(_) | KeyError::Signature => Fault::Claims,
            };
            Failure::new(fault, error)
        })?;
        let expected = Expected {
            issuer: &self.issuer,
            client_id: &self.config.client_id,
            other_parties: &self.config.additional_authorized_parties,
            nonce,
            clock_skew: self.config.clock_skew_seconds,
        };
        match rules::accept(&claims, &expected, self.clock.now()) {
            Ok(()) => Ok(claims),
            // The provider did sign it: the audit may know of whom it speaks.
            Err(detail) => {
                let person = rules::person(&claims, &self.config);
                let who = (!person.sub.is_empty()).then(|| Box::new(person));
                Err(Failure { fault: Fault::Claims, detail, who })
            }
        }
    }

    async fn ask_token_endpoint(&self, fields: &[(&str, &str)]) -> Result<TokenAnswer, Failure> {
        let provider = self.provider.load_full();
        let (endpoint, client) = (&provider.token_endpoint, &self.config.client);
        let (id, now) = (&self.config.client_id, self.clock.now());
        let presented = client.present(provider.client_auth, id, endpoint.as_str(), now);
        let presented = presented.map_err(|error| Failure::new(Fault::Unavailable, error))?;
        let answer = self.line.post_form(endpoint, fields, &presented).await;
        let (status, body) = answer.map_err(|error| Failure::new(Fault::Unavailable, error))?;
        if status == StatusCode::OK {
            let says_something = |answer: &TokenAnswer| answer.access_token.is_some() || answer.id_token.is_some();
            return call::object(&body).filter(says_something).ok_or_else(|| {
                Failure::new(Fault::Unavailable, "the token endpoint answered with an unreadable document")
            });
        }
        Err(refusal(status, &body))
    }

    async fn userinfo(&self, access_token: Option<&str>, sub: &str) -> Result<Claims, Failure> {
        let provider = self.provider.load_full();
        let (Some(endpoint), Some(token)) = (&provider.userinfo_endpoint, access_token) else {
            return Err(Failure::new(Fault::Unavailable, "the provider has no userinfo to ask"));
        };
        let token = SecretString::from(token);
        let claims: Claims = call::json(self.line.get(endpoint, Some(&token)).await)
            .map_err(|error: CallError| Failure::new(Fault::Unavailable, format!("userinfo endpoint: {error}")))?;
        // OpenID Connect Core 1.0, section 5.3.2: an answer about somebody else must not be used.
        if claims.string("sub") != Some(sub) {
            return Err(Failure::new(Fault::Claims, "userinfo sub is not the id_token's"));
        }
        Ok(claims)
    }
}

fn same_person(found: &str, known: &str) -> Result<(), Failure> {
    if found == known { Ok(()) } else { Err(Failure::new(Fault::OtherPerson, "id_token sub is another person's")) }
}

/// Only `invalid_grant` speaks of the person; every other error is the client's or the provider's own trouble.
fn refusal(status: StatusCode, body: &Bytes) -> Failure {
    match call::object(body) {
        Some(TokenError { error, error_description }) => {
            let fault = if error == "invalid_grant" { Fault::Grant } else { Fault::Unavailable };
            let description = error_description.map(|text| format!(" ({})", shortened(&text))).unwrap_or_default();
            Failure::new(fault, format!("token endpoint: {}{description}", shortened(&error)))
        }
        None => Failure::new(Fault::Unavailable, format!("token endpoint answered {status}")),
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
