//! Load tests: canned answers at the pace of a model, in place of an upstream's (contract B10).
//!
//! Everything around them - bearer, policy, caps, metering, audit - is as it is otherwise, and they report no usage, so
//! that they cost nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use tokio::time::Interval;

use super::{Answer, Endpoint};

/// `load_test_mode`: what is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadTest {
    /// `reply_tokens`: how long a reply is.
    pub reply_tokens: u32,
    /// `reply_seconds`: how long a streamed one takes.
    pub reply_time: Duration,
}

/// About as many tokens as a model says at once.
const TOKENS_PER_EVENT: u32 = 3;
/// Twelve characters, about three tokens.
const TEXT: &str = "lorem ipsum ";
const HEAD: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_loadtest\",\"type\":\"message\",\
     \"role\":\"assistant\",\"model\":\"load-test\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
     \"usage\":{\"input_tokens\":0,\"output_tokens\":0}}}\n\n";
const BEGIN: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
     \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
     \"delta\":{\"type\":\"text_delta\",\"text\":\"lorem ipsum \"}}\n\n";
const STOP: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n";
const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\
     \"stop_sequence\":null},\"usage\":{\"output_tokens\":0}}\n\n";
const TAIL: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// A reply on its way.
#[derive(Debug)]
pub(super) struct Reply {
    next: u32,
    deltas: u32,
    /// `None`: all of it is ready.
    pace: Option<Pin<Box<Interval>>>,
}

impl LoadTest {
    /// The answer to a request; `is_stream`: it asks for a stream.
    #[must_use]
    pub fn answer(&self, endpoint: Endpoint, is_stream: bool) -> Answer {
        let deltas = self.reply_tokens.div_ceil(TOKENS_PER_EVENT);
        match endpoint {
            Endpoint::CountTokens => json(Bytes::from_static(b"{\"input_tokens\":0}")),
            Endpoint::Messages if is_stream => self.stream(deltas),
            Endpoint::Messages => json(message(deltas)),
        }
    }

    fn stream(&self, deltas: u32) -> Answer {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let step = self.reply_time.checked_div(deltas).filter(|step| !step.is_zero());
        let pace = step.map(|step| Box::pin(tokio::time::interval(step)));
        Answer::canned(response, Reply { next: 0, deltas, pace })
    }
}

impl Reply {
    /// The next event; none after the last.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let number = self.next;
        let last_delta = self.deltas + 1;
        let event = match number {
            0 => HEAD,
            1 => BEGIN,
            _ if number <= last_delta => {
                if let Some(pace) = &mut self.pace {
                    ready!(pace.as_mut().poll_tick(cx));
                }
                DELTA
            }
            _ => match number - last_delta {
                1 => STOP,
                2 => END,
                3 => TAIL,
                _ => return Poll::Ready(None),
            },
        };
        self.next += 1;
        Poll::Ready(Some(Bytes::from_static(event.as_bytes())))
    }

    /// Whether its last event has been taken.
    pub(super) fn is_over(&self) -> bool {
        self.next > self.deltas + 4
    }
}

fn json(body: Bytes) -> Answer {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer::whole(response)
}

fn message(deltas: u32) -> Bytes {
    let text = TEXT.repeat(usize::try_from(deltas).unwrap_or_default());
    let body = format!(
        "{{\"id\":\"msg_loadtest\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"load-test\",\
         \"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\
         \"usage\":{{\"input_tokens\":0,\"output_tokens\":0}}}}"
    );
    body.into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use http_body_util::BodyExt;
    use wire::usage::{Meter, Source};

    use super::*;

    const USUAL: LoadTest = LoadTest { reply_tokens: 750, reply_time: Duration::from_millis(9500) };

    #[tokio::test]
    async fn a_stream_says_that_it_cost_nothing() {
        let answer = LoadTest { reply_time: Duration::ZERO, ..USUAL }.answer(Endpoint::Messages, true);
        let mut meter = Meter::new(answer.content_type(), None);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        meter.feed(&body);
        let reading = meter.finish();
        assert!(reading.complete && reading.source == Source::Final);
        assert_eq!((reading.usage.input_tokens, reading.usage.output_tokens), (0, 0));
        assert_eq!(String::from_utf8(body.to_vec()).unwrap().matches("event: ").count(), 255);
    }

    #[tokio::test]
    async fn a_stream_takes_its_time() {
        let mut body = USUAL.answer(Endpoint::Messages, true).into_body();
        let mut ready = 0;
        while futures_util::poll!(body.frame()).is_ready() {
            ready += 1;
        }
        assert_eq!(ready, 2, "its head, and then word by word");
    }

    #[tokio::test]
    async fn a_whole_answer_and_a_count_come_at_once() {
        let whole = USUAL.answer(Endpoint::Messages, false).into_body().collect().await.unwrap().to_bytes();
        let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!((&whole["id"], &whole["model"]), (&"msg_loadtest".into(), &"load-test".into()));
        assert_eq!(whole["content"][0]["text"].as_str().unwrap().len(), 3000);
        let count = USUAL.answer(Endpoint::CountTokens, false).into_body().collect().await.unwrap().to_bytes();
        assert_eq!(count, "{\"input_tokens\":0}");
    }
}
