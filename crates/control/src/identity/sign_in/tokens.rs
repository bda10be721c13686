//! What a signed-in device gets: a bearer, and a sealed token to refresh it with.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{SignIn, SignInError};
use crate::identity::Principal;
use crate::identity::chance::{self, NoChance};
use crate::identity::device_grant::{Collected, GrantError, Pending, Poll};
use crate::identity::oidc::{Person, SignedIn};
use crate::identity::seal::{Purpose, SealError};
use crate::identity::session::{Issued, digest_of, register};

/// A session as it stands in an approved grant's row and, sealed, in the client's refresh token. The provider's refresh
/// token is nowhere else.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) id: String,
    /// How often it was refreshed.
    pub(super) generation: i64,
    pub(super) person: Person,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    surface: Option<String>,
    /// The device's address.
    client_ip: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    idp_sid: Option<String>,
    /// Unix milliseconds.
    pub(super) began: i64,
    /// When this generation was issued; Unix milliseconds.
    pub(super) issued: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) provider_token: Option<String>,
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

impl Session {
    pub(super) fn begin(signed_in: SignedIn, grant: &Pending, now: Timestamp) -> Result<Self, NoChance> {
        Ok(Self {
            id: chance::uuid()?,
            generation: 0,
            person: signed_in.person,
            surface: grant.surface.clone(),
            client_ip: grant.client_ip.clone(),
            idp_sid: signed_in.idp_sid,
            began: now.as_millisecond(),
            issued: now.as_millisecond(),
            provider_token: signed_in.refresh_token.map(|token| token.expose_secret().to_owned()),
        })
    }

    pub(super) fn refreshed(self, signed_in: SignedIn, now: Timestamp) -> Self {
        // Without a new one the old one stays good (RFC 6749, section 6).
        let new_token = signed_in.refresh_token.map(|token| token.expose_secret().to_owned());
        Self {
            generation: self.generation.saturating_add(1),
            person: signed_in.person,
            issued: now.as_millisecond(),
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
            groups_unread: false,
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
        Ok(match self.grants.poll(device_code, self.clock.now()).await? {
            Poll::Pending => Redemption::Pending,
            Poll::SlowDown => Redemption::SlowDown,
            Poll::Gone => Redemption::Expired,
            Poll::Decided => self.collect(device_code).await?,
        })
    }

    /// Collecting and the session's entry are one transaction: no device has tokens that cannot be revoked.
    async fn collect(&self, device_code: &str) -> Result<Redemption, SignInError> {
        let mut tx = self.store.begin().await?;
        let redemption = match self.grants.collect::<Session>(&mut tx, device_code, self.clock.now()).await {
            Ok(Collected::Gone) => Redemption::Expired,
            Ok(Collected::Denied) => Redemption::Denied,
            Ok(Collected::Approved(session)) if self.is_revoked(&session) => Redemption::Denied,
            Ok(Collected::Approved(mut session)) => {
                let groups = self.fit_into_bearer(&mut session);
                self.sessions.begin(&mut tx, &self.begun(&session, groups.as_deref())).await?;
                Redemption::Tokens(self.first_tokens(&session)?)
            }
            // The secret that it was sealed under was dropped: like every grant of that time, it has expired.
            Err(GrantError::Unreadable(error)) => {
                tracing::warn!("a device code was refused: {error}");
                Redemption::Expired
            }
            Err(error) => return Err(error.into()),
        };
        tx.commit().await?;
        Ok(redemption)
    }

    fn begun<'a>(&'a self, session: &'a Session, groups: Option<&'a str>) -> register::Begun<'a> {
        register::Begun {
            id: &session.id,
            issuer: self.provider.issuer(),
            sub: &session.person.sub,
            idp_sid: session.idp_sid.as_deref(),
            email: session.person.email.as_deref(),
            surface: session.surface.as_deref(),
            client_ip: &session.client_ip,
            generation: session.generation,
            began: session.began,
            groups,
        }
    }

    /// Leaves a session the groups that its bearers can carry. When that is not all of them: the whole list as JSON, for the
    /// session's row.
    pub(super) fn fit_into_bearer(&self, session: &mut Session) -> Option<String> {
        let fitting = self.bearers.fitting(&session.principal())?;
        if session.person.all_groups.is_some() {
            // A part already, of a list that the row has.
            session.person.groups = fitting;
            return None;
        }
        let all = serde_json::to_string(&session.person.groups).ok()?;
        session.person.all_groups = Some(digest_of(&all));
        session.person.groups = fitting;
        Some(all)
    }

    fn first_tokens(&self, session: &Session) -> Result<Tokens, SealError> {
        let sealed = session.provider_token.is_some().then(|| self.sealed(session)).transpose()?;
        Ok(self.tokens(session, sealed))
    }

    pub(super) fn tokens(&self, session: &Session, sealed: Option<String>) -> Tokens {
        let all_groups = session.person.all_groups.as_deref();
        let bearer = self.bearers.issue_part(&session.principal(), all_groups, self.clock.now());
        Tokens { bearer, refresh_token: sealed.map(SecretString::from), email: session.person.email.clone() }
    }

    pub(super) fn is_revoked(&self, session: &Session) -> bool {
        self.sessions.revoked().covers_session(&session.id, &session.person.sub, session.began)
    }

    pub(super) fn sealed(&self, session: &Session) -> Result<String, SealError> {
        self.seals.seal(Purpose::RefreshToken, &self.refresh_place(), session)
    }

    pub(super) fn opened(&self, refresh_token: &str) -> Result<Session, SealError> {
        self.seals.open(Purpose::RefreshToken, &self.refresh_place(), refresh_token)
    }

    /// A refresh token of one provider and client is never sent to another, whatever the configuration becomes.
    fn refresh_place(&self) -> String {
        format!("{} {}", self.provider.issuer(), self.provider.client_id())
    }
}
