//! One HTTP exchange with the provider: its budget, its size, and what its failure means.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::client::Presented;
use crate::connect::{Egress, FetchError};

const LONGEST_ANSWER: usize = 1024 * 1024;

/// The way to the provider.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) egress: Egress,
    /// For one whole exchange.
    pub(super) budget: Duration,
}

/// An exchange brought no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No answer came.
    #[error("{0}")]
    NoAnswer(#[from] FetchError),
    /// An answer came that says no.
    #[error("answered {0}")]
    Status(StatusCode),
    /// An answer came that cannot be read.
    #[error("answered with an unreadable document")]
    Unreadable,
}

impl Line {
    /// A line with the budget of the contract: the person's client waits little longer.
    pub(super) fn new(egress: Egress) -> Self {
        Self { egress, budget: Duration::from_millis(3500) }
    }

    /// GET with an optional bearer.
    pub(super) async fn get(&self, url: &Url, bearer: Option<&SecretString>) -> Result<(StatusCode, Bytes), CallError> {
        let mut request = Request::get(url.as_str()).header(header::ACCEPT, "application/json");
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        self.send(request, String::new()).await
    }

    /// POST of a form to a token endpoint.
    pub(super) async fn post_form(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
        client: &Presented,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let mut request = Request::post(url.as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = &client.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        self.send(request, encoded(fields, &client.fields)).await
    }

    /// POST of JSON with a bearer.
    pub(super) async fn post_json(
        &self,
        url: &Url,
        body: &Value,
        bearer: &SecretString,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = Request::post(url.as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", bearer.expose_secret()));
        self.send(request, body.to_string()).await
    }

    async fn send(&self, request: http::request::Builder, body: String) -> Result<(StatusCode, Bytes), CallError> {
        // Only a value that cannot stand in a header is an error here: an access token with control characters.
        let request = request.body(Full::from(body)).map_err(|_| CallError::Unreadable)?;
        let (parts, body) = self.egress.fetch(request, self.budget, LONGEST_ANSWER).await?;
        Ok((parts.status, body))
    }
}

fn encoded(fields: &[(&str, &str)], more: &[(&str, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).extend_pairs(more).finish()
}

/// The document of a 200 answer.
pub(super) fn json<T: DeserializeOwned>(answer: Result<(StatusCode, Bytes), CallError>) -> Result<T, CallError> {
    let (status, body) = answer?;
    if status != StatusCode::OK {
        return Err(CallError::Status(status));
    }
    object(&body).ok_or(CallError::Unreadable)
}

/// A JSON object; serde would also read a list as the fields in their order.
pub(super) fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
    T::deserialize(Value::Object(object)).ok()
}
