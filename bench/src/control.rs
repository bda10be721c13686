//! Control: the harness's own few calls - scripting the upstream, setting a cap, asking whether a gateway is ready.
//! Blocking and one connection each: never part of what is measured.

use crate::http1::{self, Chunks, Framing};
use crate::script::Script;
use crate::upstream::Seen;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Status and body of one call.
pub(crate) fn call(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Result<(u16, String)> {
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(answer) = whole_answer(&received)? {
            return Ok(answer);
        }
        let read = connection.read(&mut piece)?;
        if read == 0 {
            bail!("{method} {path}: the answer was cut");
        }
        received.extend_from_slice(&piece[..read]);
    }
}

fn whole_answer(received: &[u8]) -> Result<Option<(u16, String)>> {
    let Some(start) = http1::end_of_head(received) else { return Ok(None) };
    let head = http1::parse_head(&received[..start])?;
    let body = &received[start..];
    let mut text = Vec::new();
    match head.framing {
        Framing::Exact(length) if body.len() >= length => text.extend_from_slice(&body[..length]),
        Framing::Chunked => {
            let mut chunks = Chunks::default();
            chunks.feed(body, |data| text.extend_from_slice(data))?;
            if !chunks.done() {
                return Ok(None);
            }
        }
        Framing::Exact(_) | Framing::UntilClose => return Ok(None),
    }
    Ok(Some((head.status()?, String::from_utf8_lossy(&text).into_owned())))
}

/// Has the mock upstream answer as this script says, from the next request on.
pub(crate) fn set_script(upstream: SocketAddr, script: &Script) -> Result<()> {
    let (status, _) = call(upstream, "PUT", "/bench/script", "", &serde_json::to_string(script)?)?;
    if status == 200 { Ok(()) } else { bail!("the mock upstream refused the script with {status}") }
}

/// What reached the mock upstream so far.
pub(crate) fn seen(upstream: SocketAddr) -> Result<Seen> {
    let (_, body) = call(upstream, "GET", "/bench/seen", "", "")?;
    serde_json::from_str(&body).context("the mock upstream's counters")
}

/// Waits until a GET answers 200; `alive` ends the wait early when the process is gone.
pub(crate) fn await_ready(address: SocketAddr, path: &str, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        alive()?;
        if matches!(call(address, "GET", path, "", ""), Ok((200, _))) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{address}{path} was not ready within 30 s")
}

/// A port on 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
