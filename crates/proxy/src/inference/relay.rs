//! The third phase: the answer goes to the client as it comes, byte for byte, while the meter listens beside it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use wire::error::{Envelope, ErrorType};
use wire::usage::{Meter, Source};

use super::attempt::Answered;
use super::settle::{Charge, Outcome, Tab};
use super::{Answer, Failure};
use crate::upstream::{AnswerBody, AnswerError, Endpoint, answer_headers};

/// Bytes of text after which the reservation is looked at again; about a thousand tokens.
const GROW_EVERY: u64 = 4096;

pin_project! {
    /// The body of an [`Answer`]: an upstream's bytes. Dropping it lets go of the upstream.
    #[derive(Debug)]
    pub struct Relay {
        body: Option<AnswerBody>,
        #[pin]
        cut: WaitForCancellationFutureOwned,
        ended: Option<Ended>,
        // How long the upstream may pause.
        idle: Duration,
        // Runs while it pauses.
        #[pin]
        pause: Option<Sleep>,
        // Why it broke off, for the next time it is asked.
        broken: Option<Interrupted>,
        witness: Witness,
    }

    impl PinnedDrop for Relay {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.witness.abandon(this.body.as_ref().is_none_or(Body::is_end_stream));
        }
    }
}

/// Why an answer's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// The upstream's connection broke.
    #[error("the upstream broke off its answer")]
    Upstream(#[from] AnswerError),
    /// The upstream has sent nothing for so long (`idle_ms`).
    #[error("the upstream has sent nothing for {} s", .0.as_secs_f64())]
    Idle(Duration),
    /// The gateway is stopping, and the time to drain is over.
    #[error("the gateway is shutting down")]
    Stopping,
    /// The caller's session has ended.
    #[error("the session has ended")]
    SessionEnded,
}

/// Comes when the caller's session has ended.
struct Ended(Pin<Box<dyn Future<Output = ()> + Send>>);

/// What goes on beside the bytes.
#[derive(Debug)]
struct Witness {
    tab: Tab,
    /// `None` when the answer is not paid for.
    listener: Option<Listener>,
    /// `None` when nothing can be written between its events.
    events: Option<Events>,
    /// A break is told as an event behind the whole ones that came.
    tells_breaks: bool,
}

/// The meter, and how much of what it saw the ledger knows.
#[derive(Debug)]
struct Listener {
    meter: Meter,
    is_stream: bool,
    /// It says that it is a JSON document.
    is_document: bool,
    told: (Source, u64),
}

/// Where in a stream of events we are: an event of ours may only stand between two of the upstream's.
#[derive(Debug)]
struct Events {
    last: [u8; 4],
}

/// The answer for the client: its headers now, its body as it comes.
pub(super) fn relay(mut tab: Tab, answered: Answered) -> Answer {
    let Answered { upstream, answer } = answered;
    tab.serve(Arc::clone(&upstream), &answer);
    let is_stream = answer.is_event_stream();
    let is_metered = answer.status().is_success() && tab.endpoint() == Endpoint::Messages;
    let listener = is_metered.then(|| Listener {
        meter: Meter::new(answer.content_type(), answer.content_encoding()),
        is_stream,
        is_document: !is_stream && answer.is_of_messages_api(),
        told: (Source::None, 0),
    });
    // Nothing can be written into a compressed stream.
    let events = (is_stream && answer.content_encoding().is_none()).then_some(Events { last: *b"\n\n\n\n" });
    let (status, headers) = (answer.status(), answer_headers(answer.headers()));
    let body = answer.into_body();
    let tells_breaks = body.is_of_whole_events();
    Answer {
        status,
        headers,
        standing: tab.standing().cloned(),
        body: Relay {
            body: Some(body),
            cut: tab.inference().cut.clone().cancelled_owned(),
            ended: None,
            idle: upstream.idle_timeout(),
            pause: None,
            broken: None,
            witness: Witness { tab, listener, events, tells_breaks },
        },
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ended")
    }
}

impl Relay {
    /// The same, broken off when `ended` comes.
    #[must_use]
    pub fn until(mut self, ended: impl Future<Output = ()> + Send + 'static) -> Self {
        self.ended = Some(Ended(Box::pin(ended)));
        self
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let mut this = self.project();
        if let Some(why) = this.broken.take() {
            return Poll::Ready(Some(Err(why)));
        }
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        loop {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                // Only who has nothing to pass on asks whether there is time left.
                let why = if this.ended.as_mut().is_some_and(|ended| ended.0.as_mut().poll(cx).is_ready()) {
                    Interrupted::SessionEnded
                } else if this.cut.as_mut().poll(cx).is_ready() {
                    Interrupted::Stopping
                } else {
                    if this.pause.is_none() {
                        this.pause.set(Some(tokio::time::sleep(*this.idle)));
                    }
                    if let Some(pause) = this.pause.as_mut().as_pin_mut() {
                        ready!(pause.poll(cx));
                    }
                    Interrupted::Idle(*this.idle)
                };
                *this.body = None;
                return Poll::Ready(Some(this.witness.cut_off(why)));
            };
            if this.pause.is_some() {
                this.pause.set(None);
            }
            match frame {
                Some(Ok(frame)) => {
                    // Trailers are not on the list of what clients may see.
                    let Ok(chunk) = frame.into_data() else { continue };
                    this.witness.hear(&chunk);
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                Some(Err(error)) => {
                    *this.body = None;
                    match this.witness.broke(error) {
                        Ok(told) => return Poll::Ready(Some(Ok(told))),
                        // What came before it is sent on first: a server drops what it has not written when a body fails.
                        Err(why) => *this.broken = Some(why),
                    }
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => {
                    *this.body = None;
                    if this.witness.is_cut_short() {
                        return Poll::Ready(Some(this.witness.broke(cut_short())));
                    }
                    this.witness.conclude(None);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Witness {
    /// Listens to a chunk that is being passed on.
    fn hear(&mut self, chunk: &Bytes) {
        self.tab.saw_first_byte();
        if let Some(events) = &mut self.events {
            events.pass(chunk);
        }
        if let Some(listener) = &mut self.listener {
            listener.hear(chunk, &mut self.tab);
        }
    }

    /// The upstream has not come to the end of its answer.
    fn broke_off(&mut self, why: &Interrupted) {
        self.tab.tell_broken_off(why);
        self.conclude(Some(Outcome::UpstreamAborted));
    }

    /// The same for a body that broke. Behind whole events the client is told so, and nothing of why (contract B4).
    fn broke(&mut self, why: AnswerError) -> Result<Frame<Bytes>, Interrupted> {
        let why = Interrupted::from(why);
        self.broke_off(&why);
        if !self.tells_breaks {
            return Err(why);
        }
        Ok(error_event(ErrorType::Api, "upstream error", &self.tab.facts().request_id))
    }

    /// A stream of whole events ended without its last one.
    fn is_cut_short(&self) -> bool {
        let unfinished = |listener: &Listener| {
            let reading = listener.meter.so_far();
            !reading.complete && reading.error_type.is_none()
        };
        self.tells_breaks && self.listener.as_ref().is_some_and(unfinished)
    }

    /// There is no time left: the upstream is let go, and the client is told where that is possible (R38).
    fn cut_off(&mut self, why: Interrupted) -> Result<Frame<Bytes>, Interrupted> {
        match why {
            Interrupted::Idle(_) | Interrupted::Upstream(_) => self.broke_off(&why),
            Interrupted::Stopping | Interrupted::SessionEnded => self.conclude(Some(Outcome::Cut)),
        }
        if !self.events.as_ref().is_some_and(Events::is_between) {
            return Err(why);
        }
        let (kind, text) = match why {
            Interrupted::SessionEnded => (ErrorType::Authentication, why.to_string()),
            Interrupted::Idle(_) => (ErrorType::Timeout, why.to_string()),
            Interrupted::Stopping | Interrupted::Upstream(_) => (ErrorType::Overloaded, Failure::Stopping.to_string()),
        };
        Ok(error_event(kind, &text, &self.tab.facts().request_id))
    }

    /// Settles: the answer came to its end, or `broken` says why it did not.
    fn conclude(&mut self, broken: Option<Outcome>) {
        if !self.tab.is_open() {
            return;
        }
        let (outcome, charge) = match self.listener.take() {
            Some(listener) => listener.conclude(broken, &self.tab),
            None => (broken.unwrap_or_else(|| self.tab.outcome_of_status()), Charge::Nothing),
        };
        self.tab.end(outcome, charge);
    }

    /// Nobody asks for more. When all of it has come (`is_ended`), that is the usual end: a server that knows the length
    /// stops asking there.
    fn abandon(&mut self, is_ended: bool) {
        let is_whole = is_ended || self.listener.as_ref().is_some_and(|listener| listener.meter.so_far().complete);
        let outcome = self.tab.abandoned();
        self.conclude(if is_whole { None } else { Some(outcome) });
    }
}

fn cut_short() -> AnswerError {
    AnswerError::Stream("it ended before its last event".to_owned())
}

fn error_event(kind: ErrorType, text: &str, request_id: &str) -> Frame<Bytes> {
    let envelope = Envelope::new(kind, text).request_id(request_id).to_bytes();
    Frame::data([b"event: error\ndata: ", &envelope[..], b"\n\n"].concat().into())
}

impl Listener {
    fn hear(&mut self, chunk: &Bytes, tab: &mut Tab) {
        self.meter.feed(chunk);
        let seen = self.meter.so_far();
        let (source, text_bytes) = self.told;
        if seen.source != source || seen.text_bytes >= text_bytes + GROW_EVERY {
            self.told = (seen.source, seen.text_bytes);
            tab.grow(&seen.billable());
        }
    }

    /// Contract R18: a complete answer costs its usage, a broken one what was seen of it.
    fn conclude(mut self, broken: Option<Outcome>, tab: &Tab) -> (Outcome, Charge) {
        let reading = self.meter.finish();
        let outcome = match (&reading.error_type, broken) {
            (_, Some(outcome)) => outcome,
            (Some(_), None) => Outcome::Error,
            (None, None) if reading.complete || !self.is_stream => Outcome::Complete,
            (None, None) => {
                tab.tell_broken_off(&cut_short().into());
                Outcome::UpstreamAborted
            }
        };
        if reading.clamped {
            tracing::warn!(
                request_id = %tab.facts().request_id,
                "the upstream reported impossible token counts; the nearest possible ones are charged"
            );
        }
        let mut usage = reading.billable();
        if !reading.prompt_stated {
            usage.input_tokens = tab.expected().input_tokens;
        }
        let charge = match reading.source {
            // An error instead of an answer, as an error status would be.
            Source::None if reading.error_type.is_some() && reading.text_bytes == 0 => Charge::Nothing,
            Source::Final if reading.is_final() && reading.prompt_stated => Charge::Used(usage),
            _ => Charge::Seen(usage),
        };
        if broken.is_none() && self.is_document && !reading.complete {
            tab.tell_half_document();
        }
        if broken.is_none() && reading.source == Source::None && reading.error_type.is_none() {
            tab.tell_unmetered();
        }
        (outcome, charge)
    }
}

impl Events {
    fn pass(&mut self, chunk: &[u8]) {
        let tail = &chunk[chunk.len().saturating_sub(self.last.len())..];
        self.last.rotate_left(tail.len());
        let kept = self.last.len() - tail.len();
        self.last[kept..].copy_from_slice(tail);
    }

    fn is_between(&self) -> bool {
        self.last.ends_with(b"\n\n") || self.last == *b"\r\n\r\n" || self.last.ends_with(b"\r\r")
    }
}
