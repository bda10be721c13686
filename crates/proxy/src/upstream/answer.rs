//! What an upstream answered: its head, and a body that is passed on as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use control::connect::ResponseBody;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use wire::event_stream::Broken;
use wire::usage::Meter;

use super::cloud::CloudBody;
use super::load_test::Reply;

/// Errors longer than this are relayed unread.
const MAX_PEEK: usize = 64 * 1024;

/// An upstream's answer.
#[derive(Debug)]
pub struct Answer {
    head: response::Parts,
    body: AnswerBody,
}

/// The body of an [`Answer`]; what was read to judge it comes first.
#[derive(Debug)]
pub struct AnswerBody {
    peeked: Bytes,
    rest: Rest,
}

/// What has not been read yet.
#[derive(Debug)]
enum Rest {
    Nothing,
    /// As it comes.
    Wire(ResponseBody),
    /// A cloud's stream, as Anthropic's.
    Cloud(Pin<Box<CloudBody>>),
    /// A canned reply in the place of either.
    Canned(Box<Reply>),
}

/// Why an answer's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The connection broke.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// What came is no stream of events any more, or says so itself.
    #[error(transparent)]
    Frames(Broken),
    /// The stream is not whole.
    #[error("{0}")]
    Stream(String),
}

impl Answer {
    /// An answer whose body is still to come.
    #[must_use]
    pub fn arriving(response: Response<ResponseBody>) -> Self {
        let (head, rest) = response.into_parts();
        Self { head, body: AnswerBody { peeked: Bytes::new(), rest: Rest::Wire(rest) } }
    }

    /// A cloud's stream that begins with these events.
    pub(super) fn streaming(head: response::Parts, first: Bytes, rest: Pin<Box<CloudBody>>) -> Self {
        Self { head, body: AnswerBody { peeked: first, rest: Rest::Cloud(rest) } }
    }

    /// The canned reply of a load test.
    pub(super) fn canned(response: Response<()>, reply: Reply) -> Self {
        let (head, ()) = response.into_parts();
        Self { head, body: AnswerBody { peeked: Bytes::new(), rest: Rest::Canned(Box::new(reply)) } }
    }

    /// An answer whose body is known.
    #[must_use]
    pub fn whole(response: Response<Bytes>) -> Self {
        let (head, peeked) = response.into_parts();
        Self { head, body: AnswerBody { peeked, rest: Rest::Nothing } }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// All its headers, those that no client may see among them.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Its `content-type`.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.head.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    /// It is a stream of server-sent events.
    #[must_use]
    pub fn is_event_stream(&self) -> bool {
        self.is_of_type("text/event-stream")
    }

    /// It is what the Messages API answers with.
    #[must_use]
    pub fn is_of_messages_api(&self) -> bool {
        self.is_event_stream() || self.is_of_type("application/json")
    }

    fn is_of_type(&self, media_type: &str) -> bool {
        let own = self.content_type().and_then(|value| value.split(';').next()).unwrap_or_default();
        own.trim().eq_ignore_ascii_case(media_type)
    }

    /// Its `content-encoding`.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&str> {
        self.head.headers.get(CONTENT_ENCODING)?.to_str().ok()
    }

    /// The upstream's own id of the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&HeaderValue> {
        self.head.headers.get("request-id").or_else(|| self.head.headers.get("x-request-id"))
    }

    /// The cloud's own id of the request.
    #[must_use]
    pub fn cloud_request_id(&self) -> Option<&HeaderValue> {
        self.head.headers.get("x-amzn-requestid")
    }

    /// Its body.
    #[must_use]
    pub fn into_body(self) -> AnswerBody {
        self.body
    }

    /// The message of a short error body; the body is still relayed afterwards.
    ///
    /// # Errors
    /// When the connection breaks before the body is whole.
    pub async fn error_message(&mut self) -> Result<Option<String>, hyper::Error> {
        let mut meter = Meter::new(self.content_type(), self.content_encoding());
        let mut rest = match std::mem::replace(&mut self.body.rest, Rest::Nothing) {
            Rest::Wire(rest) => rest,
            other => {
                self.body.rest = other;
                return Ok(None);
            }
        };
        let mut read = BytesMut::new();
        while let Some(frame) = rest.frame().await {
            let data = frame?.into_data().unwrap_or_default();
            read.extend_from_slice(&data);
            meter.feed(&data);
            if read.len() > MAX_PEEK {
                self.body = AnswerBody { peeked: read.freeze(), rest: Rest::Wire(rest) };
                return Ok(None);
            }
        }
        self.body.peeked = read.freeze();
        Ok(meter.finish().error_message)
    }
}

impl AnswerBody {
    /// It consists of whole events, so that one of ours can stand behind any of them, also when it breaks off.
    #[must_use]
    pub fn is_of_whole_events(&self) -> bool {
        matches!(self.rest, Rest::Cloud(_))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if !self.peeked.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.peeked)))));
        }
        match &mut self.rest {
            Rest::Wire(rest) => Pin::new(rest).poll_frame(cx).map_err(AnswerError::from),
            Rest::Cloud(rest) => rest.as_mut().poll_frame(cx),
            Rest::Canned(reply) => reply.poll_next(cx).map(|event| event.map(|event| Ok(Frame::data(event)))),
            Rest::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.peeked.is_empty()
            && match &self.rest {
                Rest::Wire(rest) => rest.is_end_stream(),
                Rest::Cloud(rest) => rest.is_end_stream(),
                Rest::Canned(reply) => reply.is_over(),
                Rest::Nothing => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let peeked = self.peeked.len() as u64;
        let rest = match &self.rest {
            Rest::Wire(rest) => rest.size_hint(),
            Rest::Cloud(_) | Rest::Canned(_) => SizeHint::default(),
            Rest::Nothing => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(peeked + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(peeked + upper);
        }
        hint
    }
}
