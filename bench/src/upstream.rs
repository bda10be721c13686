//! The mock upstream: answers as scripted, counts what reached it, and is the identity provider a gateway asks at boot.
//! Knows no gateway; spends as little CPU per request as it can, for its cores are shared with what is measured.

use crate::http1::{self, Chunks, Framing};
use crate::identity;
use crate::script::{Answers, Script};
use anyhow::{Context, Result, bail};
use clap::Args;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// `bench upstream`
#[derive(Args)]
pub(crate) struct Options {
    /// Port on 127.0.0.1; 0 takes a free one. The address is printed once it listens.
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[command(flatten)]
    script: Script,
}

/// What reached the upstream since it started. Also the JSON answer of `GET /bench/seen`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Requests to /v1/messages whose body was read whole.
    pub(crate) requests: u64,
    /// Of these, how many were answered to the last byte.
    pub(crate) answered: u64,
    /// Connections accepted.
    pub(crate) connections: u64,
}

struct Upstream {
    issuer: String,
    answers: Mutex<Arc<Answers>>,
    requests: AtomicU64,
    answered: AtomicU64,
    connections: AtomicU64,
}

/// Serves until it is killed. One thread: it must not compete for both cores with what is measured.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(options))
}

async fn accept(options: &Options) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], options.port).into())?;
    let listener = socket.listen(4096)?;
    let issuer = format!("http://{}", listener.local_addr()?);
    println!("{issuer}");
    let upstream = Arc::new(Upstream {
        issuer,
        answers: Mutex::new(Arc::new(Answers::prepare(options.script.clone()))),
        requests: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    });
    let mut open = JoinSet::new();
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        upstream.connections.fetch_add(1, Relaxed);
        let upstream = Arc::clone(&upstream);
        // A connection's end is the peer's business: nobody waits for the reason.
        open.spawn(async move { drop(upstream.converse(connection).await) });
        while open.try_join_next().is_some() {}
    }
}

impl Upstream {
    async fn converse(&self, mut connection: TcpStream) -> Result<()> {
        let mut received = Vec::with_capacity(32 * 1024);
        loop {
            let head_end = loop {
                if let Some(end) = http1::end_of_head(&received) {
                    break end;
                }
                if connection.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
            };
            let head = http1::parse_head(&received[..head_end])?;
            let (start, framing, close) = (head.start.to_owned(), head.framing, head.close);
            let body_end = read_body(&mut connection, &mut received, head_end, framing).await?;
            self.answer(&mut connection, &start, &received[head_end..body_end]).await?;
            if close {
                return Ok(());
            }
            received.drain(..body_end);
        }
    }

    async fn answer(&self, connection: &mut TcpStream, start: &str, body: &[u8]) -> Result<()> {
        let mut words = start.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        match (method, path) {
            ("POST", "/v1/messages") => self.message(connection, body).await,
            ("POST", "/v1/messages/count_tokens") => json(connection, r#"{"input_tokens":5225}"#).await,
            ("GET", "/.well-known/openid-configuration") => json(connection, &identity::discovery(&self.issuer)).await,
            ("GET", "/jwks") => json(connection, identity::KEY_SET).await,
            ("GET", "/bench/seen") => json(connection, &serde_json::to_string(&self.seen())?).await,
            ("PUT", "/bench/script") => {
                let answers = Arc::new(Answers::prepare(serde_json::from_slice(body)?));
                *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
                json(connection, "{}").await
            }
            _ => {
                connection.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?;
                Ok(())
            }
        }
    }

    async fn message(&self, connection: &mut TcpStream, body: &[u8]) -> Result<()> {
        self.requests.fetch_add(1, Relaxed);
        let answers = Arc::clone(&self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        if answers.script.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(answers.script.delay_ms)).await;
        }
        if wants_stream(body) {
            self.stream(connection, &answers).await?;
        } else {
            connection.write_all(&answers.json).await?;
        }
        self.answered.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn stream(&self, connection: &mut TcpStream, answers: &Answers) -> Result<()> {
        let [opening, rest @ ..] = answers.stream.as_slice() else { bail!("a stream without a byte") };
        connection.write_all(opening).await?;
        if !rest.is_empty() {
            let mut spacing = tokio::time::interval(Duration::from_millis(answers.script.spacing_ms.max(1)));
            spacing.tick().await; // The first tick is immediate.
            for write in rest {
                spacing.tick().await;
                connection.write_all(write).await?;
            }
        }
        Ok(())
    }

    fn seen(&self) -> Seen {
        Seen {
            requests: self.requests.load(Relaxed),
            answered: self.answered.load(Relaxed),
            connections: self.connections.load(Relaxed),
        }
    }
}

/// Reads until the body is whole and says where it ends in `received`. A chunked body stays as it came, coded.
async fn read_body(
    connection: &mut TcpStream,
    received: &mut Vec<u8>,
    head_end: usize,
    framing: Framing,
) -> Result<usize> {
    let mut chunks = Chunks::default();
    let mut fed = head_end;
    loop {
        let whole = match framing {
            Framing::Exact(length) => received.len() >= head_end + length,
            Framing::Chunked => {
                chunks.feed(&received[fed..], |_| {})?;
                fed = received.len();
                chunks.done()
            }
            Framing::UntilClose => bail!("a request that ends with its connection"),
        };
        if whole {
            return Ok(if let Framing::Exact(length) = framing { head_end + length } else { received.len() });
        }
        if connection.read_buf(received).await.context("the body was cut")? == 0 {
            bail!("the body was cut");
        }
    }
}

/// Whether the body asks for a stream. A search, not a parse: inside a JSON string the quotes would be escaped.
fn wants_stream(body: &[u8]) -> bool {
    memmem::find(body, br#""stream":true"#).is_some() || memmem::find(body, br#""stream": true"#).is_some()
}

async fn json(connection: &mut TcpStream, body: &str) -> Result<()> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    connection.write_all(head.as_bytes()).await?;
    Ok(())
}
