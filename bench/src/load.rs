//! The load generator: a closed loop over kept-alive connections, each with a bearer of its own.
//! Knows when to begin, measure and give up; knows nothing of who answers.

use crate::client::{self, Plan};
use crate::measure::{Report, Tally, Used};
use crate::process::Tree;
use crate::prompt::Prompt;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
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

impl Options {
    /// When to measure, from now: the seconds after the warm-up, or until giving up when the load is bounded by count.
    fn window(&self, counted: bool) -> (Instant, Instant) {
        let (wait, length) = if counted { (0.0, self.give_up) } else { (self.warm_up, self.seconds) };
        let from = Instant::now() + Duration::from_secs_f64(wait);
        (from, from + Duration::from_secs_f64(length))
    }
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
    watched.iter().for_each(Tree::forget_peak);

    let window = options.window(requests.is_some());
    let plan = Arc::new(Plan::new(options.target, stream, window, requests));
    let tallies: Vec<_> = messages.iter().map(|_| Arc::default()).collect();
    let mut clients = JoinSet::new();
    for (message, tally) in messages.into_iter().zip(&tallies) {
        clients.spawn(client::run(Arc::clone(&plan), message, Arc::clone(tally)));
    }

    tokio::time::sleep_until(window.0).await;
    let before = cpu(&watched)?;
    let mut unfinished = if requests.is_some() {
        finish(&mut clients, window.1).await
    } else {
        tokio::time::sleep_until(window.1).await;
        0
    };
    let seconds = (Instant::now().min(window.1) - window.0).as_secs_f64();
    let after = cpu(&watched)?;
    // Requests begun inside a timed window may still end, so that a gateway under test sees no aborts.
    unfinished += finish(&mut clients, Instant::now() + Duration::from_secs_f64(options.give_up)).await;

    let mut sum = sum(&tallies);
    if unfinished > 0 {
        sum.errors.insert("unfinished".into(), unfinished);
        // A stream that never began waited at least as long as we did.
        let silent = requests.map_or(0, |requests| requests.saturating_sub(sum.begun_or_failed()));
        let waited = Duration::from_secs_f64(options.give_up).as_micros();
        sum.first_bytes.extend((0..silent).map(|_| u32::try_from(waited).unwrap_or(u32::MAX)));
    }
    let used = watched.iter().zip(before.iter().zip(after)).map(|(tree, (before, after))| Used {
        name: tree.name.clone(),
        cpu_seconds: after.saturating_sub(*before).as_secs_f64(),
        cpu_micros_per_request: after.saturating_sub(*before).as_secs_f64() * 1e6 / sum.completed().max(1.0),
        peak_rss_kib: tree.peak_rss_kib(),
    });
    let used = used.collect();
    Ok(Report::new(connections, seconds, sum, used))
}

fn cpu(trees: &[Tree]) -> Result<Vec<Duration>> {
    trees.iter().map(Tree::cpu).collect()
}

fn sum(tallies: &[Arc<Mutex<Tally>>]) -> Tally {
    tallies.iter().fold(Tally::default(), |mut sum, tally| {
        sum.absorb(std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner)));
        sum
    })
}

/// Waits for the clients until a deadline; then ends them. Says how many were ended.
async fn finish(clients: &mut JoinSet<()>, deadline: Instant) -> u64 {
    let all = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline, all).await.is_ok() {
        return 0;
    }
    let open = clients.len() as u64;
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
pub(crate) fn request_head(target: SocketAddr, bearer: &str, length: usize) -> String {
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
