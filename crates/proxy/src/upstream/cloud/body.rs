//! The stream of a cloud as Anthropic's: whole events as they come, and a ping where nothing comes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control::connect::ResponseBody;
use http::StatusCode;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use wire::event_stream::{Broken, Decoder};
use wire::sse::{Reader, WholeEvents};

use super::super::answer::AnswerError;

/// After so long without an event the client hears that there is still somebody (contract B4).
pub(super) const SILENCE: Duration = Duration::from_secs(15);

const PING: Bytes = Bytes::from_static(b"event: ping\ndata: {\"type\": \"ping\"}\n\n");

/// How a cloud frames its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Framing {
    /// Server-sent events of the Messages API.
    Events,
    /// Amazon's event stream around them.
    Amazon,
}

impl Framing {
    /// Its `content-type`.
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Amazon => "application/vnd.amazon.eventstream",
        }
    }
}

pin_project! {
    /// A body of whole events, from a body in a cloud's framing.
    #[derive(Debug)]
    pub(in super::super) struct CloudBody<B = ResponseBody> {
        // `None` when no more can come.
        source: Option<B>,
        codec: Codec,
        // Whole events that are to be handed out.
        ready: Bytes,
        // Told when they are.
        broken: Option<AnswerError>,
        #[pin]
        silence: Option<Sleep>,
        // Pings since something came.
        pings: u32,
        // How long nothing may come.
        idle: Duration,
    }
}

#[derive(Debug)]
enum Codec {
    Events(WholeEvents),
    Amazon(Decoder),
}

/// What a stream begins with.
#[derive(Debug)]
pub(super) enum First {
    /// Events that go to the client, or a ping.
    Events(Bytes),
    /// An error, as the status that it stands for where that is known, and its words.
    Error { status: Option<StatusCode>, body: Bytes },
    /// It ended, and why.
    Nothing(String),
}

impl Codec {
    fn feed(&mut self, chunk: &Bytes) -> (Bytes, Option<AnswerError>) {
        match self {
            Self::Events(whole) => match whole.feed(chunk) {
                Ok(events) => (events, None),
                Err(oversized) => (Bytes::new(), Some(AnswerError::Stream(oversized.to_string()))),
            },
            Self::Amazon(decoder) => {
                let mut events = BytesMut::new();
                let broken = decoder.feed(chunk, &mut events).err();
                (events.freeze(), broken.map(AnswerError::Frames))
            }
        }
    }

    fn is_within(&self) -> bool {
        match self {
            Self::Events(whole) => whole.is_within(),
            Self::Amazon(decoder) => decoder.is_within(),
        }
    }
}

impl<B> CloudBody<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    pub(in super::super) fn new(source: B, framing: Framing, idle: Duration) -> Self {
        let codec = match framing {
            Framing::Events => Codec::Events(WholeEvents::default()),
            Framing::Amazon => Codec::Amazon(Decoder::default()),
        };
        Self { source: Some(source), codec, ready: Bytes::new(), broken: None, silence: None, pings: 0, idle }
    }

    /// Waits for its beginning: nobody is told anything before that.
    pub(super) async fn first(mut self: Pin<&mut Self>) -> First {
        match std::future::poll_fn(|cx| self.as_mut().poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let events = frame.into_data().unwrap_or_default();
                match first_error(&events) {
                    Some((status, body)) => First::Error { status, body },
                    None => First::Events(events),
                }
            }
            Some(Err(AnswerError::Frames(Broken::Exception { kind, message }))) => {
                let status = status_of(&kind);
                let body = match status {
                    Some(_) => serde_json::json!({ "message": message }).to_string(),
                    None => format!("{kind}: {message}"),
                };
                First::Error { status, body: body.into() }
            }
            Some(Err(error)) => First::Nothing(error.to_string()),
            None => First::Nothing("it ended its stream before the first event".to_owned()),
        }
    }
}

impl<B> Body for CloudBody<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let mut this = self.project();
        loop {
            if !this.ready.is_empty() {
                this.silence.set(None);
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.ready)))));
            }
            if let Some(broken) = this.broken.take() {
                *this.source = None;
                return Poll::Ready(Some(Err(broken)));
            }
            let Some(source) = this.source.as_mut() else { return Poll::Ready(None) };
            match Pin::new(source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(chunk) = frame.into_data() else { continue };
                    *this.pings = 0;
                    (*this.ready, *this.broken) = this.codec.feed(&chunk);
                }
                Poll::Ready(Some(Err(error))) => *this.broken = Some(error.into()),
                Poll::Ready(None) => {
                    *this.source = None;
                    if this.codec.is_within() {
                        *this.broken = Some(AnswerError::Stream("it ended within an event".to_owned()));
                    }
                }
                Poll::Pending => {
                    let waited = SILENCE * *this.pings;
                    if this.silence.is_none() {
                        let left = this.idle.saturating_sub(waited);
                        this.silence.set(Some(tokio::time::sleep(SILENCE.min(left))));
                    }
                    let Some(silence) = this.silence.as_mut().as_pin_mut() else { return Poll::Pending };
                    if silence.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if waited + SILENCE >= *this.idle {
                        let seconds = this.idle.as_secs_f64();
                        *this.broken = Some(AnswerError::Stream(format!("it has sent nothing for {seconds} s")));
                        continue;
                    }
                    *this.pings += 1;
                    *this.ready = PING;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.broken.is_none() && self.source.is_none()
    }
}

/// The status that an exception of Bedrock's stands for, where a client can act on it.
/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html>
fn status_of(kind: &str) -> Option<StatusCode> {
    match kind {
        "throttlingException" => Some(StatusCode::TOO_MANY_REQUESTS),
        "serviceUnavailableException" => Some(StatusCode::SERVICE_UNAVAILABLE),
        "validationException" => Some(StatusCode::BAD_REQUEST),
        _ => None,
    }
}

/// The error that stands in the place of the first event, and the status it stands for.
fn first_error(events: &Bytes) -> Option<(Option<StatusCode>, Bytes)> {
    let mut first = None;
    Reader::new().feed(events, |event| {
        if first.is_none() {
            first = Some((event.name == b"error", Bytes::copy_from_slice(event.data)));
        }
    });
    let (_, body) = first.filter(|(is_error, _)| *is_error)?;
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let status = match told["error"]["type"].as_str() {
        Some("overloaded_error") => StatusCode::from_u16(529).ok(),
        Some("rate_limit_error") => Some(StatusCode::TOO_MANY_REQUESTS),
        Some("invalid_request_error") => Some(StatusCode::BAD_REQUEST),
        _ => None,
    };
    Some((status, body))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use http_body_util::BodyExt;
    use http_body_util::channel::{Channel, Sender};

    use super::*;

    type Source = Channel<Bytes, hyper::Error>;

    fn body() -> (Sender<Bytes, hyper::Error>, Pin<Box<CloudBody<Source>>>) {
        let (sender, source) = Channel::new(8);
        (sender, Box::pin(CloudBody::new(source, Framing::Events, Duration::from_secs(300))))
    }

    async fn next<B>(body: &mut Pin<Box<CloudBody<B>>>) -> Option<String>
    where
        B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
    {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_pings_before_between_and_never_within_events() {
        let (mut sender, mut body) = body();
        let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
        assert!(matches!(body.as_mut().first().await, First::Events(events) if events == ping));
        sender.send_data(Bytes::from_static(b"event: a\ndata: 1\n\nevent: b\n")).await.unwrap();
        assert_eq!(next(&mut body).await.as_deref(), Some("event: a\ndata: 1\n\n"));
        assert_eq!(next(&mut body).await.as_deref(), Some(ping));
        assert_eq!(next(&mut body).await.as_deref(), Some(ping));
        sender.send_data(Bytes::from_static(b"data: 2\n\n")).await.unwrap();
        assert_eq!(next(&mut body).await.as_deref(), Some("event: b\ndata: 2\n\n"));
        drop(sender);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_stays_silent_is_given_up() {
        let (_sender, mut body) = body();
        for _ in 0..19 {
            assert!(next(&mut body).await.is_some());
        }
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "it has sent nothing for 300 s");
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "time is the runtime's here, and stands still")]
    async fn it_is_given_up_at_its_idle_timeout_and_not_at_the_ping_after_it() {
        for (idle, pings) in [(5, 0), (15, 0), (20, 1), (31, 2)] {
            let (_sender, source) = Channel::new(8);
            let idle = Duration::from_secs(idle);
            let mut body = Box::pin(CloudBody::new(source, Framing::Events, idle));
            let began = tokio::time::Instant::now();
            for _ in 0..pings {
                assert!(next(&mut body).await.is_some());
            }
            body.frame().await.unwrap().unwrap_err();
            let waited = began.elapsed();
            assert!(waited >= idle && waited < idle + Duration::from_secs(1), "{idle:?}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_starts_the_idle_time_anew() {
        let (mut sender, source) = Channel::new(8);
        let mut body = Box::pin(CloudBody::new(source, Framing::Events, Duration::from_secs(40)));
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            sender.send_data(Bytes::from_static(event.as_bytes())).await.unwrap();
            assert_eq!(next(&mut body).await.as_deref(), Some(event));
            assert!(next(&mut body).await.is_some() && next(&mut body).await.is_some(), "two pings in 30 s");
        }
        body.frame().await.unwrap().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_starts_the_silence_anew() {
        let (mut sender, mut body) = body();
        let events = async {
            for _ in 0..3 {
                tokio::time::sleep(SILENCE - Duration::from_secs(1)).await;
                sender.send_data(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
            }
        };
        let read = async {
            for _ in 0..3 {
                assert_eq!(next(&mut body).await.as_deref(), Some("data: 1\n\n"));
            }
        };
        tokio::join!(events, read);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_an_event_is_broken() {
        let (mut sender, mut body) = body();
        sender.send_data(Bytes::from_static(b"data: 1\n\ndata: 2")).await.unwrap();
        drop(sender);
        assert_eq!(next(&mut body).await.as_deref(), Some("data: 1\n\n"));
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "it ended within an event");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_error_in_the_place_of_the_first_event_is_found() {
        for (kind, status) in [("overloaded_error", Some(529)), ("rate_limit_error", Some(429)), ("api_error", None)] {
            let (mut sender, mut body) = body();
            let event = format!("event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\"}}}}\n\n");
            sender.send_data(event.into()).await.unwrap();
            let First::Error { status: found, .. } = body.as_mut().first().await else { unreachable!("{kind}") };
            assert_eq!(found.map(|status| status.as_u16()), status, "{kind}");
        }
    }
}
