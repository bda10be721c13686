//! One HTTP exchange with the provider: its budget, its size, and what its failure means.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use url::{Url, form_urlencoded};

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

/// How the token endpoint knows us (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    Basic,
    Post,
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

    /// POST of a form to the token endpoint.
    pub(super) async fn post(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
        client: (ClientAuth, &str, &SecretString),
    ) -> Result<(StatusCode, Bytes), CallError> {
        let (request, body) = token_request(url, fields, client);
        self.send(request, body).await
    }

    async fn send(&self, request: http::request::Builder, body: String) -> Result<(StatusCode, Bytes), CallError> {
        // Only a value that cannot stand in a header is an error here: an access token with control characters.
        let request = request.body(Full::from(body)).map_err(|_| CallError::Unreadable)?;
        let (parts, body) = self.egress.fetch(request, self.budget, LONGEST_ANSWER).await?;
        Ok((parts.status, body))
    }
}

fn token_request(
    url: &Url,
    fields: &[(&str, &str)],
    (auth, id, secret): (ClientAuth, &str, &SecretString),
) -> (http::request::Builder, String) {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    let mut request = Request::post(url.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    match auth {
        ClientAuth::Post => {
            form.append_pair("client_id", id).append_pair("client_secret", secret.expose_secret());
        }
        ClientAuth::Basic => {
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(id), encoded(secret.expose_secret()));
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
        }
    }
    (request, form.finish())
}

/// The document of a 200 answer.
pub(super) fn json<T: DeserializeOwned>(answer: Result<(StatusCode, Bytes), CallError>) -> Result<T, CallError> {
    let (status, body) = answer?;
    if status != StatusCode::OK {
        return Err(CallError::Status(status));
    }
    serde_json::from_slice(&body).map_err(|_| CallError::Unreadable)
}
