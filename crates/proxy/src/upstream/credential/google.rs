//! Google Cloud's application default credentials, in all their forms
//! (<https://cloud.google.com/docs/authentication/application-default-credentials>, AIP-4110).

mod aws;
mod document;
mod executable;
mod external;

use std::fmt;
use std::path::{Path, PathBuf};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::Url;

use super::exchange::{Question, Way, Ways};
use super::tokens::Fetched;
use super::{CredentialError, Unusable};
use external::External;

pub use aws::AwsEnvironment;

/// What the token may do: everything that the identity may (the only scope that Vertex AI takes).
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The life of an assertion and of what is asked for, in seconds: the longest that Google allows by default.
const HOUR: i64 = 3600;
const METADATA_HOST: &str = "metadata.google.internal";

/// The variables of the environment that count, as plain values.
#[derive(Debug, Clone, Default)]
pub struct GoogleEnvironment {
    /// `GOOGLE_APPLICATION_CREDENTIALS`.
    pub credentials_file: Option<PathBuf>,
    /// Where the gcloud command keeps a person's credentials: `application_default_credentials.json` in `CLOUDSDK_CONFIG`,
    /// else in `~/.config/gcloud`.
    pub well_known_file: Option<PathBuf>,
    /// `GCE_METADATA_HOST`: host and port of the metadata service.
    pub metadata_host: Option<String>,
    /// `GOOGLE_CLOUD_QUOTA_PROJECT`.
    pub quota_project: Option<String>,
    /// `GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES` is `1`: a credential file may name a program that is run.
    pub allow_executables: bool,
    /// `PATH` and `HOME`: all that such a program is told of the environment beside what is made for it.
    pub of_programs: Vec<(&'static str, String)>,
    /// What an external account on AWS is known by.
    pub aws: AwsEnvironment,
}

/// An identity on Google Cloud.
#[derive(Debug, Clone)]
pub struct Google {
    source: Source,
    quota_project: Option<HeaderValue>,
}

#[derive(Debug, Clone)]
enum Source {
    ServiceAccount(ServiceAccount),
    User(User),
    External(Box<External>),
    Impersonated(Box<Impersonated>),
    /// The token's address, with its scopes.
    Metadata(Url),
}

#[derive(Clone)]
struct ServiceAccount {
    email: String,
    key: EncodingKey,
    key_id: Option<String>,
    token_url: Url,
}

/// A refresh token, of a person or of a workforce identity.
#[derive(Debug, Clone)]
struct User {
    client_id: String,
    client_secret: SecretString,
    refresh_token: SecretString,
    token_url: Url,
    /// The client is named in a header instead of in the form.
    is_basic: bool,
}

/// Another identity that ours may act as.
#[derive(Debug, Clone)]
struct Impersonated {
    base: Source,
    url: Url,
    delegates: Vec<String>,
    lifetime_seconds: i64,
}

impl Google {
    /// The identity of a file: the key of a service account, or any other that `GOOGLE_APPLICATION_CREDENTIALS` may name.
    ///
    /// # Errors
    /// A sentence, when it cannot be read or is impossible.
    pub fn from_file(path: &Path, environment: &GoogleEnvironment) -> Result<Self, Unusable> {
        document::read(path, environment).map_err(|why| Unusable(format!("{}: {why}", path.display())))
    }

    /// The identity that the environment gives: a file that it names, else the person who signed in with gcloud, else the
    /// machine's own.
    ///
    /// # Errors
    /// As [`Google::from_file`]; without any file, the machine's own identity is asked for when it is needed.
    pub fn from_environment(environment: &GoogleEnvironment) -> Result<Self, Unusable> {
        if let Some(path) = &environment.credentials_file {
            let named = Self::from_file(path, environment);
            return named.map_err(|Unusable(why)| Unusable(format!("GOOGLE_APPLICATION_CREDENTIALS: {why}")));
        }
        if let Some(path) = environment.well_known_file.as_ref().filter(|path| path.exists()) {
            return Self::from_file(path, environment);
        }
        let host = environment.metadata_host.as_deref().unwrap_or(METADATA_HOST);
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let url = Url::parse_with_params(&url, [("scopes", SCOPE)]).ok().filter(|url| url.path().ends_with("/token"));
        let url = url.ok_or_else(|| Unusable("GCE_METADATA_HOST must be a host, with a port or without".to_owned()))?;
        Self::new(Source::Metadata(url), None, environment)
    }

    /// The project whose quota requests count against, where one is named.
    #[must_use]
    pub fn quota_project(&self) -> Option<&HeaderValue> {
        self.quota_project.as_ref()
    }

    pub(super) async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        self.source.fetch(ways).await
    }

    fn new(source: Source, quota_project: Option<&str>, environment: &GoogleEnvironment) -> Result<Self, Unusable> {
        let quota_project = environment.quota_project.as_deref().or(quota_project).map(HeaderValue::from_str);
        let quota_project = quota_project.transpose();
        let quota_project = quota_project.map_err(|_| Unusable("the quota project is not a project id".to_owned()))?;
        Ok(Self { source, quota_project })
    }
}

impl Source {
    async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        match self {
            Self::ServiceAccount(account) => account.fetch(ways).await,
            Self::User(user) => user.fetch(ways).await,
            Self::External(external) => external.fetch(ways).await,
            Self::Impersonated(impersonated) => Box::pin(impersonated.fetch(ways)).await,
            Self::Metadata(url) => {
                let question = Question::get(url).known(HeaderName::from_static("metadata-flavor"), "Google");
                ways.token(Way::Near, question).await.map_err(|error| match error {
                    absent @ CredentialError::Unreachable { .. } => CredentialError::Nothing(format!(
                        "GOOGLE_APPLICATION_CREDENTIALS is not set, nobody has signed in with `gcloud auth \
                         application-default login`, and there is no metadata service ({absent}); do one of the first two, \
                         or run where the machine has a service account"
                    )),
                    answered => answered,
                })
            }
        }
    }
}

impl ServiceAccount {
    /// RFC 7523, section 4, at the `token_uri` of the key
    /// (<https://developers.google.com/identity/protocols/oauth2/service-account#httprest>).
    async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid.clone_from(&self.key_id);
        let now = ways.now();
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_url.as_str(), "iat": now, "exp": now + HOUR,
        });
        let assertion = jsonwebtoken::encode(&header, &claims, &self.key);
        let assertion = assertion.map_err(|_| CredentialError::Unsigned("the service account"))?;
        let fields = [("grant_type", JWT_BEARER), ("assertion", assertion.as_str())];
        ways.token(Way::Far, Question::form(&self.token_url, fields)).await
    }
}

impl User {
    /// RFC 6749, section 6.
    async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        let grant = [("grant_type", "refresh_token"), ("refresh_token", self.refresh_token.expose_secret())];
        let client = [("client_id", self.client_id.as_str()), ("client_secret", self.client_secret.expose_secret())];
        let question = if self.is_basic {
            Question::form(&self.token_url, grant)
                .header(AUTHORIZATION, &external::basic(&self.client_id, &self.client_secret))
        } else {
            Question::form(&self.token_url, grant.into_iter().chain(client))
        };
        ways.token(Way::Far, question).await
    }
}

impl Impersonated {
    /// <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>
    async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        let base = self.base.fetch(ways).await?;
        let mut body = json!({ "scope": [SCOPE], "lifetime": format!("{}s", self.lifetime_seconds) });
        if !self.delegates.is_empty() {
            body["delegates"] = json!(self.delegates);
        }
        let answer = ways.ask(Way::Far, Question::json(&self.url, &body).bearer(&base.token)).await?;
        let (endpoint, answer) = answer.object()?;
        let unreadable = |why| CredentialError::Unreadable { endpoint: endpoint.clone(), why };
        let token = answer["accessToken"].as_str().ok_or_else(|| unreadable("it has no accessToken"))?;
        let ends = answer["expireTime"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let ends = ends.ok_or_else(|| unreadable("it has no expireTime"))?;
        Ok(Fetched { token: token.into(), ends: ends.as_second() })
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("email", &self.email).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
