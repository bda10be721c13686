//! Sign-in: from a device's request, through a person's decision in a browser and at the provider, to tokens; and the
//! refresh of these tokens.
//!
//! 1. [`SignIn::begin`]: the device gets its codes. 2. [`SignIn::look_up`]: the page shows who asked.
//! 3. [`SignIn::confirm`] or [`SignIn::deny`]: the person decides; a yes sends the browser to the provider, bound to it by
//!    a cookie. 4. [`SignIn::returned`] and [`SignIn::complete`]: the browser is back, the grant is approved or denied.
//! 5. [`SignIn::redeem`]: the device collects. 6. [`SignIn::refresh`]: as long as the provider agrees.
//! 7. [`SignIn::revoke`] or [`SignIn::backchannel_logout`]: it is over.
//!
//! Says what happened to the audit; knows nothing of routes, pages or cookies' names.

mod logout;
mod refresh;
mod state;
mod tokens;

use std::net::IpAddr;
use std::sync::Arc;

use secrecy::SecretString;
use tokio_util::task::TaskTracker;

pub use self::logout::Logout;
use self::refresh::Flights;
pub use self::refresh::{Presented, RefreshError};
use self::state::LoginState;
pub use self::tokens::{Redemption, Tokens};
use super::chance::NoChance;
use super::device_grant::{Begun, DeviceGrants, GrantError, NotPending, Pending, UserCode};
use super::oidc::{DiscoveryError, Failure, Fault, RelyingParty, Rule, SignedIn};
use super::seal::{Purpose, SealError, Seals};
use super::session::Bearers;
use super::session::register::Sessions;
use super::{OidcConfig, SessionConfig};
use crate::audit::{AuditLog, Event};
use crate::clock::Clock;
use crate::connect::Egress;
use crate::store::{Store, StoreError};

/// What sign-in is built from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The provider and the rules.
    pub oidc: OidcConfig,
    /// Secrets and life of what is issued.
    pub session: SessionConfig,
    /// Every group that some rule of the configuration names: see [`Bearers::keeping_groups`].
    pub named_groups: Vec<String>,
}

/// The sign-in of one gateway.
#[derive(Debug)]
pub struct SignIn {
    provider: RelyingParty,
    store: Store,
    grants: DeviceGrants,
    sessions: Sessions,
    /// Refreshes, which outlive their requests.
    flights: Flights,
    tasks: TaskTracker,
    seals: Arc<Seals>,
    bearers: Arc<Bearers>,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
}

/// Who asks, for the audit.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The answer's `x-request-id`.
    pub request_id: &'a str,
    /// The client's address.
    pub client_ip: IpAddr,
}

/// Where a browser is sent, and what it must bring back.
#[derive(Debug)]
pub struct Departure {
    /// The provider's authorization endpoint with the request in it.
    pub url: String,
    /// Tells this attempt from others in the same browser; fits into a cookie's name.
    pub attempt: String,
    /// What the browser must present with the answer.
    pub binding: SecretString,
}

/// A browser came back with a `state` that we sealed.
#[derive(Debug)]
pub struct Returned(LoginState);

/// The parameters of the provider's answer (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Debug, Default)]
pub struct ProviderAnswer {
    /// `code`.
    pub code: Option<String>,
    /// `error`.
    pub error: Option<String>,
    /// `error_description`.
    pub error_description: Option<String>,
    /// `iss`.
    pub iss: Option<String>,
}

/// How a sign-in ended in the browser.
#[derive(Debug, PartialEq, Eq)]
pub enum Completion {
    /// The device may collect.
    SignedIn {
        /// The person's e-mail address, when known.
        email: Option<String>,
    },
    /// Another browser than the one that confirmed the code; that one can still finish.
    BrowserMismatch,
    /// The grant was decided or has expired meanwhile.
    NotPending,
    /// The provider answered with an error; the grant is denied.
    ProviderError {
        /// Its code.
        error: String,
        /// Its words.
        description: Option<String>,
    },
    /// The sign-in cannot be accepted; the grant is denied. The details are for the audit only.
    Refused(Cause),
}

/// Why a sign-in was not accepted, as far as it helps the person to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The provider is slow or down, or broken.
    ProviderUnavailable,
    /// The provider did not take the code that it had given.
    CodeRefused,
    /// The provider's answer is not one that can be believed.
    BadAnswer,
    /// An e-mail address is needed, and the provider told none.
    EmailMissing,
    /// The provider says that the e-mail address is not verified.
    EmailUnverified,
    /// The e-mail address is of another domain than may sign in.
    EmailDomain,
    /// The person is in none of the groups that may sign in.
    Group,
}

impl Cause {
    /// The word for it in audit events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProviderUnavailable => "idp_unavailable",
            Self::CodeRefused => "code_refused",
            Self::BadAnswer => "id_token",
            Self::EmailMissing => "email_missing",
            Self::EmailUnverified => "email_unverified",
            Self::EmailDomain => "email_domain",
            Self::Group => "group",
        }
    }
}

impl From<Fault> for Cause {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unavailable => Self::ProviderUnavailable,
            Fault::Grant => Self::CodeRefused,
            Fault::Claims | Fault::OtherPerson => Self::BadAnswer,
            Fault::Rule(Rule::EmailPresent) => Self::EmailMissing,
            Fault::Rule(Rule::EmailVerified) => Self::EmailUnverified,
            Fault::Rule(Rule::EmailDomain) => Self::EmailDomain,
            Fault::Rule(Rule::Group) => Self::Group,
        }
    }
}

/// The `state` is missing, forged or too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link has expired")]
pub struct BadState;

/// Sign-in cannot be served now.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The store gives no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    NoChance(#[from] NoChance),
    /// A key cannot be derived or used.
    #[error("nothing can be sealed under the session secrets")]
    Seal,
    /// The provider cannot be used.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// Every user code that was drawn is taken.
    #[error("no user code is free")]
    NoFreeCode,
}

impl From<SealError> for SignInError {
    fn from(_: SealError) -> Self {
        Self::Seal
    }
}

impl From<GrantError> for SignInError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Store(error) => Self::Store(error),
            GrantError::NoChance(error) => Self::NoChance(error),
            GrantError::Unreadable(_) => Self::Seal,
            GrantError::NoFreeCode => Self::NoFreeCode,
        }
    }
}

impl SignIn {
    /// Asks the provider for its discovery document.
    ///
    /// # Errors
    /// When the provider cannot be used.
    pub async fn open(
        config: Config,
        store: Store,
        egress: Egress,
        audit: AuditLog,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SignInError> {
        let seals = Arc::new(Seals::new(&config.session.secrets)?);
        let origin = config.session.issuer.clone();
        let provider = RelyingParty::discover(config.oidc, &origin, egress, Arc::clone(&clock)).await?;
        let lasting = config.session.lasting;
        let sessions = Sessions::open(store.clone(), Arc::clone(&clock), audit.clone(), lasting).await?;
        let bearers = Bearers::new(config.session).keeping_groups(config.named_groups);
        let bearers = Arc::new(bearers.heeding(Arc::clone(sessions.revoked())));
        Ok(Self {
            provider,
            grants: DeviceGrants::new(store.clone(), Arc::clone(&seals)),
            store,
            sessions,
            flights: Flights::default(),
            tasks: TaskTracker::new(),
            seals,
            bearers,
            audit,
            clock,
        })
    }

    /// Puts the tasks that outlive their requests where the shutdown waits for them.
    #[must_use]
    pub fn tracked_by(self, tasks: TaskTracker) -> Self {
        Self { tasks, ..self }
    }

    /// The register of what is signed in.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What verifies the bearers that this sign-in issues.
    #[must_use]
    pub fn bearers(&self) -> &Arc<Bearers> {
        &self.bearers
    }

    /// The origin that [`Departure::url`] leads to, such as `https://idp.example`. It may change within a day.
    #[must_use]
    pub fn provider_origin(&self) -> String {
        self.provider.authorization_origin()
    }

    /// A device asks to be signed in. `surface` is how it names itself.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn begin(&self, surface: Option<&str>, asker: Asker<'_>) -> Result<Begun, SignInError> {
        let begun = self.grants.begin(surface, asker.client_ip, self.clock.now()).await?;
        let client_ip = asker.client_ip.to_string();
        let flow = Some(begun.flow.as_str());
        self.record(asker, &Event::DeviceAuthorize { result: "success", client_ip: &client_ip, flow, surface });
        Ok(begun)
    }

    /// The grant that waits for this code, for the person to see who asked.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn look_up(&self, code: &UserCode) -> Result<Option<Pending>, SignInError> {
        Ok(self.grants.find_by_user_code(code, self.clock.now()).await?)
    }

    /// The person says that the code is theirs; `None` when no grant waits for it. Nothing is approved yet.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn confirm(&self, code: Option<&UserCode>, asker: Asker<'_>) -> Result<Option<Departure>, SignInError> {
        let Some(grant) = self.waiting(code, asker).await? else { return Ok(None) };
        let (login, binding) = LoginState::begin(&grant, self.provider.uses_pkce(), self.clock.now())?;
        let state = self.seals.seal(Purpose::LoginState, "", &login)?;
        let url = self.provider.authorization_url(&state, &login.nonce, login.challenge().as_deref());
        let client_ip = asker.client_ip.to_string();
        self.record(asker, &Event::DeviceVerify { result: "redirect", client_ip: &client_ip, flow: Some(&grant.flow) });
        Ok(Some(Departure { url: url.into(), attempt: login.attempt, binding }))
    }

    /// The person says that the code is not theirs; `false` when no grant waits for it.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn deny(&self, code: Option<&UserCode>, asker: Asker<'_>) -> Result<bool, SignInError> {
        let Some(grant) = self.waiting(code, asker).await? else { return Ok(false) };
        let (from, at, flow) = (grant.client_ip.clone(), grant.created_at.to_string(), grant.flow.clone());
        let client_ip = asker.client_ip.to_string();
        match self.grants.deny(grant, self.clock.now()).await? {
            Err(NotPending) => {
                let result = "unknown_code";
                self.record(asker, &Event::DeviceVerify { result, client_ip: &client_ip, flow: Some(&flow) });
                Ok(false)
            }
            Ok(()) => {
                self.record(
                    asker,
                    &Event::DeviceDeny {
                        result: "denied",
                        client_ip: &client_ip,
                        requested_from: &from,
                        requested_at: &at,
                        flow: Some(&flow),
                    },
                );
                Ok(true)
            }
        }
    }

    /// The browser is back: opens its `state`, which says which attempt it belongs to.
    ///
    /// # Errors
    /// When the state is missing, forged or expired: no grant is touched.
    pub fn returned(&self, state: Option<&str>, asker: Asker<'_>) -> Result<Returned, BadState> {
        let opened = self.seals.open::<LoginState>(Purpose::LoginState, "", state.unwrap_or_default());
        let (reason, err, flow) = match (opened, state) {
            (Ok(login), _) if login.is_fresh(self.clock.now()) => return Ok(Returned(login)),
            (Ok(login), _) => ("state_expired", "state is older than the device code", Some(login.flow)),
            (Err(_), None) => ("state_invalid", "state is missing", None),
            (Err(_), Some(_)) => ("state_invalid", "state is not one of ours", None),
        };
        let client_ip = asker.client_ip.to_string();
        self.record(asker, &Event::SignInFailed { reason, client_ip: &client_ip, err, flow: flow.as_deref() });
        Err(BadState)
    }

    /// Ends the sign-in. `binding` is what the browser presented for [`Returned::attempt`].
    ///
    /// # Errors
    /// When the store gives no answer: the grant stays pending.
    pub async fn complete(
        &self,
        returned: Returned,
        binding: Option<&str>,
        answer: ProviderAnswer,
        asker: Asker<'_>,
    ) -> Result<Completion, SignInError> {
        let login = returned.0;
        let client_ip = asker.client_ip.to_string();
        if !login.is_bound_to(binding) {
            let flow = Some(login.flow.as_str());
            self.record(asker, &Event::DeviceCallback { result: "browser_mismatch", client_ip: &client_ip, flow });
            return Ok(Completion::BrowserMismatch);
        }
        let Some(grant) = self.grants.find(&login.grant, self.clock.now()).await? else {
            return Ok(Completion::NotPending);
        };
        if let Some(error) = answer.error {
            let flow = Some(grant.flow.as_str());
            let (reason, err) = ("idp_error", error.as_str());
            self.record(asker, &Event::SignInFailed { reason, client_ip: &client_ip, err, flow });
            // Who was already denied stays so.
            let _ = self.grants.deny(grant, self.clock.now()).await?;
            return Ok(Completion::ProviderError { error, description: answer.error_description });
        }
        match self.ask_provider(&login, &answer, asker).await {
            Ok(signed_in) => self.approve(grant, signed_in, asker).await,
            Err(failure) => self.refuse(grant, failure, asker).await,
        }
    }

    /// Removes expired grants, ends overdue sessions and removes those that ended long ago, and reads the provider's discovery
    /// document again once a day; called now and then.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn sweep(&self) -> Result<u64, SignInError> {
        self.provider.keep_current().await;
        let grants = self.grants.sweep(self.clock.now()).await?;
        Ok(grants + self.sessions.sweep().await?)
    }

    async fn waiting(&self, code: Option<&UserCode>, asker: Asker<'_>) -> Result<Option<Pending>, SignInError> {
        let found = match code {
            Some(code) => self.look_up(code).await?,
            None => None,
        };
        if found.is_none() {
            let client_ip = asker.client_ip.to_string();
            self.record(asker, &Event::DeviceVerify { result: "unknown_code", client_ip: &client_ip, flow: None });
        }
        Ok(found)
    }

    async fn ask_provider(
        &self,
        login: &LoginState,
        answer: &ProviderAnswer,
        asker: Asker<'_>,
    ) -> Result<SignedIn, Failure> {
        // RFC 9207: an answer of another issuer must not have its code sent to this one.
        if answer.iss.as_deref().is_some_and(|issuer| issuer != self.provider.issuer()) {
            return Err(Failure::new(Fault::Claims, "the answer's iss is another issuer"));
        }
        let code = answer.code.as_deref().ok_or_else(|| Failure::new(Fault::Claims, "the answer has no code"))?;
        let signed_in = self.provider.exchange(code, login.verifier.as_deref(), &login.nonce).await?;
        self.tell_claim_names(&signed_in, asker);
        Ok(signed_in)
    }

    async fn approve(&self, grant: Pending, signed_in: SignedIn, asker: Asker<'_>) -> Result<Completion, SignInError> {
        let session = tokens::Session::begin(signed_in, &grant, self.clock.now())?;
        let (flow, surface) = (grant.flow.clone(), grant.surface.clone());
        let approved = self.grants.approve(grant, &session, self.clock.now()).await?;
        if approved == Err(NotPending) {
            return Ok(Completion::NotPending);
        }
        self.record(
            asker,
            &Event::SessionMint {
                result: "success",
                sub: Some(&session.person.sub),
                email: session.person.email.as_deref(),
                client_ip: &asker.client_ip.to_string(),
                ttl_hours: self.ttl_hours(),
                reason: None,
                err: None,
                flow: Some(&flow),
                surface: surface.as_deref(),
                session: Some(&session.id),
            },
        );
        Ok(Completion::SignedIn { email: session.person.email })
    }

    async fn refuse(&self, grant: Pending, failure: Failure, asker: Asker<'_>) -> Result<Completion, SignInError> {
        let cause = Cause::from(failure.fault);
        self.record(
            asker,
            &Event::SessionMint {
                result: "fail",
                sub: failure.who.as_ref().map(|who| who.sub.as_str()),
                email: failure.who.as_ref().and_then(|who| who.email.as_deref()),
                client_ip: &asker.client_ip.to_string(),
                ttl_hours: None,
                reason: Some(cause.as_str()),
                err: Some(&failure.detail),
                flow: Some(&grant.flow),
                surface: grant.surface.as_deref(),
                session: None,
            },
        );
        let _ = self.grants.deny(grant, self.clock.now()).await?;
        Ok(Completion::Refused(cause))
    }

    fn tell_claim_names(&self, signed_in: &SignedIn, asker: Asker<'_>) {
        let names = &signed_in.claim_names;
        tracing::debug!("oidc id_token claim names request_id={}: {names}", asker.request_id);
    }

    /// Whole hours are written as such.
    fn ttl_hours(&self) -> Option<serde_json::Number> {
        let seconds = self.bearers.ttl_seconds();
        let millionths = seconds % 3600 * 1_000_000 / 3600;
        let text =
            if millionths == 0 { (seconds / 3600).to_string() } else { format!("{}.{millionths:06}", seconds / 3600) };
        text.parse().ok()
    }

    fn record(&self, asker: Asker<'_>, event: &Event<'_>) {
        self.audit.emit(Some(asker.request_id), event);
    }
}

impl Returned {
    /// [`Departure::attempt`] of the attempt that this answers.
    #[must_use]
    pub fn attempt(&self) -> &str {
        &self.0.attempt
    }
}

#[cfg(test)]
mod tests;
