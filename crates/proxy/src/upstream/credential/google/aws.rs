//! An identity of AWS as Google's security token service takes it: a signed request that asks AWS who we are, unsent
//! (<https://google.aip.dev/auth/4117>, "Determining the subject token in AWS").

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::HeaderName;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::document;
use super::external::{source_url, way};
use crate::upstream::credential::CredentialError;
use crate::upstream::credential::exchange::{Question, Ways};

/// The variables of AWS that count for an external account, as plain values.
#[derive(Debug, Clone, Default)]
pub struct AwsEnvironment {
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    pub key: Option<(String, SecretString)>,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub(super) struct Aws {
    environment: AwsEnvironment,
    region_url: Option<Url>,
    /// Of the role's name; a slash and the name after it gives its keys.
    role_url: Option<Url>,
    /// Where a token for the metadata service itself is fetched (IMDSv2).
    session_url: Option<Url>,
    /// With `{region}` in it.
    verification_url: String,
}

struct Keys {
    id: String,
    secret: SecretString,
    session: Option<SecretString>,
}

const MUST_HAVE: &str = "AWS tells neither a region nor a role here";

impl Aws {
    pub(super) fn read(source: &Value, environment: &AwsEnvironment) -> Result<Self, String> {
        if document::text(source, "environment_id")? != "aws1" {
            return Err("environment_id must be aws1".to_owned());
        }
        let url = |field: &str| {
            if source[field].is_null() { Ok(None) } else { source_url(source, field).map(Some) }
        };
        let aws = Self {
            environment: environment.clone(),
            region_url: url("region_url")?,
            role_url: url("url")?,
            session_url: url("imdsv2_session_token_url")?,
            verification_url: document::text(source, "regional_cred_verification_url")?.to_owned(),
        };
        let complete = (aws.environment.region.is_some() || aws.region_url.is_some())
            && (aws.environment.key.is_some() || aws.role_url.is_some());
        if complete {
            Ok(aws)
        } else {
            Err(format!("{MUST_HAVE}: set AWS_REGION and keys, or write region_url and url"))
        }
    }

    pub(super) async fn subject_token(&self, audience: &str, ways: &Ways) -> Result<SecretString, CredentialError> {
        let session = match &self.session_url {
            Some(url) => {
                let lifetime = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
                let answer = ways.ask(way(url), Question::put(url).known(lifetime, "300")).await?;
                Some(SecretString::from(answer.text()?.trim()))
            }
            None => None,
        };
        let region = match (&self.environment.region, &self.region_url) {
            (Some(region), _) => region.clone(),
            (None, Some(url)) => {
                let zone = metadata(url, session.as_ref(), ways).await?;
                // A zone is its region and a letter.
                zone.trim().strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(zone.trim()).to_owned()
            }
            (None, None) => return Err(CredentialError::Nothing(MUST_HAVE.to_owned())),
        };
        let keys = self.keys(session.as_ref(), ways).await?;
        let unsigned = || CredentialError::Unsigned("AWS");
        let url = self.verification_url.replace("{region}", &region);
        let time = ways.clock().now().into();
        signed(&url, &region, audience, &keys, time).ok_or_else(unsigned)
    }

    async fn keys(&self, session: Option<&SecretString>, ways: &Ways) -> Result<Keys, CredentialError> {
        if let Some((id, secret)) = &self.environment.key {
            let session = self.environment.session_token.clone();
            return Ok(Keys { id: id.clone(), secret: secret.clone(), session });
        }
        let Some(url) = &self.role_url else { return Err(CredentialError::Nothing(MUST_HAVE.to_owned())) };
        let role = metadata(url, session, ways).await?;
        let mut url = url.clone();
        url.set_path(&format!("{}/{}", url.path().trim_end_matches('/'), role.trim()));
        let answer = metadata(&url, session, ways).await?;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        let keys = || {
            Some(Keys {
                id: answer["AccessKeyId"].as_str()?.to_owned(),
                secret: document::secret(&answer, "SecretAccessKey")?,
                session: document::secret(&answer, "Token"),
            })
        };
        keys().ok_or(CredentialError::Unreadable { endpoint: url.to_string(), why: "it has no keys of AWS" })
    }
}

async fn metadata(url: &Url, session: Option<&SecretString>, ways: &Ways) -> Result<String, CredentialError> {
    let mut question = Question::get(url);
    if let Some(session) = session {
        question = question.header(HeaderName::from_static("x-aws-ec2-metadata-token"), session);
    }
    ways.ask(way(url), question).await?.text()
}

/// The request as the text that is exchanged.
fn signed(url: &str, region: &str, audience: &str, keys: &Keys, time: std::time::SystemTime) -> Option<SecretString> {
    let session = keys.session.as_ref().map(|session| session.expose_secret().to_owned());
    let credentials = Credentials::new(&keys.id, keys.secret.expose_secret(), session, None, "external account");
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder().identity(&identity).region(region).name("sts").time(time);
    let parameters = parameters.settings(SigningSettings::default()).build().ok()?.into();
    let parsed = Url::parse(url).ok()?;
    let mut headers = vec![("host".to_owned(), parsed.host_str()?.to_owned())];
    headers.push(("x-goog-cloud-target-resource".to_owned(), audience.to_owned()));
    let given = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new("POST", parsed.as_str(), given, SignableBody::Bytes(&[])).ok()?;
    let (instructions, _) = sign(request, &parameters).ok()?.into_parts();
    headers.extend(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let headers: Vec<_> = headers.iter().map(|(name, value)| json!({ "key": name, "value": value })).collect();
    // Written as it was given: Google compares it.
    let request = json!({ "url": url, "method": "POST", "headers": headers }).to_string();
    // Its reader knows no plus sign for a space.
    let encoded: String = form_urlencoded::byte_serialize(request.as_bytes()).collect();
    Some(encoded.replace('+', "%20").into())
}
