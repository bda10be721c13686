//! The command line.

mod check;
mod explain;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Environment, Loaded, LogLevel, reference, schema};
use crate::{boot, demo, observe};

/// The self-hosted control plane in front of Claude Code: sign-in, policy, spend limits, routing.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, max_term_width = 100)]
#[command(after_help = "Start with `tollgate demo`, which needs no configuration. \
    Then write a gateway.yaml, try it with `tollgate check --config gateway.yaml`, and serve it.\n\n\
    Exit status: 0 after a clean end, 1 when the gateway refuses to start, 2 for a mistake on the command line.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    ///
    /// Audit events go to stderr as one JSON object per line, beside operational lines that begin with `[gateway]`.
    /// On SIGTERM or SIGINT the listener closes, open requests get CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS (25000) to finish,
    /// and every settlement is written before the process ends.
    #[command(after_help = "Environment: CLAUDE_GATEWAY_LOG_LEVEL (debug, info, warn, error), \
        CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS, CLAUDE_GATEWAY_ALLOW_LOOPBACK=1 (upstreams, collectors and identity providers \
        on this machine), HTTPS_PROXY, HTTP_PROXY and NO_PROXY (towards upstreams), \
        CLAUDE_GATEWAY_PROXY_IS_EGRESS_BOUNDARY=1 (the proxy resolves names and decides).\n\n\
        Example: tollgate serve --config gateway.yaml")]
    Serve(ConfigFile),
    /// Read a configuration, print every problem and warning, and exit.
    ///
    /// Nothing is connected to: neither the database nor the identity provider. Exit status 1 when there is a problem,
    /// 0 otherwise, warnings or not.
    #[command(after_help = "Examples:\n  tollgate check --config gateway.yaml\n  \
        tollgate check --config gateway.yaml --json | jq -e '.warnings == []'")]
    Check(check::Options),
    /// Say what one person receives and may use under a configuration, and why.
    ///
    /// Prints which policy matches, the merged settings with the origin of each key, what Claude Desktop is told, and the
    /// models. With --sub the database is asked, without changing it, for the caps in force. Exit status 1 when the file is
    /// wrong, 0 otherwise.
    #[command(
        after_help = "Origins: `base` is the policy that matches everyone, `policy` the person's own, `base+policy` a \
        list that both add to, `gateway` what the gateway adds by itself.\n\nExamples:\n  \
        tollgate explain --config gateway.yaml --user ann@example.com --groups eng,ops\n  \
        tollgate explain --config gateway.yaml --user ann@example.com --sub 00u1a2b3 --json"
    )]
    Explain(explain::Options),
    /// Show a whole gateway on this machine alone: no account, no network, no configuration.
    ///
    /// Starts the real gateway with policies and caps, an identity provider with three invented people, and a model with a
    /// script, all on 127.0.0.1, and says how to sign in and what to try. Runs until Ctrl-C and keeps nothing.
    #[command(after_help = "Examples:\n  tollgate demo --tour               watch everything once\n  \
        tollgate demo                      try it yourself\n  \
        tollgate demo --tour --keep run    look at the configuration, database and audit log afterwards")]
    Demo(demo::Options),
    /// Look after the ledger.
    Ledger {
        #[command(subcommand)]
        what: LedgerCommand,
    },
    /// Print reference documents that are generated from the code.
    Schema {
        /// What to print.
        #[arg(value_enum)]
        what: Document,
    },
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Prove that every counter is what its rows add up to.
    ///
    /// Compares what accounts say was spent with the usage rows of every period within `admin.usage_retention_days`, and
    /// what they hold in reserve with the reservations and leases that are open. A gateway on PostgreSQL may be at work
    /// meanwhile. Exit status 0 when the books are right, 1 otherwise; what differs is told.
    Verify {
        #[command(flatten)]
        file: ConfigFile,
        /// Tell it as one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The gateway.yaml to read; `${VAR}` and `${file:/path}` in it are filled in.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Document {
    /// The JSON Schema of gateway.yaml, for editors.
    Config,
    /// docs/configuration.md: every key with its type, default and meaning.
    Docs,
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    let outcome = match command {
        Command::Serve(file) => serve(&file),
        Command::Check(options) => check::run(&options),
        Command::Explain(options) => explain::run(options),
        Command::Demo(options) => show(options),
        Command::Ledger { what: LedgerCommand::Verify { file, json } } => verify_ledger(&file, json),
        Command::Schema { what } => {
            say(&match what {
                Document::Config => format!("{:#}", schema::schema()),
                Document::Docs => reference::markdown(),
            });
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        tell(&format!("tollgate: {error:#}"));
        ExitCode::FAILURE
    })
}

fn load(file: &ConfigFile) -> Result<Loaded, ExitCode> {
    config::load(&file.config, &Environment::from_process()).map_err(|problems| {
        tell(&problems.to_string());
        ExitCode::FAILURE
    })
}

fn serve(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(status) => return Ok(status),
    };
    observe::init(loaded.config.log_level);
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let gateway = boot::start(loaded, std::io::stderr()).await?;
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        let drain = gateway.drain_timeout();
        tracing::info!(
            "{name} received: shutting down. Refusing new connections; open requests get up to {}s to finish",
            drain.as_secs()
        );
        match gateway.stop().await {
            0 => tracing::info!("shutdown complete: every open request finished, none was cut"),
            cut => tracing::warn!("drain window over after {}s: cut {cut} request(s) still open", drain.as_secs()),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn show(options: demo::Options) -> anyhow::Result<ExitCode> {
    // What goes wrong beside the demo's own lines is still to be seen.
    observe::init(LogLevel::Warn);
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    runtime.block_on(Box::pin(demo::run(options)))
}

fn verify_ledger(file: &ConfigFile, json: bool) -> anyhow::Result<ExitCode> {
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(status) => return Ok(status),
    };
    let runtime = tokio::runtime::Runtime::new().context("the runtime cannot be started")?;
    let proof = runtime.block_on(Box::pin(boot::verify_ledger(loaded)))?;
    if json {
        say(&proof.to_json().to_string());
    } else {
        proof.differences.iter().for_each(|found| say(&found.to_string()));
        let differences = proof.differences.len();
        say(&format!("{} periods added up, {differences} difference(s)", proof.periods));
    }
    Ok(if proof.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "before there is a log, and after it")]
fn tell(text: &str) {
    eprintln!("{text}");
}
