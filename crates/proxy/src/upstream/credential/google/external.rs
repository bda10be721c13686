//! External accounts: an identity of another cloud or of a company's own provider, exchanged at Google's security token
//! service (RFC 8693; <https://google.aip.dev/auth/4117>).

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::aws::Aws;
use super::executable::Executable;
use super::{GoogleEnvironment, SCOPE, document};
use crate::upstream::credential::CredentialError;
use crate::upstream::credential::exchange::{Question, Way, Ways, proof, readable};
use crate::upstream::credential::tokens::Fetched;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The metadata services that a credential file may name: those of Amazon and Microsoft, and Google's own.
const METADATA_HOSTS: [&str; 3] = ["169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal"];

#[derive(Debug, Clone)]
pub(super) struct External {
    audience: String,
    subject_token_type: String,
    token_url: Url,
    subject: Subject,
    client: Option<(String, SecretString)>,
    /// The project that a workforce identity without a client is charged to.
    user_project: Option<String>,
}

/// Where the other identity's token comes from.
#[derive(Debug, Clone)]
enum Subject {
    File(PathBuf, Format),
    Url(Url, Vec<(HeaderName, SecretString)>, Format),
    Aws(Box<Aws>),
    Executable(Box<Executable>),
}

#[derive(Debug, Clone)]
enum Format {
    Text,
    /// The token is in this field.
    Json(String),
}

impl External {
    /// # Errors
    /// A sentence that shows none of the values.
    pub(super) fn read(from: &Value, environment: &GoogleEnvironment) -> Result<Self, String> {
        let client = match (from["client_id"].as_str(), document::secret(from, "client_secret")) {
            (Some(id), Some(secret)) => Some((id.to_owned(), secret)),
            (None, None) => None,
            _ => return Err("client_id and client_secret belong together".to_owned()),
        };
        Ok(Self {
            audience: document::text(from, "audience")?.to_owned(),
            subject_token_type: document::text(from, "subject_token_type")?.to_owned(),
            token_url: document::url(from, "token_url")?,
            subject: Subject::read(from, environment)?,
            client,
            user_project: from["workforce_pool_user_project"].as_str().map(str::to_owned),
        })
    }

    pub(super) async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        let subject = match &self.subject {
            Subject::File(path, format) => format.of_file(path, proof(path).await?)?,
            Subject::Url(url, headers, format) => {
                let mut question = Question::get(url);
                for (name, value) in headers {
                    question = question.header(name.clone(), value);
                }
                format.of_answer(ways.ask(way(url), question).await?)?
            }
            Subject::Aws(aws) => aws.subject_token(&self.audience, ways).await?,
            Subject::Executable(executable) => executable.subject_token(ways.now()).await?,
        };
        let project = self.user_project.as_ref().filter(|_| self.client.is_none());
        let options = project.map(|project| json!({ "userProject": project }).to_string());
        let fields = [
            ("grant_type", TOKEN_EXCHANGE),
            ("audience", self.audience.as_str()),
            ("scope", SCOPE),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", subject.expose_secret()),
            ("subject_token_type", self.subject_token_type.as_str()),
        ];
        let fields = fields.into_iter().chain(options.iter().map(|options| ("options", options.as_str())));
        let mut question = Question::form(&self.token_url, fields);
        if let Some((id, secret)) = &self.client {
            question = question.header(AUTHORIZATION, &basic(id, secret));
        }
        ways.token(Way::Far, question).await
    }
}

/// RFC 7617.
pub(super) fn basic(id: &str, secret: &SecretString) -> SecretString {
    format!("Basic {}", STANDARD.encode(format!("{id}:{}", secret.expose_secret()))).into()
}

/// A metadata service is beside us; everything else is checked like any other address.
pub(super) fn way(url: &Url) -> Way {
    if url.host_str().is_some_and(|host| METADATA_HOSTS.contains(&host)) { Way::Near } else { Way::Far }
}

/// Where a subject token is read: a metadata service speaks plain HTTP.
pub(super) fn source_url(source: &Value, field: &str) -> Result<Url, String> {
    let written = document::text(source, field)?;
    match Url::parse(written) {
        Ok(url) if url.scheme() == "http" && way(&url) == Way::Near => Ok(url),
        _ => document::url(source, field),
    }
}

impl Subject {
    fn read(from: &Value, environment: &GoogleEnvironment) -> Result<Self, String> {
        let source = &from["credential_source"];
        let named = |why: String| format!("credential_source: {why}");
        if source["environment_id"].is_string() {
            return Aws::read(source, &environment.aws).map(|aws| Self::Aws(Box::new(aws))).map_err(named);
        }
        if let Some(path) = source["file"].as_str().map(PathBuf::from) {
            readable(&path).map_err(|error| named(error.to_string()))?;
            return Ok(Self::File(path, Format::read(&source["format"]).map_err(named)?));
        }
        if source["url"].is_string() {
            let url = source_url(source, "url").map_err(named)?;
            let headers = headers(&source["headers"]).map_err(named)?;
            return Ok(Self::Url(url, headers, Format::read(&source["format"]).map_err(named)?));
        }
        if !source["executable"].is_null() {
            let executable = Executable::read(from, environment).map_err(named)?;
            return Ok(Self::Executable(Box::new(executable)));
        }
        if !source["certificate"].is_null() {
            return Err(named("X.509 certificates are not supported; use a file, a url or an executable".to_owned()));
        }
        Err(named("it must name a file, a url, an executable or environment_id aws1".to_owned()))
    }
}

fn headers(written: &Value) -> Result<Vec<(HeaderName, SecretString)>, String> {
    let entries = written.as_object().into_iter().flatten();
    let header = |(name, value): (&String, &Value)| {
        let name = name.parse().map_err(|_| "a name in headers is not a header name".to_owned())?;
        let value = value.as_str().ok_or_else(|| "a value in headers is not a text".to_owned())?;
        Ok((name, SecretString::from(value)))
    };
    entries.map(header).collect()
}

impl Format {
    fn read(written: &Value) -> Result<Self, String> {
        match written["type"].as_str() {
            None | Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json(document::text(written, "subject_token_field_name")?.to_owned())),
            Some(_) => Err("format.type must be text or json".to_owned()),
        }
    }

    fn of_file(&self, path: &std::path::Path, content: SecretString) -> Result<SecretString, CredentialError> {
        let Self::Json(field) = self else { return Ok(content) };
        let value: Value = serde_json::from_str(content.expose_secret()).unwrap_or_default();
        let missing = || CredentialError::File {
            path: path.display().to_string(),
            cause: format!("it holds no JSON object with {}", field.escape_debug()),
        };
        document::secret(&value, field).ok_or_else(missing)
    }

    fn of_answer(
        &self,
        answer: crate::upstream::credential::exchange::Answer,
    ) -> Result<SecretString, CredentialError> {
        let Self::Json(field) = self else { return Ok(answer.text()?.trim().into()) };
        let (endpoint, value) = answer.object()?;
        let why = "it lacks the field that credential_source names";
        document::secret(&value, field).ok_or(CredentialError::Unreadable { endpoint, why })
    }
}
