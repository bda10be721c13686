//! bench: what a request costs, measured beside its peers in the same run.
//! Knows the gateways only by their command line, configuration file and HTTP surface; links none of their code, but for `poll`.
#![expect(
    clippy::float_arithmetic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness prints ratios of measurements; no money is decided here"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a harness runs programs and reads the clock; the fences are the gateway's"
)]

mod http1;
mod prompt;
mod script;
mod upstream;

mod client;
mod load;
mod measure;

mod control;
mod identity;
mod lab;
mod peer;
mod postgres;
mod process;

mod blackhole;
mod overshoot;
mod poll;
mod report;
mod reports;
mod run;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Benchmarks of Tollgate beside nginx and the reference gateway, on loopback.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a scripted Messages API and the identity provider documents a gateway reads at boot.
    Upstream(upstream::Options),
    /// Drive one address with a closed loop of requests and report rates and latencies.
    Load(load::Options),
    /// Start every peer, measure them in interleaved rounds, print and keep the ratios.
    Run(run::Options),
    /// Send 50 requests at once against a cap of two cents and count what gets through.
    Overshoot(overshoot::Options),
    /// Measure the CPU time of a client's poll for changed settings, in this process.
    Poll(poll::Options),
    /// Fill the ledger with a million requests and time every report, and settlements before, after and meanwhile.
    Reports(reports::Options),
    /// Let the first of three upstreams stop answering, and print the time to first byte second by second.
    Blackhole(blackhole::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Upstream(options) => upstream::serve(&options),
        Command::Load(options) => load::drive(&options),
        Command::Run(options) => run::measure_all(&options),
        Command::Overshoot(options) => overshoot::measure_all(&options),
        Command::Poll(options) => poll::measure_all(&options),
        Command::Reports(options) => reports::measure_all(&options),
        Command::Blackhole(options) => blackhole::measure_all(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
