//! Our outbound connections as the HTTP client of Amazon's credential library: STS, SSO, instance and container metadata.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use control::connect::{Egress, FetchError};
use http::Request;
use http_body_util::Full;

/// The largest answer that makes sense.
const MAX_BODY: usize = 1 << 20;
/// Where the library sets no limit of its own.
const BUDGET: Duration = Duration::from_secs(10);

/// Fetches for the library.
#[derive(Debug, Clone)]
pub(super) struct OurClient {
    /// For everything with a name.
    egress: Egress,
    /// For the metadata services, which the guard refuses to everybody else.
    metadata: Egress,
    budget: Duration,
}

impl OurClient {
    pub(super) fn new(egress: &Egress) -> Self {
        Self { egress: egress.through_proxy(), metadata: egress.towards_this_machine(), budget: BUDGET }
    }

    async fn fetch(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let user = |error: http::Error| ConnectorError::user(error.into());
        let mut outgoing = Request::builder().method(request.method()).uri(request.uri());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name, value);
        }
        let body = request.body().bytes().map(Bytes::copy_from_slice).unwrap_or_default();
        let outgoing = outgoing.body(Full::new(body)).map_err(user)?;
        let is_metadata = outgoing.uri().host().is_some_and(Egress::is_credential_service);
        let egress = if is_metadata { &self.metadata } else { &self.egress };
        let (head, body) = egress.fetch(outgoing, self.budget, MAX_BODY).await.map_err(of_fetch)?;
        let status = head.status.as_u16().try_into().map_err(|_| ConnectorError::user("no status".into()))?;
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        for (name, value) in &head.headers {
            if let Ok(value) = value.to_str() {
                response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

fn of_fetch(error: FetchError) -> ConnectorError {
    match error {
        FetchError::TimedOut(_) => ConnectorError::timeout(error.into()),
        FetchError::TooLarge(_) => ConnectorError::other(error.into(), None),
        FetchError::Connect(_) | FetchError::Interrupted(_) => ConnectorError::io(error.into()),
    }
}

impl HttpClient for OurClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let connect = settings.connect_timeout().unwrap_or_default();
        let budget = settings.read_timeout().map_or(BUDGET, |read| (read + connect).min(BUDGET));
        SharedHttpConnector::new(Self { budget, ..self.clone() })
    }
}

impl HttpConnector for OurClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().fetch(request))
    }
}
