//! The telemetry relay: what clients post for OpenTelemetry collectors, passed on as it came.
//!
//! Knows destinations and signals; reads no telemetry, keeps no queue, and never makes a client wait.

mod breaker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use control::clock::Clock;
use control::connect::{Egress, UpstreamClient, chain};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use url::Url;

use breaker::Breaker;

/// KiB that posts on their way may hold together; beyond it, posts are dropped.
const ROOM_KIB: u32 = 64 * 1024;
/// What the smallest post counts for, so that their number is bounded too.
const LEAST_KIB: u32 = 64;
/// The default export timeout of OpenTelemetry's SDKs: who waits longer has given up.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers are read so that the connection can be used again; a longer one closes it.
const MAX_ANSWER: usize = 64 * 1024;

const USER_AGENT_VALUE: HeaderValue = HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));

/// One entry of `telemetry.forward_to`.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `url`: `/v1/<signal>` is appended to its path.
    pub url: Url,
    /// `headers`, sent with every post; marked sensitive, for their values may be secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `metrics` (default on).
    pub metrics: bool,
    /// `logs` (default off).
    pub logs: bool,
    /// `traces` (default off).
    pub traces: bool,
}

/// What a post carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `/v1/metrics`.
    Metrics,
    /// `/v1/logs`.
    Logs,
    /// `/v1/traces`.
    Traces,
}

/// A destination whose URL cannot be posted to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("telemetry destination {0}: the URL cannot be posted to")]
pub struct Invalid(String);

/// Passes telemetry on.
#[derive(Debug)]
pub struct Relay {
    outlets: Vec<Arc<Outlet>>,
    client: UpstreamClient<Full<Bytes>>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Outlet {
    /// For logs: no user, password or query.
    shown: String,
    /// By signal; `None`: not wanted there.
    uris: [Option<Uri>; 3],
    headers: Vec<(HeaderName, HeaderValue)>,
    breaker: Mutex<Breaker>,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Traces];

    /// Its path, ours and the destination's.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
            Self::Traces => "/v1/traces",
        }
    }
}

impl Relay {
    /// A relay to these destinations; posts on their way are tracked in `tasks`.
    ///
    /// # Errors
    /// [`Invalid`] for the first destination that cannot be used.
    pub fn new(
        destinations: Vec<Destination>,
        egress: &Egress,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Result<Self, Invalid> {
        let outlets = destinations.into_iter().map(|destination| Outlet::new(destination).map(Arc::new));
        Ok(Self {
            outlets: outlets.collect::<Result<_, _>>()?,
            client: egress.client(),
            clock,
            tasks,
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            dropped: AtomicU64::new(0),
        })
    }

    /// Sends a client's post to every destination that wants the signal, and returns at once. Of `headers` only the type
    /// and encoding of the content are passed on.
    pub fn forward(&self, signal: Signal, headers: &HeaderMap, body: &Bytes) {
        for outlet in &self.outlets {
            let Some(request) = outlet.request(signal, headers, body) else { continue };
            if !outlet.breaker().lets_pass(self.clock.instant()) {
                continue;
            }
            match self.room_for(body.len()) {
                Some(room) => self.post(Arc::clone(outlet), request, room),
                None => self.drop_post(outlet),
            }
        }
    }

    /// How many posts were dropped because too much was on its way.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).clamp(LEAST_KIB, ROOM_KIB);
        Arc::clone(&self.room).try_acquire_many_owned(kib).ok()
    }

    fn drop_post(&self, outlet: &Outlet) {
        outlet.breaker().was_not_sent(self.clock.instant());
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        // Ever more rarely: a slow collector must not fill the log.
        if dropped.is_power_of_two() {
            tracing::warn!(dropped, "otel forward to {} dropped: too much telemetry is on its way", outlet.shown);
        }
    }

    fn post(&self, outlet: Arc<Outlet>, request: Request<Full<Bytes>>, room: OwnedSemaphorePermit) {
        let (client, clock) = (self.client.clone(), Arc::clone(&self.clock));
        self.tasks.spawn(async move {
            let posted = tokio::time::timeout(POST_TIMEOUT, exchange(&client, request)).await;
            outlet.judge(posted.unwrap_or_else(|_| Err("no answer in time".to_owned())), &*clock);
            drop(room);
        });
    }
}

/// Any 2xx is a success.
async fn exchange(client: &UpstreamClient<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<(), String> {
    let answer = client.request(request).await.map_err(|error| chain(&error))?;
    let status = answer.status();
    let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    if status.is_success() { Ok(()) } else { Err(status.to_string()) }
}

impl Outlet {
    fn new(destination: Destination) -> Result<Self, Invalid> {
        let Destination { url, headers, metrics, logs, traces } = destination;
        let mut shown = url.clone();
        // Fails only for URLs that have no host, and those fail below.
        let _ = shown.set_username("").and_then(|()| shown.set_password(None));
        shown.set_query(None);
        let base = shown.as_str().trim_end_matches('/');
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut uris = [None, None, None];
        for (signal, wanted) in Signal::ALL.into_iter().zip([metrics, logs, traces]) {
            let text = format!("{base}{}{query}", signal.path());
            let uri: Uri = text.parse().map_err(|_| Invalid(base.to_owned()))?;
            if uri.host().is_none() {
                return Err(Invalid(base.to_owned()));
            }
            uris[signal as usize] = wanted.then_some(uri);
        }
        Ok(Self { shown: base.to_owned(), uris, headers, breaker: Mutex::default() })
    }

    /// The post, where the signal is wanted.
    fn request(&self, signal: Signal, headers: &HeaderMap, body: &Bytes) -> Option<Request<Full<Bytes>>> {
        let uri = self.uris[signal as usize].clone()?;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let sent = request.headers_mut();
        for name in [CONTENT_TYPE, CONTENT_ENCODING] {
            if let Some(value) = headers.get(&name) {
                sent.insert(name, value.clone());
            }
        }
        sent.insert(USER_AGENT, USER_AGENT_VALUE);
        for (name, value) in &self.headers {
            sent.insert(name.clone(), value.clone());
        }
        Some(request)
    }

    fn judge(&self, posted: Result<(), String>, clock: &dyn Clock) {
        let Err(reason) = posted else { return self.breaker().succeeded() };
        tracing::warn!("otel forward to {} failed: {reason}", self.shown);
        if self.breaker().failed(clock.instant()) {
            tracing::warn!("otel dest {} tripped; skipping {}s", self.shown, breaker::REST.as_secs());
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
