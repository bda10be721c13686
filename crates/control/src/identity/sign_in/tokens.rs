//! What a signed-in device gets: a bearer, and a sealed token to refresh it with.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Asker, SignIn, SignInError};
use crate::audit::Event;
use crate::identity::Principal;
use crate::identity::chance::{self, NoChance};
use crate::identity::device_grant::{GrantError, Poll};
use crate::identity::oidc::{Failure, Fault, Person, SignedIn};
use crate::identity::seal::Purpose;
use crate::identity::session::Issued;

/// A session as it stands in an approved grant's row and, sealed, in the client's refresh token. The provider's refresh
/// token is nowhere else.
#[derive(Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) id: String,
    /// How often it was refreshed.
    generation: u64,
    pub(super) person: Person,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    surface: Option<String>,
    /// Unix seconds.
    began: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    provider_token: Option<String>,
}

/// What the device's poll gives.
#[derive(Debug)]
pub enum Redemption {
    /// Nobody has decided yet.
    Pending,
    /// As pending, and polled too often.
    SlowDown,
    /// The person or a rule said no.
    Denied,
    /// Unknown, expired or collected before.
    Expired,
    /// Signed in.
    Tokens(Tokens),
}

/// The content of a token answer.
#[derive(Debug)]
pub struct Tokens {
    /// The bearer.
    pub bearer: Issued,
    /// Absent when the provider gave none either.
    pub refresh_token: Option<SecretString>,
    /// Who signed in, when known.
    pub email: Option<String>,
}

/// No new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The token is not ours, or the provider or a sign-in rule says no: the person must sign in again.
    #[error("the session cannot be refreshed any more")]
    Ended,
    /// The provider is slow or down: the same token is good later.
    #[error("the identity provider does not answer")]
    Unavailable,
}

impl Session {
    pub(super) fn begin(signed_in: SignedIn, surface: Option<String>, now: Timestamp) -> Result<Self, NoChance> {
        Ok(Self {
            id: chance::uuid()?,
            generation: 0,
            person: signed_in.person,
            surface,
            began: now.as_second(),
            provider_token: signed_in.refresh_token.map(|token| token.expose_secret().to_owned()),
        })
    }

    fn refreshed(self, signed_in: SignedIn) -> Self {
        // Without a new one the old one stays good (RFC 6749, section 6).
        let new_token = signed_in.refresh_token.map(|token| token.expose_secret().to_owned());
        Self {
            generation: self.generation.saturating_add(1),
            person: signed_in.person,
            provider_token: new_token.or(self.provider_token),
            ..self
        }
    }

    fn principal(&self) -> Principal {
        Principal {
            sub: self.person.sub.clone(),
            email: self.person.email.clone(),
            name: self.person.name.clone(),
            groups: self.person.groups.clone(),
            session: Some(self.id.clone()),
            billing_group_tag: None,
        }
    }
}

impl SignIn {
    /// What the device gets for its device code now; tokens once.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn redeem(&self, device_code: &str) -> Result<Redemption, SignInError> {
        match self.grants.poll::<Session>(device_code, self.clock.now()).await {
            Ok(Poll::Pending) => Ok(Redemption::Pending),
            Ok(Poll::SlowDown) => Ok(Redemption::SlowDown),
            Ok(Poll::Denied) => Ok(Redemption::Denied),
            Ok(Poll::Gone) => Ok(Redemption::Expired),
            Ok(Poll::Approved(approved)) => Ok(Redemption::Tokens(self.tokens(&approved)?)),
            // The secret that it was sealed under was dropped: like every grant of that time, it has expired.
            Err(GrantError::Unreadable(error)) => {
                tracing::warn!("a device code was refused: {error}");
                Ok(Redemption::Expired)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// New tokens for a refresh token of ours.
    ///
    /// # Errors
    /// Whether a later attempt can succeed.
    pub async fn refresh(&self, refresh_token: &str, asker: Asker<'_>) -> Result<Tokens, RefreshError> {
        let opened = self.seals.open::<Session>(Purpose::RefreshToken, &self.refresh_place(), refresh_token);
        let Ok(session) = opened else {
            let failure = Failure::new(Fault::Grant, "refresh token is not one of ours");
            return Err(self.not_refreshed(None, &failure, "token", asker));
        };
        let Some(provider_token) = session.provider_token.clone().map(SecretString::from) else {
            let failure = Failure::new(Fault::Grant, "the provider gave no refresh token");
            return Err(self.not_refreshed(Some(&session), &failure, "token", asker));
        };
        let signed_in = match self.provider.refresh(&provider_token, &session.person).await {
            Ok(signed_in) => signed_in,
            Err(failure) => {
                let step = if failure.fault == Fault::Claims { "claims" } else { "token_endpoint" };
                return Err(self.not_refreshed(Some(&session), &failure, step, asker));
            }
        };
        self.tell_claim_names(&signed_in, asker);
        let session = session.refreshed(signed_in);
        // Nothing but a broken key derivation, which the boot would have met, fails here.
        let tokens = self.tokens(&session).map_err(|_| RefreshError::Unavailable)?;
        self.record(
            asker,
            &Event::SessionRefresh {
                result: "success",
                sub: Some(&session.person.sub),
                email: session.person.email.as_deref(),
                client_ip: &asker.client_ip.to_string(),
                ttl_hours: self.ttl_hours(),
                err: None,
                step: None,
                answer: None,
                session: Some(&session.id),
            },
        );
        Ok(tokens)
    }

    fn not_refreshed(
        &self,
        session: Option<&Session>,
        failure: &Failure,
        step: &str,
        asker: Asker<'_>,
    ) -> RefreshError {
        let (error, answer) = match failure.fault {
            Fault::Unavailable => (RefreshError::Unavailable, "temporarily_unavailable"),
            Fault::Grant | Fault::Claims => (RefreshError::Ended, "invalid_grant"),
        };
        self.record(
            asker,
            &Event::SessionRefresh {
                result: "fail",
                sub: session.map(|session| session.person.sub.as_str()),
                email: session.and_then(|session| session.person.email.as_deref()),
                client_ip: &asker.client_ip.to_string(),
                ttl_hours: None,
                err: Some(&failure.detail),
                step: Some(step),
                answer: Some(answer),
                session: session.map(|session| session.id.as_str()),
            },
        );
        error
    }

    fn tokens(&self, session: &Session) -> Result<Tokens, SignInError> {
        let refresh_token = match session.provider_token {
            Some(_) => Some(self.seals.seal(Purpose::RefreshToken, &self.refresh_place(), session)?.into()),
            None => None,
        };
        let bearer = self.bearers.issue(&session.principal(), self.clock.now());
        Ok(Tokens { bearer, refresh_token, email: session.person.email.clone() })
    }

    /// A refresh token of one provider and client is never sent to another, whatever the configuration becomes.
    fn refresh_place(&self) -> String {
        format!("{} {}", self.provider.issuer(), self.provider.client_id())
    }
}
