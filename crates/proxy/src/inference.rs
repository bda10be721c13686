//! Inference: a request is admitted, tried, relayed and settled, in this order.
//!
//! Knows rooms and phases; knows no SQL, no provider's format and no status text of any surface.

mod admit;
mod attempt;
mod load_test;
pub mod meters;
mod relay;
mod seats;
mod settle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use control::audit::AuditLog;
use control::clock::Clock;
use control::identity::Principal;
use control::policy::Policies;
use control::policy::permit::Denied;
use control::spend::ledger::Standing;
use control::spend::{Ledger, Refusal};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Body;
use tokio_util::sync::CancellationToken;
use wire::messages::BodyError;

use crate::upstream::{LoadTest, Unserved, Upstreams};
use meters::Meters;
use settle::Tab;

pub use crate::upstream::{CircuitFigures, CircuitState, Endpoint};
pub use relay::{Interrupted, Relay};
pub use seats::{Full, MOST, Seats};

/// What the operator decides about requests.
#[derive(Debug, Clone)]
pub struct Config {
    /// `limits.max_request_bytes`.
    pub max_request_bytes: u64,
    /// `admin.billing_group_tag`: the member of a request's `tags` that names a billing group; set, `tags` go no further.
    pub billing_group_tag: Option<String>,
}

/// The rooms that a request passes through.
#[derive(Debug)]
pub struct Inference {
    /// What the operator decides.
    pub config: Config,
    /// Who may use which model.
    pub policies: Arc<Policies>,
    /// Who can afford it; `None` without an `admin:` section.
    pub ledger: Option<Ledger>,
    /// How many requests are served at once.
    pub seats: Arc<Seats>,
    /// `load_test_mode`: nobody is asked; `None`: off.
    pub load_test: Option<LoadTest>,
    /// Who answers.
    pub upstreams: Upstreams,
    /// Where it is written down.
    pub audit: AuditLog,
    /// Where it is added up.
    pub meters: Meters,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the time to drain is over: whatever still streams is cut.
    pub cut: CancellationToken,
}

/// What is known of a request before its body is read.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its id in audit, logs and answers.
    pub request_id: Arc<str>,
    /// When it arrived.
    pub received: Instant,
    /// Who sent it.
    pub principal: Arc<Principal>,
}

/// An upstream's answer, for the client.
#[derive(Debug)]
pub struct Answer {
    /// The upstream's status.
    pub status: StatusCode,
    /// Those of the upstream's headers that clients may see.
    pub headers: HeaderMap,
    /// Where the caller stood against its fullest cap before this request.
    pub standing: Option<Standing>,
    /// The upstream's bytes.
    pub body: Relay,
}

/// Why there is no answer of an upstream.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Too many requests are being served.
    #[error(transparent)]
    Full(#[from] Full),
    /// The body cannot be read as a request.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The body is longer than `limits.max_request_bytes`.
    #[error("payload too large")]
    TooLarge,
    /// The client stopped sending its body.
    #[error("the request body ended early")]
    BodyCut,
    /// The client has sent nothing more of its body for so long.
    #[error("nothing came of the request body for {} s", .0.as_secs())]
    BodyStalled(Duration),
    /// The caller may not use the model.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No upstream serves the model for the caller.
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// The caller cannot afford it.
    #[error("refused by the ledger: {refusal:?}")]
    Blocked {
        /// Why.
        refusal: Refusal,
        /// When it is worth trying again.
        retry_after: Option<Duration>,
    },
    /// An upstream said that it is overloaded, and none served the request.
    #[error("every upstream is overloaded or failed")]
    Overloaded {
        /// When it is worth trying again, in the upstream's words.
        retry_after: Option<HeaderValue>,
    },
    /// No upstream served the request.
    #[error("all upstreams failed ({configured} attempted)")]
    Exhausted {
        /// How many are configured.
        configured: usize,
    },
    /// The gateway is stopping, and the time to drain is over.
    #[error("the gateway is shutting down")]
    Stopping,
}

impl Inference {
    /// Admits a request, asks upstreams until one serves it, and hands back the answer as it comes. However it ends - by
    /// an answer, a failure, or because this future or the answer's body is dropped - it is settled and audited once.
    ///
    /// # Errors
    /// [`Failure`]; nothing was charged then, unless the gateway stopped while an upstream was at work.
    pub async fn run<B>(
        self: &Arc<Self>,
        endpoint: Endpoint,
        facts: Facts,
        request: Request<B>,
    ) -> Result<Answer, Failure>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        // No request is taken on that could not be written down.
        self.audit.ready().await;
        let facts = if self.load_test.is_some() { load_test::person(facts, request.headers()) } else { facts };
        let mut tab = Tab::open(Arc::clone(self), endpoint, facts);
        let admitted = match admit::admit(&mut tab, request).await {
            Ok(admitted) => admitted,
            Err(failure) => {
                tab.refuse(&failure);
                return Err(failure);
            }
        };
        match attempt::attempt(&mut tab, admitted).await {
            Ok(answered) => Ok(relay::relay(tab, answered)),
            Err(failure) => {
                tab.refuse(&failure);
                Err(failure)
            }
        }
    }
}

impl Failure {
    /// What the client is answered; the audit event says the same.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Body(_)
            | Self::BodyCut
            | Self::Denied(_)
            | Self::Unserved(_)
            | Self::Blocked { refusal: Refusal::Unbounded(_), .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyStalled(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Blocked { .. } | Self::Full(Full::Person) => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded { .. } | Self::Stopping | Self::Full(Full::Gateway) => {
                StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Exhausted { .. } => StatusCode::BAD_GATEWAY,
        }
    }
}

#[cfg(test)]
mod tests;
