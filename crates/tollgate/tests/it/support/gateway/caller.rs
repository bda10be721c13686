//! Somebody who asks the gateway for something.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::client::legacy::Error;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use url::form_urlencoded;

use control::clock::{Clock, SystemClock};

use super::SECRET;
use crate::support::http::{Http, Reply, Streamed};

/// A client of the gateway, with the same headers in every request.
#[derive(Clone)]
pub(crate) struct Caller {
    url: String,
    http: Http,
    headers: HeaderMap,
}

impl Caller {
    pub(super) fn new(url: &str, http: &Http) -> Self {
        Self { url: url.to_owned(), http: http.clone(), headers: HeaderMap::new() }
    }

    /// With one more header in every request.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// A request with this caller's headers; the path may have a query.
    pub(crate) fn request(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
        let mut request = Request::new(body.into());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = format!("{}{path}", self.url).parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Reply {
        self.http.send(self.request(method, path, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send("POST", path, body).await
    }

    /// Posts a form, as a device does or a page of ours.
    pub(crate) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let caller = self.clone().header("content-type", "application/x-www-form-urlencoded");
        caller.post(path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, "").await
    }

    /// Asks for an answer of a model.
    pub(crate) async fn messages(&self, body: impl Into<Bytes>) -> Reply {
        self.post("/v1/messages", body).await
    }

    /// As [`Caller::messages`], and returns with the head of the answer.
    pub(crate) async fn stream(&self, body: impl Into<Bytes>) -> Result<Streamed, Error> {
        self.http.open(self.request("POST", "/v1/messages", body)).await
    }
}

/// A bearer that the gateway at `issuer` takes for its own, with `claims` beside or instead of the usual ones; `null`
/// leaves one out.
pub(super) fn mint(issuer: &str, claims: &Value) -> String {
    let now = SystemClock.now().as_second();
    let mut all = json!({ "aud": "claude-gateway", "iss": issuer, "iat": now, "exp": now + 3600 });
    super::merge(&mut all, claims.clone());
    encode(&Header::default(), &all, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}
