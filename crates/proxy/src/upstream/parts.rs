//! A request body as a short list of slices of the client's own bytes, so that a spliced body is sent without a copy.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The parts of a body, in order.
#[derive(Debug)]
pub struct Parts {
    parts: std::vec::IntoIter<Bytes>,
    left: u64,
    sent: Sent,
}

/// Whether a body was taken whole to be written to an upstream: from then on the upstream may do work for it.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<AtomicBool>);

impl Parts {
    /// A body that tells `sent` when its last part is taken; until then the flag is down, whatever body was before it.
    #[must_use]
    pub fn new(mut parts: Vec<Bytes>, sent: Sent) -> Self {
        parts.retain(|part| !part.is_empty());
        let left = parts.iter().map(|part| part.len() as u64).sum();
        sent.0.store(parts.is_empty(), Ordering::Relaxed);
        Self { parts: parts.into_iter(), left, sent }
    }
}

impl Sent {
    /// The whole body was taken.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.next();
        if let Some(part) = &part {
            self.left -= part.len() as u64;
        }
        if self.left == 0 {
            self.sent.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn the_parts_are_sent_in_order_with_their_exact_length_and_the_last_one_says_so() {
        let sent = Sent::default();
        let slices = ["{\"model\":", "", "\"a\"", "}"].map(|part| Bytes::from_static(part.as_bytes()));
        let mut body = Parts::new(slices.to_vec(), sent.clone());
        assert_eq!(body.size_hint().exact(), Some(13));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.as_ptr(), slices[0].as_ptr(), "no copy");
        assert!(!sent.get() && !body.is_end_stream());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "\"a\"}");
        assert!(sent.get());
    }
}
