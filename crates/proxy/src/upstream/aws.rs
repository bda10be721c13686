//! What the providers on Amazon share: credentials from wherever Amazon's tools look for them, roles to assume, and
//! signatures.

mod fault;
mod http_client;
mod sign;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use control::clock::Clock;
use control::connect::{Egress, chain};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::cloud::Unsigned;
use super::renewed::{Fresh, NoCredential, Renewed};
use super::{Caller, Invalid};
use http_client::OurClient;

/// Sessions of developers that are kept; the ones that have ended go first.
const MAX_SESSIONS: usize = 4096;

/// Where and as whom to sign.
#[derive(Debug, Clone)]
pub struct AwsConfig {
    /// `region`.
    pub region: String,
    /// `auth`.
    pub credential: AwsCredential,
    /// `assume_role`; not together with a bearer token.
    pub assume_role: Option<AssumeRole>,
}

/// `auth` of an upstream on Amazon.
#[derive(Debug, Clone)]
pub enum AwsCredential {
    /// `{}`: what Amazon's tools would use here: environment, profile, SSO, web identity, container, instance.
    Chain(AwsChain),
    /// `aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`.
    Keys {
        /// Which key.
        id: String,
        /// The key.
        secret: SecretString,
        /// What a temporary key needs beside it.
        session_token: Option<SecretString>,
    },
    /// `aws_bearer_token`: sent as `Authorization: Bearer`.
    Bearer(SecretString),
}

/// The variables of the environment that the log names when Amazon's chain has no credentials, as plain values; its library
/// reads them by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsChain {
    /// `AWS_PROFILE`.
    pub profile: Option<String>,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub container_url: Option<String>,
}

/// `assume_role`: a role that is used in place of the credential itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumeRole {
    /// `role_arn`.
    pub role_arn: String,
    /// `external_id`.
    pub external_id: Option<String>,
    /// `session_name`: whom Amazon's logs name; left out, the gateway.
    pub session_name: Option<SessionName>,
}

/// What a developer's session is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionName {
    /// `email`: the address, else the subject.
    Email,
    /// `sub`: the subject.
    Sub,
}

/// How requests to one upstream on Amazon are authorized.
#[derive(Debug)]
pub(super) enum Authority {
    /// A fixed header.
    Header(HeaderName, HeaderValue),
    Signed(Box<Signer>),
}

/// Signs for one service in one region.
#[derive(Debug)]
pub(super) struct Signer {
    service: &'static str,
    /// Out of the configuration; `None`: from the chain.
    keys: Option<Arc<Credentials>>,
    chain: Renewed<Credentials>,
    environment: AwsChain,
    role: Option<Role>,
    amazon: Amazon,
    clock: Arc<dyn Clock>,
}

/// Amazon's own settings - environment, profiles - read anew whenever credentials are fetched: whoever signs in again or
/// changes a key need not restart us.
struct Amazon {
    region: String,
    client: SharedHttpClient,
}

#[derive(Debug)]
struct Role {
    config: AssumeRole,
    /// By session name.
    sessions: Mutex<HashMap<String, Arc<Renewed<Credentials>>>>,
}

impl Authority {
    /// For the upstream `name` and Amazon's name of the service.
    ///
    /// # Errors
    /// [`Invalid::Credential`].
    pub(super) fn new(
        name: &str,
        config: AwsConfig,
        service: &'static str,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Invalid> {
        let AwsConfig { region, credential, assume_role } = config;
        let (keys, environment) = match credential {
            AwsCredential::Bearer(token) => {
                return Self::header(name, AUTHORIZATION, &format!("Bearer {}", token.expose_secret()).into());
            }
            AwsCredential::Keys { id, secret, session_token } => {
                let token = session_token.map(|token| token.expose_secret().to_owned());
                let keys = Credentials::new(id, secret.expose_secret(), token, None, "configuration");
                (Some(Arc::new(keys)), AwsChain::default())
            }
            AwsCredential::Chain(environment) => (None, environment),
        };
        let client = SharedHttpClient::new(OurClient::new(egress));
        Ok(Self::Signed(Box::new(Signer {
            service,
            keys,
            chain: Renewed::new(Arc::clone(clock)),
            environment,
            role: assume_role.map(|config| Role { config, sessions: Mutex::default() }),
            amazon: Amazon { region, client },
            clock: Arc::clone(clock),
        })))
    }

    /// A credential that is a header as it is.
    ///
    /// # Errors
    /// [`Invalid::Credential`].
    pub(super) fn header(name: &str, header: HeaderName, secret: &SecretString) -> Result<Self, Invalid> {
        let value = HeaderValue::from_str(secret.expose_secret());
        let mut value = value.map_err(|_| Invalid::Credential(name.to_owned()))?;
        value.set_sensitive(true);
        Ok(Self::Header(header, value))
    }

    /// Puts the credential into a request that is otherwise complete.
    ///
    /// # Errors
    /// When there is none, or the request cannot be signed.
    pub(super) async fn authorize(&self, request: &mut Unsigned, caller: &Caller<'_>) -> Result<(), NoCredential> {
        match self {
            Self::Header(name, value) => {
                request.headers.insert(name.clone(), value.clone());
                Ok(())
            }
            Self::Signed(signer) => signer.sign(request, caller).await,
        }
    }

    /// As [`super::cloud::Provider::refused`].
    pub(super) fn refused(&self, shown: &HeaderValue, caller: &Caller<'_>) -> bool {
        matches!(self, Self::Signed(signer) if signer.refused(shown, caller))
    }
}

impl Signer {
    async fn sign(&self, request: &mut Unsigned, caller: &Caller<'_>) -> Result<(), NoCredential> {
        let credentials = match &self.role {
            None => self.own().await?,
            Some(role) => self.assumed(role, caller).await?,
        };
        sign::sign(request, &credentials, &self.amazon.region, self.service, self.clock.now())
            .map_err(|error| NoCredential(format!("the request cannot be signed: {}", chain(&*error))))
    }

    fn refused(&self, shown: &HeaderValue, caller: &Caller<'_>) -> bool {
        // A signature names the key, which is another one in each set of temporary keys.
        let shown = shown.to_str().unwrap_or_default();
        let is_shown = |keys: &Credentials| shown.contains(&format!("Credential={}/", keys.access_key_id()));
        match &self.role {
            None => self.chain.refused(is_shown),
            Some(role) => role.kept(&role.config.session_name(caller)).is_some_and(|session| session.refused(is_shown)),
        }
    }

    /// The credential that the configuration names.
    async fn own(&self) -> Result<Arc<Credentials>, NoCredential> {
        match &self.keys {
            Some(keys) => Ok(Arc::clone(keys)),
            None => self.chain.get(self.ask_chain()).await,
        }
    }

    async fn ask_chain(&self) -> Result<Fresh<Credentials>, NoCredential> {
        let settings = self.amazon.settings().await;
        let provider = settings.credentials_provider().ok_or_else(|| NoCredential("no chain to ask".to_owned()))?;
        let provided = self.fresh(provider.provide_credentials().await);
        provided.map_err(|NoCredential(why)| NoCredential(fault::explained(&self.environment, &why)))
    }

    /// The session of the role that stands for the caller.
    async fn assumed(&self, role: &Role, caller: &Caller<'_>) -> Result<Arc<Credentials>, NoCredential> {
        let name = role.config.session_name(caller);
        let session = role.session(&name, || Renewed::new(Arc::clone(&self.clock)));
        session.get(Box::pin(self.assume(&role.config, name))).await
    }

    /// AWS STS `AssumeRole`. The credential itself is never used in place of the role.
    async fn assume(&self, role: &AssumeRole, session_name: String) -> Result<Fresh<Credentials>, NoCredential> {
        let own = self.own().await?;
        let mut provider = AssumeRoleProvider::builder(&role.role_arn)
            .configure(&self.amazon.settings().await)
            .session_name(session_name);
        if let Some(external_id) = &role.external_id {
            provider = provider.external_id(external_id);
        }
        let provider = provider.build_from_provider(Credentials::clone(&own)).await;
        let assumed = self.fresh(provider.provide_credentials().await);
        if let Err(NoCredential(why)) = &assumed
            && wire::cloud::is_stale_token(why)
        {
            self.chain.refused(|keys| keys.access_key_id() == own.access_key_id());
        }
        assumed.map_err(|NoCredential(why)| {
            NoCredential(format!(
                "the role {} cannot be assumed: {why}; see its trust policy, and sts:AssumeRole of the credential of `auth`",
                role.role_arn
            ))
        })
    }

    fn fresh(&self, provided: Result<Credentials, CredentialsError>) -> Result<Fresh<Credentials>, NoCredential> {
        let value = provided.map_err(|error| NoCredential(chain(&error)))?;
        let now = SystemTime::from(self.clock.now());
        let lasts = value.expiry().map(|end| end.duration_since(now).unwrap_or_default());
        Ok(Fresh { value, lasts })
    }
}

impl Amazon {
    async fn settings(&self) -> SdkConfig {
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(Region::new(self.region.clone()));
        Box::pin(loader.http_client(self.client.clone()).load()).await
    }
}

impl fmt::Debug for Amazon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amazon").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Role {
    fn kept(&self, name: &str) -> Option<Arc<Renewed<Credentials>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn session(&self, name: &str, new: impl FnOnce() -> Renewed<Credentials>) -> Arc<Renewed<Credentials>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(name) {
            return Arc::clone(session);
        }
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, session| !session.is_over());
        }
        let session = Arc::new(new());
        // More people than are kept ask for a session each time.
        if sessions.len() < MAX_SESSIONS {
            sessions.insert(name.to_owned(), Arc::clone(&session));
        }
        session
    }
}

impl AssumeRole {
    /// What STS takes: 2 to 64 letters, digits and `+=,.@-_`.
    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
    fn session_name(&self, caller: &Caller<'_>) -> String {
        let person = match self.session_name {
            None => return "tollgate".to_owned(),
            Some(SessionName::Email) => caller.email.unwrap_or(caller.sub),
            Some(SessionName::Sub) => caller.sub,
        };
        let allowed = |character: char| {
            if character.is_ascii_alphanumeric() || "+=,.@-_".contains(character) { character } else { '-' }
        };
        let mut name: String = person.chars().map(allowed).take(64).collect();
        while name.len() < 2 {
            name.push('-');
        }
        name
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use control::clock::TestClock;

    use super::*;

    #[tokio::test]
    async fn keys_that_are_refused_are_fetched_again_for_whom_they_were_shown() {
        let clock = Arc::new(TestClock::at("2026-11-22T12:00:00Z".parse().unwrap()));
        let role = AssumeRole { role_arn: "r".to_owned(), external_id: None, session_name: Some(SessionName::Sub) };
        for assume_role in [None, Some(role)] {
            let egress = Egress::new(&control::connect::Config::default()).unwrap();
            let aws = AwsConfig {
                region: "us-east-1".into(),
                credential: AwsCredential::Chain(AwsChain::default()),
                assume_role,
            };
            let authority =
                Authority::new("a", aws, "bedrock", &egress, &(Arc::clone(&clock) as Arc<dyn Clock>)).unwrap();
            let Authority::Signed(signer) = &authority else { unreachable!() };
            let keep = async |kept: &Renewed<Credentials>, id: &str| {
                let value = Credentials::new(id, "s", None, None, "test");
                kept.get(async { Ok(Fresh { value, lasts: None }) }).await.unwrap().access_key_id().to_owned()
            };
            let session = |name: &str| {
                let new = || Renewed::new(Arc::clone(&clock) as Arc<dyn Clock>);
                signer.role.as_ref().map(|role| role.session(name, new))
            };
            let (alices, bobs) = (session("alice"), session("bob"));
            let shown = alices.as_deref().unwrap_or(&signer.chain);
            assert_eq!(keep(shown, "ASIA1").await, "ASIA1");
            clock.advance(Duration::from_secs(60));
            let header = HeaderValue::from_static("AWS4-HMAC-SHA256 Credential=ASIA1/20261122/us-east-1/bedrock");
            let alice = Caller { sub: "alice", email: None };
            let other = HeaderValue::from_static("AWS4-HMAC-SHA256 Credential=ASIA12/20261122/us-east-1/bedrock");
            assert!(!authority.refused(&other, &alice), "keys that are not shown any more");
            assert_eq!(keep(shown, "ASIA2").await, "ASIA1");
            if let Some(bobs) = &bobs {
                assert_eq!(keep(bobs, "ASIA1").await, "ASIA1");
                clock.advance(Duration::from_secs(60));
            }
            assert!(authority.refused(&header, &alice));
            assert_eq!(keep(shown, "ASIA2").await, "ASIA2");
            if let Some(bobs) = &bobs {
                assert_eq!(keep(bobs, "ASIA3").await, "ASIA1", "his own is still good");
            }
        }
    }

    #[test]
    fn a_session_is_named_after_its_developer_in_the_letters_that_sts_takes() {
        let role = |session_name| AssumeRole { role_arn: "r".to_owned(), external_id: None, session_name };
        let named = |by, email, sub| role(by).session_name(&Caller { sub, email });
        assert_eq!(named(None, Some("a@b.c"), "s"), "tollgate");
        assert_eq!(named(Some(SessionName::Email), Some("zoë+x@b.c"), "s"), "zo-+x@b.c");
        assert_eq!(named(Some(SessionName::Email), None, "auth0|7"), "auth0-7");
        assert_eq!(named(Some(SessionName::Sub), Some("a@b.c"), "7"), "7-");
        assert_eq!(named(Some(SessionName::Sub), None, &"x".repeat(100)).len(), 64);
    }
}
