//! Refresh: a sealed refresh token for a new bearer and the token's successor, as long as the provider agrees.
//!
//! Each use rotates the token. Terminals that share a credential file use one token at the same time: all of them get
//! what the first one got, and the provider is asked once. The asking runs in a task of its own, because a client that
//! hangs up must not cost the provider's next refresh token.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use tokio::sync::watch;

use super::tokens::{Session, Tokens};
use super::{Asker, SignIn};
use crate::audit::Event;
use crate::identity::oidc::{Failure, Fault, Person};
use crate::identity::session::ending::{By, Whose, Why};
use crate::identity::session::register::{Claim, GRACE, Rotation, Turn};

/// A refresh token of ours whose session is not known to be over.
pub struct Presented(Session);

/// No new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The token is not ours, its session has ended, or the provider or a sign-in rule says no: the person must sign in
    /// again.
    #[error("the session cannot be refreshed any more")]
    Ended,
    /// The provider is slow or down: the same token is good later.
    #[error("the identity provider does not answer")]
    Unavailable,
}

/// What a refresh token becomes.
struct Successor {
    session: Session,
    sealed: String,
}

/// Why it becomes nothing, for the audit.
#[derive(Debug, Clone)]
struct Refusal {
    error: RefreshError,
    step: &'static str,
    detail: String,
}

type Landing = Result<Arc<Successor>, Refusal>;
type Landed = watch::Receiver<Option<Landing>>;

/// The refreshes under way in this replica, and those of the last minute: by session and generation.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<(String, i64), Flight>>);

struct Flight {
    landed: Landed,
    /// Unix milliseconds.
    began: i64,
}

/// An [`Asker`] that outlives its request.
struct LastingAsker {
    request_id: String,
    client_ip: IpAddr,
}

impl Presented {
    /// The session's id: what uses are counted by.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.0.id
    }
}

impl SignIn {
    /// Opens a refresh token, without asking anybody.
    ///
    /// # Errors
    /// [`RefreshError::Ended`] when it is not ours, or its session is known to be over.
    pub fn present(&self, refresh_token: &str, asker: Asker<'_>) -> Result<Presented, RefreshError> {
        let Ok(session) = self.opened(refresh_token) else {
            return Err(self.refuse_refresh(None, &Refusal::ended("token", "refresh token is not one of ours"), asker));
        };
        let over = if self.is_revoked(&session) {
            Some(("session", "the session has ended"))
        } else if self.sessions.overdue(session.began, session.issued).is_some() {
            Some(("session", "the session was idle for too long, or is too old"))
        } else if session.provider_token.is_none() {
            Some(("token", "the provider gave no refresh token"))
        } else {
            None
        };
        match over {
            Some((step, detail)) => Err(self.refuse_refresh(Some(&session), &Refusal::ended(step, detail), asker)),
            None => Ok(Presented(session)),
        }
    }

    /// New tokens for a refresh token of ours.
    ///
    /// # Errors
    /// Whether a later attempt can succeed.
    pub async fn refresh(
        self: &Arc<Self>,
        Presented(session): Presented,
        asker: Asker<'_>,
    ) -> Result<Tokens, RefreshError> {
        let key = (session.id.clone(), session.generation);
        let (mut landed, departs) = self.flights.board(key.clone(), self.clock.now().as_millisecond());
        let leads = departs.is_some();
        if let Some(land) = departs {
            let (this, session) = (Arc::clone(self), session.clone());
            let asker = LastingAsker { request_id: asker.request_id.to_owned(), client_ip: asker.client_ip };
            self.tasks.spawn(async move {
                let landing = this.renew(&session, asker.lend()).await;
                // Before anybody waiting hears of it: the client may be gone.
                this.record_landing(&session, &landing, asker.lend());
                if landing.is_err() {
                    this.flights.forget(&key);
                }
                land.send_replace(Some(landing));
            });
        }
        let landing = match landed.wait_for(Option::is_some).await {
            Ok(landing) => landing.clone(),
            Err(_) => None,
        };
        let landing = landing.unwrap_or_else(|| Err(Refusal::unavailable("the refresh broke off")));
        if !leads {
            self.record_landing(&session, &landing, asker);
        }
        let successor = landing.map_err(|refusal| refusal.error)?;
        Ok(self.tokens(&successor.session, Some(successor.sealed.clone())))
    }

    async fn renew(&self, session: &Session, asker: Asker<'_>) -> Landing {
        let claim = match self.sessions.turn(&session.id, session.generation).await {
            Ok(Turn::Ours(claim)) => Some(claim),
            Ok(Turn::Done(sealed)) => return self.same_again(sealed),
            Ok(Turn::Reused) => return Err(self.stolen(session, asker).await),
            Ok(Turn::Ended) => return Err(Refusal::ended("session", "the session has ended")),
            Ok(Turn::Busy) => return Err(Refusal::unavailable("another replica is still asking the provider")),
            // What is sealed suffices; what the database would have said is caught up with later.
            Err(error) => {
                tracing::warn!("a session is refreshed without its record: {error}");
                None
            }
        };
        let token = SecretString::from(session.provider_token.clone().unwrap_or_default());
        match self.provider.refresh(&token, &self.last_known(session).await).await {
            Ok(signed_in) => {
                self.tell_claim_names(&signed_in, asker);
                self.succeed(session, session.clone().refreshed(signed_in, self.clock.now())).await
            }
            Err(failure) => Err(self.not_renewed(session, claim, failure, asker).await),
        }
    }

    /// The person as last known, with all groups while the database answers.
    async fn last_known(&self, session: &Session) -> Person {
        let person = session.person.clone();
        let Some(digest) = &person.all_groups else { return person };
        match self.sessions.groups_of(&session.id, digest).await {
            Some(groups) => Person { groups, all_groups: None, ..person },
            None => person,
        }
    }

    async fn succeed(&self, session: &Session, mut next: Session) -> Landing {
        let mut groups = self.fit_into_bearer(&mut next);
        if next.person.all_groups.is_none() && session.person.all_groups.is_some() {
            // They all fit now: what the row has is of no more use.
            groups = Some("[]".to_owned());
        }
        let sealed = self.sealed(&next).map_err(|error| Refusal::unavailable(error.to_string()))?;
        let rotation = Rotation {
            id: next.id.clone(),
            used: session.generation,
            email: next.person.email.clone(),
            groups,
            sealed: sealed.clone(),
            at: next.issued,
        };
        if self.sessions.rotated(rotation).await {
            return Ok(Arc::new(Successor { session: next, sealed }));
        }
        match self.sessions.turn(&session.id, session.generation).await {
            Ok(Turn::Done(sealed)) => self.same_again(sealed),
            _ => Err(Refusal::ended("session", "the session has ended")),
        }
    }

    fn same_again(&self, sealed: String) -> Landing {
        let opened = self.opened(&sealed);
        let session = opened.map_err(|_| Refusal::ended("token", "the successor's secret was dropped"))?;
        Ok(Arc::new(Successor { session, sealed }))
    }

    async fn stolen(&self, session: &Session, asker: Asker<'_>) -> Refusal {
        let event = Event::SessionReuse {
            session: &session.id,
            sub: &session.person.sub,
            email: session.person.email.as_deref(),
            client_ip: &asker.client_ip.to_string(),
            generation: session.generation,
        };
        self.record(asker, &event);
        self.end_session(&session.id, Why::Reuse, asker).await;
        Refusal::ended("session", "the refresh token was used before")
    }

    async fn not_renewed(
        &self,
        session: &Session,
        claim: Option<Claim>,
        failure: Failure,
        asker: Asker<'_>,
    ) -> Refusal {
        let (error, step) = match failure.fault {
            Fault::Unavailable => (RefreshError::Unavailable, "token_endpoint"),
            Fault::Grant => (RefreshError::Ended, "token_endpoint"),
            Fault::Claims | Fault::Rule(_) | Fault::OtherPerson => (RefreshError::Ended, "claims"),
        };
        // Who was only refused keeps the bearer until it expires; a person who has become another does not.
        if failure.fault == Fault::OtherPerson {
            self.end_session(&session.id, Why::OtherPerson, asker).await;
        } else if let Some(claim) = claim {
            self.sessions.release(&session.id, claim).await;
        }
        Refusal { error, step, detail: failure.detail }
    }

    /// The refusal stands whether or not it can be recorded.
    async fn end_session(&self, id: &str, why: Why, asker: Asker<'_>) {
        if let Err(error) = self.sessions.end(Whose::One(id), why, asker.by()).await {
            tracing::warn!("a session that cannot be refreshed any more is not ended yet: {error}");
        }
    }

    fn record_landing(&self, session: &Session, landing: &Landing, asker: Asker<'_>) {
        match landing {
            Ok(successor) => {
                let person = &successor.session.person;
                let event = Event::SessionRefresh {
                    result: "success",
                    sub: Some(&person.sub),
                    email: person.email.as_deref(),
                    client_ip: &asker.client_ip.to_string(),
                    ttl_hours: self.ttl_hours(),
                    err: None,
                    step: None,
                    answer: None,
                    session: Some(&session.id),
                };
                self.record(asker, &event);
            }
            Err(refusal) => {
                self.refuse_refresh(Some(session), refusal, asker);
            }
        }
    }

    fn refuse_refresh(&self, session: Option<&Session>, refusal: &Refusal, asker: Asker<'_>) -> RefreshError {
        let answer = match refusal.error {
            RefreshError::Ended => "invalid_grant",
            RefreshError::Unavailable => "temporarily_unavailable",
        };
        let event = Event::SessionRefresh {
            result: "fail",
            sub: session.map(|session| session.person.sub.as_str()),
            email: session.and_then(|session| session.person.email.as_deref()),
            client_ip: &asker.client_ip.to_string(),
            ttl_hours: None,
            err: Some(&refusal.detail),
            step: Some(refusal.step),
            answer: Some(answer),
            session: session.map(|session| session.id.as_str()),
        };
        self.record(asker, &event);
        refusal.error
    }
}

impl Refusal {
    fn ended(step: &'static str, detail: &str) -> Self {
        Self { error: RefreshError::Ended, step, detail: detail.to_owned() }
    }

    fn unavailable(detail: impl Into<String>) -> Self {
        Self { error: RefreshError::Unavailable, step: "session", detail: detail.into() }
    }
}

impl Flights {
    /// A seat on the flight of that generation; with the means to land it for who must fly it.
    fn board(&self, key: (String, i64), now: i64) -> (Landed, Option<watch::Sender<Option<Landing>>>) {
        let grace = i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX);
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.began > now.saturating_sub(grace));
        match flights.entry(key) {
            Entry::Occupied(flight) => (flight.get().landed.clone(), None),
            Entry::Vacant(place) => {
                let (land, landed) = watch::channel(None);
                place.insert(Flight { landed: landed.clone(), began: now });
                (landed, Some(land))
            }
        }
    }

    fn forget(&self, key: &(String, i64)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

impl LastingAsker {
    fn lend(&self) -> Asker<'_> {
        Asker { request_id: &self.request_id, client_ip: self.client_ip }
    }
}

impl<'a> Asker<'a> {
    pub(super) fn by(self) -> By<'a> {
        By { request_id: Some(self.request_id), client_ip: Some(self.client_ip), actor: None }
    }
}
