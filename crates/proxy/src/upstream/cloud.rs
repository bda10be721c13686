//! What the clouds share: one request is built, authorized and sent, and its answer becomes one in Anthropic's format.
//!
//! Knows streams, errors and what a cloud refuses; what is different in each of them is its [`Provider`].

mod body;
mod without;

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control::connect::{ResponseBody, UpstreamClient, chain, connect_error};
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING,
    USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, response};
use http_body_util::BodyExt;
use wire::{catalog, cloud};

use super::base::Base;
use super::parts::Parts;
use super::renewed::NoCredential;
use super::{Answer, Call, Caller, Config, Endpoint, Failure, Invalid, Sent};
use body::First;
use without::Learned;

pub(super) use body::{CloudBody, Framing};
pub(super) use without::Without;

pub(super) const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
pub(super) const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// The beta that `tags` in the body needs.
pub(super) const TAGS_BETA: &str = "request-tags-2026-08-21";

/// Errors are read up to here.
const MAX_ERROR: usize = 64 * 1024;
/// Of a cloud's words, so many bytes are logged.
const MAX_LOGGED: usize = 1000;

/// What one kind of cloud does in its own way.
pub(super) trait Provider: fmt::Debug + Send + Sync {
    /// Which one it is.
    const KIND: catalog::Provider;
    /// How it frames its streams.
    const FRAMING: Framing;

    /// Where the request goes below `base_url`, its body, and headers beside those that every cloud is sent.
    ///
    /// # Errors
    /// A sentence, when no request can be made of what the client sent.
    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String>;

    /// Puts a credential into the request, which is otherwise complete.
    ///
    /// # Errors
    /// When there is none.
    fn authorize(
        &self,
        request: &mut Unsigned,
        caller: &Caller<'_>,
    ) -> impl Future<Output = Result<(), NoCredential>> + Send;

    /// The credential behind the `authorization` that was `shown` for this caller has ended or was revoked: another one is
    /// fetched for the next request. Whether it will be; what the configuration holds stays.
    fn refused(&self, shown: &HeaderValue, caller: &Caller<'_>) -> bool;
}

/// What a [`Provider`] makes of a client's request.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Below `base_url`, percent-encoded.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<Bytes>,
}

/// A request before it carries its credential.
#[derive(Debug)]
pub(super) struct Unsigned {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<Bytes>,
}

/// How the clouds are reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) client: &'a UpstreamClient<Parts>,
    /// For a connection that has to be made.
    pub(super) connect: Duration,
    /// Between two pieces of an answer.
    pub(super) idle: Duration,
}

/// One configured upstream on a cloud.
#[derive(Debug)]
pub(super) struct Cloud<P> {
    name: String,
    base: Base,
    headers: Vec<(HeaderName, HeaderValue)>,
    learned: Learned,
    api: P,
}

impl<P: Provider> Cloud<P> {
    pub(super) fn new(config: &Config, api: P) -> Result<Self, Invalid> {
        Ok(Self {
            name: config.name.clone(),
            base: Base::new(&config.name, &config.base_url)?,
            headers: config.headers.clone(),
            learned: Learned::new(P::KIND),
            api,
        })
    }

    /// What that model is known not to know.
    #[cfg(test)]
    pub(super) fn known(&self, model_id: &str) -> std::sync::Arc<Without> {
        self.learned.of(model_id)
    }

    pub(super) fn api(&self) -> &P {
        &self.api
    }

    /// Asks for what the call says. A refusal that says which beta or field is not known there is asked once more without
    /// it (contract R29); that is remembered.
    ///
    /// # Errors
    /// When another upstream may be asked.
    pub(super) async fn ask(
        &self,
        way: Way<'_>,
        call: &Call<'_>,
        model_id: &str,
        sent: &Sent,
    ) -> Result<Answer, Failure> {
        if !call.head.layout.is_whole() {
            return Err(Failure::Unsendable("its body has more top-level fields than can be followed".to_owned()));
        }
        let without = self.learned.of(model_id);
        let (response, shown) = self.send(way, call, model_id, &without, sent).await?;
        if response.status().is_success() {
            return self.answer(way, call, response).await;
        }
        let refusal = self.read_refusal(call, response, shown).await?;
        let unknown = refusal.text.as_deref().filter(|_| refusal.head.status == StatusCode::BAD_REQUEST);
        let Some(less) = unknown.and_then(cloud::unknown).and_then(|unknown| without.and(&unknown, call)) else {
            return self.refused(call, refusal);
        };
        tracing::warn!(
            request_id = call.request_id,
            upstream = self.name,
            model = model_id,
            "asking once more without what the upstream does not know: {}",
            less.newly(&without)
        );
        let (response, shown) = self.send(way, call, model_id, &less, sent).await?;
        if response.status().is_success() {
            self.learned.keep(model_id, less);
            return self.answer(way, call, response).await;
        }
        let refusal = self.read_refusal(call, response, shown).await?;
        self.refused(call, refusal)
    }

    /// The answer, and the `authorization` that was shown for it.
    async fn send(
        &self,
        way: Way<'_>,
        call: &Call<'_>,
        model_id: &str,
        without: &Without,
        sent: &Sent,
    ) -> Result<(Response<ResponseBody>, Option<HeaderValue>), Failure> {
        let request = self.request(call, model_id, without, sent).await?;
        let shown = request.headers().get(AUTHORIZATION).cloned();
        let response = way.client.request_within(request, way.connect).await;
        let response = response.map_err(|error| match connect_error(&error) {
            Some(error) => Failure::Unreachable(error.to_string()),
            None => Failure::Interrupted(chain(&error)),
        })?;
        Ok((response, shown))
    }

    /// The request as it is sent.
    pub(super) async fn request(
        &self,
        call: &Call<'_>,
        model_id: &str,
        without: &Without,
        sent: &Sent,
    ) -> Result<Request<Parts>, Failure> {
        let Outgoing { path, mut headers, body } =
            self.api.outgoing(call, model_id, without).map_err(Failure::Unsendable)?;
        let unsendable = |error: http::Error| Failure::Unsendable(error.to_string());
        let uri = self.base.uri(&path, None).map_err(unsendable)?;
        headers.insert(HOST, self.base.host().map_err(unsendable)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(super::anthropic::VERSION));
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        let mut unsigned = Unsigned { uri, headers, body };
        self.api
            .authorize(&mut unsigned, &call.caller)
            .await
            .map_err(|NoCredential(why)| Failure::Uncredentialed(why))?;
        let Unsigned { uri, headers, body } = unsigned;
        let mut request = Request::new(Parts::new(body, sent.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn answer(&self, way: Way<'_>, call: &Call<'_>, response: Response<ResponseBody>) -> Result<Answer, Failure> {
        let (mut head, body) = response.into_parts();
        let is_stream = call.head.stream && call.endpoint == Endpoint::Messages;
        let wanted = if is_stream { P::FRAMING.media_type() } else { "application/json" };
        let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case(wanted) {
            return Err(Failure::Interrupted(format!("it answered {media_type:?} in place of {wanted}")));
        }
        if !is_stream {
            return Ok(Answer::arriving(Response::from_parts(head, body)));
        }
        // Nobody asked for one, and events cannot be told apart in it.
        if let Some(encoding) = head.headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            return Err(Failure::Interrupted(format!("it answered with a stream in the encoding {encoding:?}")));
        }
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        head.headers.remove(CONTENT_LENGTH);
        let mut body = Box::pin(CloudBody::new(body, P::FRAMING, way.idle));
        match body.as_mut().first().await {
            First::Events(events) => Ok(Answer::streaming(head, events, body)),
            First::Error { status: Some(status), body } => {
                head.status = status;
                let text = cloud::text(&body);
                self.tell(call, status, text.as_deref(), &body);
                self.refused(call, Refusal { head, body, text, is_forgotten: false })
            }
            First::Error { status: None, body } => {
                Err(Failure::FirstFrame(cut(&String::from_utf8_lossy(&body)).to_owned()))
            }
            First::Nothing(why) => Err(Failure::Interrupted(why)),
        }
    }

    async fn read_refusal(
        &self,
        call: &Call<'_>,
        response: Response<ResponseBody>,
        shown: Option<HeaderValue>,
    ) -> Result<Refusal, Failure> {
        let (head, mut body) = response.into_parts();
        let mut read = BytesMut::new();
        while read.len() < MAX_ERROR
            && let Some(frame) = body.frame().await
        {
            let frame = frame.map_err(|error| Failure::Interrupted(chain(&error)))?;
            read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        let body = read.freeze();
        let text = cloud::text(&body);
        self.tell(call, head.status, text.as_deref(), &body);
        let is_stale = cloud::is_stale_credential(head.status.as_u16(), text.as_deref().unwrap_or_default());
        let is_forgotten = is_stale && shown.is_some_and(|shown| self.api.refused(&shown, &call.caller));
        if is_forgotten {
            tracing::warn!(upstream = self.name, "its credential is not shown again: the next request fetches another");
        }
        Ok(Refusal { head, body, text, is_forgotten })
    }

    /// A cloud's own words go to the log, and to nobody else.
    fn tell(&self, call: &Call<'_>, status: StatusCode, text: Option<&str>, body: &[u8]) {
        let raw = String::from_utf8_lossy(&body[..body.len().min(MAX_LOGGED)]);
        let text = cut(text.unwrap_or(&raw));
        tracing::warn!(
            request_id = call.request_id,
            upstream = self.name,
            status = status.as_u16(),
            "upstream refused: {text}"
        );
    }

    /// What the client is told of an error, if it comes to that.
    fn refused(&self, call: &Call<'_>, refusal: Refusal) -> Result<Answer, Failure> {
        let Refusal { mut head, body, text, is_forgotten } = refusal;
        if head.status.is_redirection() || head.status.is_informational() {
            return Err(Failure::Interrupted(format!("it answered {}", head.status)));
        }
        for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING, CACHE_CONTROL] {
            head.headers.remove(name);
        }
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let lacks_model = text.as_deref().is_some_and(cloud::is_unknown_model);
        if lacks_model && head.status == StatusCode::BAD_REQUEST {
            let message = format!("model {} is not available on {}", call.head.model, self.name);
            let told = cloud::Told { kind: wire::error::ErrorType::InvalidRequest, message: message.into() };
            let answer = Answer::whole(Response::from_parts(head, told.body(call.request_id)));
            return Err(Failure::NoModel(Box::new(answer)));
        }
        let told = cloud::told(head.status.as_u16(), &body).body(call.request_id);
        let answer = Answer::whole(Response::from_parts(head, told));
        if is_forgotten { Err(Failure::Credential(Box::new(answer))) } else { Ok(answer) }
    }
}

/// An error that was read.
struct Refusal {
    head: response::Parts,
    body: Bytes,
    text: Option<String>,
    /// The credential that was shown is not shown again.
    is_forgotten: bool,
}

fn cut(text: &str) -> &str {
    let end = (0..=MAX_LOGGED.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    &text[..end]
}

/// The betas of a request that pass: those of the client but for what the upstream does not know.
pub(super) fn betas<'a>(call: &Call<'a>, without: &'a Without, keep_tags: bool) -> impl Iterator<Item = &'a str> {
    let lines = call.headers.get_all(ANTHROPIC_BETA).iter().filter_map(|line| line.to_str().ok());
    let named = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|beta| !beta.is_empty());
    named.filter(move |beta| (keep_tags || *beta != TAGS_BETA) && !without.has_beta(beta))
}

/// The client's headers that clouds of Anthropic's format are sent.
pub(super) fn anthropic_headers(call: &Call<'_>, without: &Without, keep_tags: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    if let Some(version) = call.headers.get(ANTHROPIC_VERSION) {
        headers.insert(ANTHROPIC_VERSION, version.clone());
    }
    let betas: Vec<&str> = betas(call, without, keep_tags).collect();
    if let Ok(value) = HeaderValue::try_from(betas.join(","))
        && !betas.is_empty()
    {
        headers.insert(ANTHROPIC_BETA, value);
    }
    headers
}
