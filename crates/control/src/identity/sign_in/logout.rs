//! The ends of a session that its own side asks for: the client's revocation (RFC 7009) and the provider's back-channel
//! logout.

use super::{Asker, SignIn, SignInError};
use crate::identity::oidc::LogoutError;
use crate::identity::session::ending::{Whose, Why};

/// What became of a logout token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logout {
    /// Whoever it names is signed out.
    Done,
    /// It is not to be obeyed, for the reason given.
    Refused(String),
    /// The provider's keys cannot be had now: a later attempt may succeed.
    Unavailable,
}

impl SignIn {
    /// Ends the session of a bearer or refresh token. One that is not ours, has expired or belongs to no session is
    /// nobody's business (RFC 7009, section 2.2).
    ///
    /// # Errors
    /// When the store gives no answer: the session goes on.
    pub async fn revoke(&self, token: &str, asker: Asker<'_>) -> Result<(), SignInError> {
        let id = match self.opened(token) {
            Ok(session) => Some(session.id),
            Err(_) => self.bearers.verify(token, self.clock.now()).ok().and_then(|principal| principal.session),
        };
        if let Some(id) = id {
            self.sessions.end(Whose::One(&id), Why::SignedOut, asker.by()).await?;
        }
        Ok(())
    }

    /// Obeys a logout token of the provider (OpenID Connect Back-Channel Logout 1.0): ends the sessions that began in the
    /// provider's session, or all of the person when it names none.
    ///
    /// # Errors
    /// When the store gives no answer: the sessions go on.
    pub async fn backchannel_logout(&self, token: &str, asker: Asker<'_>) -> Result<Logout, SignInError> {
        let logout = match self.provider.logged_out(token).await {
            Ok(logout) => logout,
            Err(LogoutError::Invalid(why)) => return Ok(Logout::Refused(why)),
            Err(LogoutError::Unavailable(error)) => {
                tracing::warn!("a logout token cannot be verified now: {error}");
                return Ok(Logout::Unavailable);
            }
        };
        let issuer = self.provider.issuer();
        let whose = match (logout.sid.as_deref(), logout.sub.as_deref()) {
            (Some(sid), sub) => Whose::IdpSession { issuer, sid, sub },
            (None, Some(sub)) => Whose::IdpSubject { issuer, sub },
            (None, None) => return Ok(Logout::Refused("logout_token names nobody".to_owned())),
        };
        let remembered = (logout.token.as_str(), logout.expires.saturating_mul(1000));
        match self.sessions.end_by_token(remembered, whose, asker.by()).await? {
            Some(_) => Ok(Logout::Done),
            None => Ok(Logout::Refused("logout_token was sent before".to_owned())),
        }
    }
}
