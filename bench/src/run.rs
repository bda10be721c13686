//! The runner: every load against every peer, in interleaved rounds, and the ratios kept as text.
//! Knows which loads matter; knows nothing of how a peer is started.

use crate::control;
use crate::lab::{Extra, Lab, Programs};
use crate::measure::Report;
use crate::peer::{Cap, Peer};
use crate::process;
use crate::report::{self, Row};
use crate::script::Script;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `bench run`
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Measure only these loads: json, stream, paced, one-json, one-stream, slow.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds; within each, every peer has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds measured per peer and round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of the same load before each measurement.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Connections of the throughput loads, each a user of its own.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Streams open at once in the slow load.
    #[arg(long, default_value_t = 2000)]
    streams: usize,
    /// Name of this measurement in its file, DATE-NAME.txt.
    #[arg(long, default_value = "ratios")]
    what: String,
    /// Folder for that file; left out, the tables are only printed.
    #[arg(long)]
    results: Option<PathBuf>,
}

/// One kind of load.
struct Load {
    name: &'static str,
    title: String,
    script: Script,
    connections: usize,
    arguments: Vec<String>,
    /// One round is enough, and takes as long as it takes.
    once: bool,
    /// The figure of interest is what a peer adds to the time of one request.
    added: bool,
}

/// A cap no load reaches, so that every user is capped and none is refused: a million dollars.
pub(crate) const FAR_AWAY_CENTS: u64 = 100_000_000;

/// Measures and prints, and keeps what was printed.
pub(crate) fn measure_all(options: &Options) -> Result<()> {
    let loads = loads(options);
    if let Some(unknown) = options.only.iter().find(|name| loads.iter().all(|load| load.name != **name)) {
        bail!("no load is called {unknown}");
    }
    let lab = Lab::open(&options.programs, Extra::PlainProxy)?;
    for gateway in lab.gateways() {
        gateway.cap(Cap::Everyone, FAR_AWAY_CENTS)?;
    }
    let mut text = context(options, &lab);
    print!("{text}");
    for load in loads.iter().filter(|load| options.only.is_empty() || options.only.iter().any(|name| name == load.name))
    {
        let rows = measure(options, &lab, load)?;
        let tables = format!("\n{}{}", report::table(&load.title, &rows), report::ratios(&rows, load.added));
        print!("{tables}");
        text += &tables;
    }
    if let Some(folder) = &options.results {
        fs::create_dir_all(folder)?;
        let date = jiff::Timestamp::now().strftime("%F");
        fs::write(folder.join(format!("{date}-{}.txt", options.what)), text)?;
    }
    Ok(())
}

fn loads(options: &Options) -> Vec<Load> {
    let many = options.connections;
    let streams = options.streams;
    let paced = Script { spacing_ms: 20, ..Script::default() };
    let drip = Script { events: 10, spacing_ms: 500, ..Script::default() };
    let timed = |name, title: String, connections, extra: &[&str]| Load {
        name,
        title: format!("{name}: {title}"),
        script: Script::default(),
        connections,
        arguments: [format!("--warm-up={}", options.warm_up), format!("--seconds={}", options.seconds)]
            .into_iter()
            .chain([format!("--connections={connections}")])
            .chain(extra.iter().map(|&argument| argument.to_owned()))
            .collect(),
        once: false,
        added: connections == 1,
    };
    vec![
        timed("json", format!("20 KB prompt, plain answer, {many} connections"), many, &[]),
        timed("stream", format!("20 KB prompt, 46 events ready at once, {many} connections"), many, &["--stream"]),
        Load {
            script: paced,
            ..timed("paced", "20 KB prompt, 40 events 20 ms apart, 200 connections".into(), 200, &["--stream"])
        },
        timed("one-json", "20 KB prompt, plain answer, one connection".into(), 1, &[]),
        timed("one-stream", "20 KB prompt, 46 events ready at once, one connection".into(), 1, &["--stream"]),
        Load {
            name: "slow",
            title: format!("slow: {streams} streams opened at once, an event every 500 ms for 5 s"),
            script: drip,
            connections: streams,
            arguments: vec![format!("--slow-streams={streams}"), "--give-up=90".into()],
            once: true,
            added: false,
        },
    ]
}

fn measure(options: &Options, lab: &Lab, load: &Load) -> Result<Vec<Row>> {
    control::set_script(lab.site.upstream, &load.script)?;
    let mut rows: Vec<Row> = lab.peers.iter().map(|peer| Row { peer: peer.name, rounds: Vec::new() }).collect();
    for _ in 0..if load.once { 1 } else { options.rounds } {
        for (peer, row) in lab.peers.iter().zip(&mut rows) {
            row.rounds
                .push(measure_once(lab, peer, load).with_context(|| format!("{} against {}", load.name, peer.name))?);
        }
    }
    Ok(rows)
}

fn measure_once(lab: &Lab, peer: &Peer, load: &Load) -> Result<Report> {
    let bearers = peer.bearers(&lab.site, "developer", load.connections)?;
    let mut arguments = load.arguments.clone();
    arguments.extend(lab.trees(peer).iter().map(|tree| format!("--watch={}={}", tree.name, tree.root)));
    let report = run_load(peer, &bearers, &arguments)?;
    // What the peer still writes behind belongs to nobody else's turn.
    std::thread::sleep(Duration::from_millis(500));
    Ok(report)
}

/// Runs `bench load` against a peer, as a process of its own so that its CPU is not ours.
pub(crate) fn run_load(peer: &Peer, bearers: &Path, arguments: &[String]) -> Result<Report> {
    let mut command = process::command(std::env::current_exe()?, None);
    command.args(["load", &peer.address.to_string(), "--json", "--bearers"]).arg(bearers).args(arguments);
    let said = process::run(&mut command)?;
    serde_json::from_str(&said).with_context(|| format!("the load generator said {said}"))
}

fn context(options: &Options, lab: &Lab) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!(
        "{} cores, shared by load generator, mock upstream, database and peer; loopback; {} rounds of {} s after {} s of warm-up.\n\
         Every gateway: bearer checked, model policy, monthly cap on every user, metering, audit lines to a file.\n\
         cpu/db/load/mock us: CPU per whole answer of the peer, its PostgreSQL, the load generator, the mock upstream.\n\
         MiB: peak resident memory of the peer's processes. direct: no proxy. Medians over rounds.\n",
        cores, options.rounds, options.seconds, options.warm_up
    );
    for note in &lab.notes {
        _ = writeln!(text, "{note}");
    }
    text
}
