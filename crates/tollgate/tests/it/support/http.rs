//! A small HTTP client for the tests: one request out, the answer or its chunks back.
//! It follows nothing, retries nothing and hides nothing; what a person's browser does on top is in `http/visitor.rs`.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use std::net::TcpListener;

mod page;
mod visitor;

pub(crate) use page::{Form, Page};
pub(crate) use visitor::Visitor;

/// An HTTP/1.1 client with its own connections, which belong to the test's runtime and end with it.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        Self { client }
    }

    pub(crate) async fn get(&self, url: &str) -> Reply {
        self.send(Request::get(url).body(Bytes::new()).unwrap()).await
    }

    /// Sends a request and reads the whole answer; panics when there is none.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Reply {
        let target = format!("{} {}", request.method(), request.uri());
        let streamed = self.open(request).await.unwrap_or_else(|error| panic!("{target}: {error:?}"));
        let (status, headers) = (streamed.status, streamed.headers.clone());
        let body = streamed.rest().await.unwrap_or_else(|error| panic!("{target}: body: {error:?}"));
        Reply { status, headers, body }
    }

    /// Sends a request and returns as soon as the head of the answer is there.
    /// Dropping the answer, or this future, closes the connection.
    pub(crate) async fn open(&self, request: Request<Bytes>) -> Result<Streamed, Error> {
        let (head, body) = self.client.request(request.map(Full::new)).await?.into_parts();
        Ok(Streamed { status: head.status, headers: head.headers, body })
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.body))
    }

    /// The header's value; none when it is absent, panics when it is there twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?.to_str().unwrap();
        assert!(values.next().is_none(), "{name} was sent more than once");
        Some(first)
    }
}

/// An answer whose body is still arriving.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
}

impl Streamed {
    /// The next bytes as they came off the connection; none at the proper end of the body.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Some(Ok(bytes));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Everything that is still to come; an error when the body was cut.
    pub(crate) async fn rest(self) -> Result<Bytes, hyper::Error> {
        Ok(self.body.collect().await?.to_bytes())
    }
}

/// A loopback port that nobody listens on at this moment.
pub(crate) fn unused_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
