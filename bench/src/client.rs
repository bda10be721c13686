//! One connection of the load generator: a request, its answer to the last byte, and again.
//! Knows HTTP framing and the end of a stream; knows nothing of tokens, prompts or who answers.

use crate::http1::{self, Chunks, Framing};
use crate::measure::Tally;
use anyhow::{Result, anyhow, bail};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What all connections of one load share.
pub(crate) struct Plan {
    target: SocketAddr,
    /// Whether an answer must be a stream that ends with message_stop.
    stream: bool,
    window: (Instant, Instant),
    /// Requests left to send, when the load is bounded by count.
    left: Option<AtomicU64>,
}

impl Plan {
    /// A plan for all connections of one load.
    pub(crate) fn new(target: SocketAddr, stream: bool, window: (Instant, Instant), requests: Option<u64>) -> Self {
        Self { target, stream, window, left: requests.map(AtomicU64::new) }
    }

    /// Whether a moment lies inside the measured window.
    fn measures(&self, moment: Instant) -> bool {
        self.window.0 <= moment && moment <= self.window.1
    }

    /// Whether one more request may be begun.
    fn take(&self) -> bool {
        match &self.left {
            Some(left) => left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok(),
            None => Instant::now() < self.window.1,
        }
    }
}

/// One connection: asks, reads to the last byte, asks again, until the plan is fulfilled.
pub(crate) async fn run(plan: Arc<Plan>, message: Vec<u8>, tally: Arc<Mutex<Tally>>) {
    let mut connection = None;
    let mut buffer = vec![0; 16 * 1024];
    while plan.take() {
        let begun = Instant::now();
        let outcome = exchange(&plan, &mut connection, &message, &mut buffer, begun, &tally).await;
        let ended = Instant::now();
        if outcome.is_err() {
            connection = None;
            // A peer that refuses connections must not turn the loop into a busy one.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if !plan.measures(ended) {
            continue;
        }
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Answer { status: 200, body_bytes, .. }) => {
                tally.latencies.push(micros(ended - begun));
                tally.body_bytes += body_bytes;
            }
            Ok(Answer { status, .. }) => tally.fail(&format!("status {status}")),
            Err(trouble) => tally.fail(&trouble.to_string()),
        }
    }
}

struct Answer {
    status: u16,
    body_bytes: u64,
}

/// One request and its answer, to the last byte.
async fn exchange(
    plan: &Plan,
    connection: &mut Option<TcpStream>,
    message: &[u8],
    buffer: &mut [u8],
    begun: Instant,
    tally: &Mutex<Tally>,
) -> Result<Answer> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(connect(plan.target).await?),
    };
    open.write_all(message).await.map_err(|_| anyhow!("cut while sending"))?;
    let (body_at, filled) = read_head(open, buffer).await?;
    let head = http1::parse_head(&buffer[..body_at])?;
    let (status, close) = (head.status()?, head.close);
    let mut body = Body::new(head.framing);
    let mut piece = body_at..filled;
    loop {
        let silent = body.bytes == 0;
        body.feed(&buffer[piece])?;
        let now = Instant::now();
        if silent && body.bytes > 0 && status == 200 && plan.measures(now) {
            tally.lock().unwrap_or_else(PoisonError::into_inner).first_bytes.push(micros(now - begun));
        }
        if body.done {
            break;
        }
        let read = open.read(buffer).await.map_err(|_| anyhow!("cut"))?;
        if read == 0 {
            body.ended_with_connection()?;
            break;
        }
        piece = 0..read;
    }
    if close || body.framing == Framing::UntilClose {
        *connection = None;
    }
    if status == 200 && plan.stream && !body.is_whole_stream() {
        bail!("stream without message_stop");
    }
    Ok(Answer { status, body_bytes: body.bytes })
}

async fn connect(target: SocketAddr) -> Result<TcpStream> {
    let fresh = TcpStream::connect(target).await.map_err(|_| anyhow!("refused"))?;
    fresh.set_nodelay(true)?;
    Ok(fresh)
}

/// Reads until the head is whole: where the body begins in the buffer, and how far it is filled.
async fn read_head(open: &mut TcpStream, buffer: &mut [u8]) -> Result<(usize, usize)> {
    let mut filled = 0;
    loop {
        let read = open.read(&mut buffer[filled..]).await.map_err(|_| anyhow!("cut before the answer"))?;
        if read == 0 {
            bail!("cut before the answer");
        }
        filled += read;
        if let Some(end) = http1::end_of_head(&buffer[..filled]) {
            return Ok((end, filled));
        }
    }
}

/// A body as it arrives: how much, whether whole, and its last bytes.
struct Body {
    framing: Framing,
    chunks: Chunks,
    bytes: u64,
    done: bool,
    tail: [u8; TAIL],
}

const TAIL: usize = 32;

impl Body {
    fn new(framing: Framing) -> Self {
        Self { framing, chunks: Chunks::default(), bytes: 0, done: framing == Framing::Exact(0), tail: [0; TAIL] }
    }

    fn feed(&mut self, received: &[u8]) -> Result<()> {
        let (bytes, tail) = (&mut self.bytes, &mut self.tail);
        let mut payload = |data: &[u8]| {
            *bytes += data.len() as u64;
            let kept = data.len().min(TAIL);
            tail.copy_within(kept.., 0);
            tail[TAIL - kept..].copy_from_slice(&data[data.len() - kept..]);
        };
        match self.framing {
            Framing::Chunked => {
                self.chunks.feed(received, payload)?;
                self.done = self.chunks.done();
            }
            Framing::Exact(length) => {
                payload(received);
                self.done = self.bytes >= length as u64;
            }
            Framing::UntilClose => payload(received),
        }
        Ok(())
    }

    fn ended_with_connection(&self) -> Result<()> {
        if self.framing == Framing::UntilClose { Ok(()) } else { bail!("cut") }
    }

    fn is_whole_stream(&self) -> bool {
        self.tail.trim_ascii_end().ends_with(br#"{"type":"message_stop"}"#)
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn stream_of(events: &[&[u8]]) -> Vec<u8> {
        let mut coded = Vec::new();
        for event in events {
            http1::push_chunk(&mut coded, event);
        }
        coded.extend_from_slice(http1::LAST_CHUNK);
        coded
    }

    #[test]
    fn a_stream_is_whole_only_when_it_ends_with_message_stop_however_it_was_cut() {
        let stop: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        for (events, whole) in
            [(vec![b"event: ping\n\n".as_slice(), stop], true), (vec![stop, b"event: ping\n\n"], false)]
        {
            let coded = stream_of(&events);
            for step in 1..coded.len() {
                let mut body = Body::new(Framing::Chunked);
                coded.chunks(step).for_each(|piece| body.feed(piece).unwrap());
                assert!(body.done);
                assert_eq!(body.is_whole_stream(), whole);
            }
        }
    }
}
