//! The load generator: a closed loop over kept-alive connections, each with a bearer of its own.
//! Knows HTTP and the end of a stream; knows nothing of who answers.

use crate::http1::{self, Chunks, Framing};
use crate::measure::{Quantiles, Report, Tally, Used, to_f64};
use crate::process::Tree;
use crate::prompt::Prompt;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// `bench load`
#[derive(Args)]
pub(crate) struct Options {
    /// Address to drive, such as 127.0.0.1:8080.
    target: SocketAddr,
    /// Connections held open at once.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds to run before measuring.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Send this many requests in all, at once and without warm-up, instead of running for a time.
    #[arg(long)]
    requests: Option<u64>,
    /// Open this many streams at once, one request each: `--stream --connections N --requests N`.
    #[arg(long, conflicts_with_all = ["requests", "connections"])]
    slow_streams: Option<usize>,
    /// Seconds after which requests still open are given up and counted as `unfinished`.
    #[arg(long, default_value_t = 60.0)]
    give_up: f64,
    /// What to send.
    #[arg(long, value_enum, default_value = "code")]
    prompt: Prompt,
    /// Ask for a stream, and check that it ends with message_stop.
    #[arg(long)]
    stream: bool,
    /// File with one bearer per line; connection i uses line i, starting over at the end.
    #[arg(long)]
    bearers: Option<PathBuf>,
    /// NAME=PID of a process to watch, with its descendants. May be given several times.
    #[arg(long, value_parser = Tree::parse)]
    watch: Vec<Tree>,
    /// Print the report as one line of JSON.
    #[arg(long)]
    json: bool,
}

struct Plan {
    target: SocketAddr,
    stream: bool,
    window: (Instant, Instant),
    /// Requests left to send, when the load is bounded by count.
    left: Option<AtomicU64>,
}

/// Runs one load and prints its report.
pub(crate) fn drive(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(options))?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

async fn run(options: &Options) -> Result<Report> {
    let connections = options.slow_streams.unwrap_or(options.connections);
    let requests = options.slow_streams.map(|streams| streams as u64).or(options.requests);
    let stream = options.stream || options.slow_streams.is_some();
    let messages = messages(options, stream, connections)?;
    let mut watched = options.watch.clone();
    watched.push(Tree { name: "load".into(), root: std::process::id() });
    for tree in &watched {
        tree.forget_peak();
    }

    let begun = Instant::now();
    let window = match requests {
        Some(_) => (begun, begun + Duration::from_secs_f64(options.give_up)),
        None => {
            let from = begun + Duration::from_secs_f64(options.warm_up);
            (from, from + Duration::from_secs_f64(options.seconds))
        }
    };
    let plan = Arc::new(Plan { target: options.target, stream, window, left: requests.map(AtomicU64::new) });
    let tallies: Vec<_> = messages.iter().map(|_| Arc::new(Mutex::new(Tally::default()))).collect();
    let mut clients = JoinSet::new();
    for (message, tally) in messages.into_iter().zip(&tallies) {
        clients.spawn(client(Arc::clone(&plan), message, Arc::clone(tally)));
    }

    tokio::time::sleep_until(window.0).await;
    let before: Vec<_> = watched.iter().map(Tree::cpu).collect::<Result<_>>()?;
    let unfinished = if requests.is_some() {
        finish(&mut clients, window.1).await
    } else {
        tokio::time::sleep_until(window.1).await;
        0
    };
    let ended = Instant::now().min(window.1);
    let after: Vec<_> = watched.iter().map(Tree::cpu).collect::<Result<_>>()?;
    // Requests begun inside a timed window may still end, so that a gateway under test sees no aborts.
    let dropped = finish(&mut clients, Instant::now() + Duration::from_secs_f64(options.give_up)).await;

    let mut sum = Tally::default();
    for tally in &tallies {
        sum.absorb(std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner)));
    }
    let give_up_micros = micros(Duration::from_secs_f64(options.give_up));
    for _ in 0..unfinished + dropped {
        sum.fail("unfinished");
    }
    if let (Some(requests), true) = (requests, unfinished > 0) {
        // A stream that never began waited at least as long as we did.
        let failed: u64 = sum.errors.iter().filter(|(error, _)| *error != "unfinished").map(|(_, count)| count).sum();
        let silent = (requests - failed.min(requests)).saturating_sub(sum.first_bytes.len() as u64);
        sum.first_bytes.extend((0..silent).map(|_| give_up_micros));
    }
    let seconds = (ended - window.0).as_secs_f64();
    let used = watched.iter().zip(before.iter().zip(&after)).map(|(tree, (before, after))| {
        let cpu = after.saturating_sub(*before).as_secs_f64();
        Used {
            name: tree.name.clone(),
            cpu_seconds: cpu,
            cpu_micros_per_request: cpu * 1e6 / to_f64(sum.latencies.len().max(1) as u64),
            peak_rss_kib: tree.peak_rss_kib(),
        }
    });
    let used = used.collect();
    Ok(Report {
        connections,
        seconds,
        completed: sum.latencies.len() as u64,
        per_second: to_f64(sum.latencies.len() as u64) / seconds,
        errors: sum.errors,
        latency: Quantiles::of(sum.latencies),
        first_byte: Quantiles::of(sum.first_bytes),
        body_bytes: sum.body_bytes,
        used,
    })
}

/// Waits for the clients until a deadline; then ends them. Says how many were ended.
async fn finish(clients: &mut JoinSet<()>, deadline: Instant) -> usize {
    let all = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline, all).await.is_ok() {
        return 0;
    }
    let open = clients.len();
    clients.shutdown().await;
    open
}

/// The bytes each connection sends again and again.
fn messages(options: &Options, stream: bool, connections: usize) -> Result<Vec<Vec<u8>>> {
    let listed = match &options.bearers {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        None => "none".into(),
    };
    let bearers: Vec<&str> = listed.lines().collect();
    if bearers.is_empty() {
        bail!("the file of bearers is empty");
    }
    let body = options.prompt.body(stream);
    let message = |bearer: &&str| {
        let mut message = request_head(options.target, bearer, body.len()).into_bytes();
        message.extend_from_slice(&body);
        message
    };
    Ok(bearers.iter().cycle().take(connections).map(message).collect())
}

/// The head of the terminal client's request.
fn request_head(target: SocketAddr, bearer: &str, length: usize) -> String {
    format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nhost: {target}\r\naccept: application/json\r\n\
         authorization: Bearer {bearer}\r\ncontent-type: application/json\r\n\
         user-agent: claude-cli/2.1.330 (external, cli)\r\nanthropic-version: 2023-06-01\r\n\
         anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nx-app: cli\r\n\
         x-claude-code-session-id: 4d4f7a1c-5f0e-4f0f-9a55-2f7f0c1d8f11\r\n\
         x-stainless-arch: x64\r\nx-stainless-lang: js\r\nx-stainless-os: Linux\r\n\
         x-stainless-package-version: 0.70.0\r\nx-stainless-retry-count: 0\r\nx-stainless-runtime: node\r\n\
         x-stainless-timeout: 600\r\naccept-encoding: identity\r\nconnection: keep-alive\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn client(plan: Arc<Plan>, message: Vec<u8>, tally: Arc<Mutex<Tally>>) {
    let mut connection = None;
    let mut buffer = vec![0; 16 * 1024];
    while plan.take() {
        let begun = Instant::now();
        let outcome = exchange(&plan, &mut connection, &message, &mut buffer, begun, &tally).await;
        if outcome.is_err() {
            connection = None;
        }
        let ended = Instant::now();
        if ended < plan.window.0 || ended > plan.window.1 {
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

impl Plan {
    /// Whether one more request may be begun.
    fn take(&self) -> bool {
        match &self.left {
            Some(left) => left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok(),
            None => Instant::now() < self.window.1,
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
        None => {
            let fresh = TcpStream::connect(plan.target).await.map_err(|_| anyhow!("refused"))?;
            fresh.set_nodelay(true)?;
            connection.insert(fresh)
        }
    };
    open.write_all(message).await.map_err(|_| anyhow!("cut while sending"))?;

    let mut filled = 0;
    let body_at = loop {
        let read = open.read(&mut buffer[filled..]).await.map_err(|_| anyhow!("cut before the answer"))?;
        if read == 0 {
            bail!("cut before the answer");
        }
        filled += read;
        if let Some(end) = http1::end_of_head(&buffer[..filled]) {
            break end;
        }
    };
    let head = http1::parse_head(&buffer[..body_at])?;
    let (status, close) = (head.status()?, head.close);
    let mut body = Body::new(head.framing);
    let mut piece = body_at..filled;
    loop {
        let silent = body.bytes == 0;
        body.feed(&buffer[piece])?;
        if silent && body.bytes > 0 && status == 200 {
            let now = Instant::now();
            if now >= plan.window.0 && now <= plan.window.1 {
                tally.lock().unwrap_or_else(PoisonError::into_inner).first_bytes.push(micros(now - begun));
            }
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
