//! What a client is still sending when its answer is there already.
//!
//! A connection that is closed with unread bytes is reset, and the client may lose the answer that stands in it: a refusal
//! would look like a broken network. So what is on its way is read and thrown away before a refusal goes out, within bounds.
//! Knows no reason of a refusal, and keeps no byte.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use http::{Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

/// So much is thrown away; twice the largest request that is taken by default.
const MOST: usize = 64 << 20;
/// So long.
const LONGEST: Duration = Duration::from_secs(5);
/// Who sends nothing for so long is waiting for the answer.
const PAUSE: Duration = Duration::from_millis(250);

/// The body of a request that somebody else has, too.
#[derive(Debug)]
pub(super) struct Unread(Arc<Mutex<Body>>);

struct Shared(Arc<Mutex<Body>>);

impl Unread {
    /// Keeps a hand on the request's body; `None` where nothing would be lost. Only HTTP/1 closes a connection for it.
    pub(super) fn of(request: &mut Request) -> Option<Self> {
        // Who asks whether to go on waits for the answer, and must not be told to.
        let waits = request.headers().contains_key(header::EXPECT);
        if request.version() >= Version::HTTP_2 || waits || request.body().is_end_stream() {
            return None;
        }
        let body = Arc::new(Mutex::new(std::mem::take(request.body_mut())));
        *request.body_mut() = Body::new(Shared(Arc::clone(&body)));
        Some(Self(body))
    }

    /// Reads what is left, once nobody else does.
    pub(super) async fn throw_away(self) {
        let Some(body) = Arc::into_inner(self.0) else { return };
        let mut body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        let reading = async {
            let mut left = MOST;
            while !body.is_end_stream()
                && left > 0
                && let Ok(Some(Ok(frame))) = tokio::time::timeout(PAUSE, body.frame()).await
            {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        };
        // Late is late: the answer goes out all the same.
        let _ = tokio::time::timeout(LONGEST, reading).await;
    }
}

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
