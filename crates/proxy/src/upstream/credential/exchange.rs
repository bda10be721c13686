//! One question to a token endpoint, and its answer. Every provider's differ in fields only (RFC 6749, section 5).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::clock::Clock;
use control::connect::Egress;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::tokens::Fetched;
use super::{CredentialError, Unusable};

/// For everything that is on a network.
const BUDGET: Duration = Duration::from_secs(10);
/// For what is on this machine or beside it: when it does not answer, it is not there.
const NEAR_BUDGET: Duration = Duration::from_secs(3);
/// Tokens that name many groups are tens of kilobytes.
const MAX_ANSWER: usize = 1 << 20;
/// Of a stranger's words into our log.
const MAX_SAID: usize = 300;
/// What a token without an end is good for, in seconds.
const SHORT: i64 = 300;

/// The ways to token endpoints, and the time.
#[derive(Debug)]
pub(super) struct Ways {
    /// Checked addresses, through the forward proxy where there is one.
    far: Egress,
    /// This machine's own services.
    near: Egress,
    clock: Arc<dyn Clock>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Far,
    Near,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) endpoint: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

/// What is asked.
pub(super) struct Question<'a> {
    method: Method,
    url: &'a Url,
    headers: HeaderMap,
    body: Bytes,
}

impl<'a> Question<'a> {
    pub(super) fn get(url: &'a Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(super) fn put(url: &'a Url) -> Self {
        Self { method: Method::PUT, ..Self::get(url) }
    }

    /// RFC 6749, appendix B.
    pub(super) fn form<'f>(url: &'a Url, fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Self {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let question = Self { method: Method::POST, body: body.into(), ..Self::get(url) };
        question.known(CONTENT_TYPE, "application/x-www-form-urlencoded")
    }

    pub(super) fn json(url: &'a Url, body: &Value) -> Self {
        let question = Self { method: Method::POST, body: body.to_string().into(), ..Self::get(url) };
        question.known(CONTENT_TYPE, "application/json")
    }

    /// One more header, whose value is ours.
    pub(super) fn known(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// One more header; a value that no header can carry is left out, and refused for its absence.
    pub(super) fn header(mut self, name: HeaderName, value: &SecretString) -> Self {
        if let Ok(mut value) = HeaderValue::from_str(value.expose_secret()) {
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn bearer(self, token: &SecretString) -> Self {
        self.header(AUTHORIZATION, &format!("Bearer {}", token.expose_secret()).into())
    }
}

impl Ways {
    pub(super) fn new(egress: &Egress, clock: Arc<dyn Clock>) -> Self {
        Self { far: egress.through_proxy(), near: egress.towards_this_machine(), clock }
    }

    /// In seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.clock.now().as_second()
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// # Errors
    /// [`CredentialError::Unreachable`].
    pub(super) async fn ask(&self, way: Way, question: Question<'_>) -> Result<Answer, CredentialError> {
        let endpoint = shown(question.url);
        let unreachable = |cause: String| CredentialError::Unreachable { endpoint: endpoint.clone(), cause };
        let mut request = Request::new(Full::new(question.body));
        *request.method_mut() = question.method;
        *request.uri_mut() = question.url.as_str().parse().map_err(|_| unreachable("not a URL".to_owned()))?;
        *request.headers_mut() = question.headers;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let (egress, budget) = match way {
            Way::Far => (&self.far, BUDGET),
            Way::Near => (&self.near, NEAR_BUDGET),
        };
        let answer = egress.fetch(request, budget, MAX_ANSWER).await;
        let (head, body) = answer.map_err(|error| unreachable(error.to_string()))?;
        Ok(Answer { endpoint, status: head.status, headers: head.headers, body })
    }

    /// A token in the shape of RFC 6749, section 5.1.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn token(&self, way: Way, question: Question<'_>) -> Result<Fetched, CredentialError> {
        self.ask(way, question).await?.token(self.now())
    }
}

impl Answer {
    /// # Errors
    /// [`CredentialError::Refused`] for every status but 2xx.
    pub(super) fn accepted(self) -> Result<Self, CredentialError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(CredentialError::Refused { said: self.said(), status: self.status.as_u16(), endpoint: self.endpoint })
    }

    /// # Errors
    /// As [`Answer::accepted`], and when it is not UTF-8.
    pub(super) fn text(self) -> Result<String, CredentialError> {
        let Self { endpoint, body, .. } = self.accepted()?;
        String::from_utf8(body.into()).map_err(|_| CredentialError::Unreadable { endpoint, why: "it is not text" })
    }

    /// # Errors
    /// As [`Answer::accepted`], and when it is not a JSON object.
    pub(super) fn object(self) -> Result<(String, Value), CredentialError> {
        let Self { endpoint, body, .. } = self.accepted()?;
        match serde_json::from_slice(&body) {
            Ok(value @ Value::Object(_)) => Ok((endpoint, value)),
            _ => Err(CredentialError::Unreadable { endpoint, why: "it is not a JSON object" }),
        }
    }

    fn token(self, now: i64) -> Result<Fetched, CredentialError> {
        let (endpoint, value) = self.object()?;
        let Some(token) = value["access_token"].as_str().filter(|token| !token.is_empty()) else {
            return Err(CredentialError::Unreadable { endpoint, why: "it has no access_token" });
        };
        let ends = match (whole(&value["expires_on"]), whole(&value["expires_in"])) {
            (Some(on), _) => on,
            (None, Some(seconds)) => now.saturating_add(seconds),
            (None, None) => now.saturating_add(SHORT),
        };
        Ok(Fetched { token: token.into(), ends })
    }

    /// Only the fields that are made for being shown: the rest of an error could repeat what was asked.
    fn said(&self) -> String {
        let Ok(value) = serde_json::from_slice::<Value>(&self.body) else { return String::new() };
        let error = &value["error"];
        let parts = [error, &error["type"], &error["status"], &value["error_description"], &error["message"]];
        let said: Vec<_> = parts.into_iter().filter_map(Value::as_str).collect();
        let said: String =
            said.join(": ").chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID).collect();
        if said.is_empty() { said } else { format!(": {said}") }
    }
}

/// A whole number, also as text: Azure's metadata service writes it so.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// Scheme, host and path: a query may name accounts.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// A URL that secrets may be sent to: https, or http to this machine.
///
/// # Errors
/// What is wrong with it.
pub(super) fn endpoint(url: &str) -> Result<Url, &'static str> {
    let url = Url::parse(url).map_err(|_| "is not a URL")?;
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err("has no host"),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        _ => Err("must begin with https://"),
    }
}

/// Reads the file of a proof that others write and renew, without the white space around it.
///
/// # Errors
/// Why not.
pub(super) async fn proof(path: &std::path::Path) -> Result<SecretString, CredentialError> {
    let file = |cause: String| CredentialError::File { path: path.display().to_string(), cause };
    let text = tokio::fs::read_to_string(path).await;
    let text = SecretString::from(text.map_err(|error| file(format!("it cannot be read: {error}")))?);
    let trimmed = text.expose_secret().trim();
    if trimmed.is_empty() { Err(file("it is empty".to_owned())) } else { Ok(trimmed.into()) }
}

/// That a file will be there to read.
///
/// # Errors
/// A sentence that names it.
pub(super) fn readable(path: &std::path::Path) -> Result<(), Unusable> {
    match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(Unusable(format!("{} is not a file", path.display()))),
        Err(error) => Err(Unusable(format!("the file {} cannot be read: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests;
