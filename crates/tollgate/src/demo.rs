//! The demo: a whole gateway with everything it needs around it, on this machine alone.
//!
//! The gateway is the real one. Built in are only an identity provider with three people and a model with a script. Knows
//! how to start, show and end them; whatever the gateway decides, the demo only sees from outside.

mod chance;
mod folder;
mod idp;
mod model;
mod people;
mod staging;
mod terminal;
mod tour;
mod visitor;

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use self::folder::Folder;
use self::people::PEOPLE;
use self::staging::Staging;
use self::terminal::Terminal;
use self::tour::Tour;
use crate::config::Environment;

/// `tollgate demo`
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Walk through everything once and exit: sign-in, a streamed answer, a denied model, a cap that holds under 20
    /// requests at once, the spend table. Exits with 0 when all of it went as promised, with 1 when not.
    #[arg(long)]
    pub tour: bool,
    /// Keep the configuration, the database and the audit log of the run in this folder, which must be new or empty.
    /// Without it they are in a temporary folder that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// The gateway's port on 127.0.0.1. Without it the system chooses one that is free.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// Status of a process that was told to end by Ctrl-C before it was done.
const INTERRUPTED: u8 = 130;

/// Runs the demo: until Ctrl-C, or to the end of the tour.
///
/// # Errors
/// When something cannot be started, or the terminal cannot be written to. A promise that the tour finds broken is no
/// error but exit status 1.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let environment = Environment::from_process();
    let mut terminal = terminal(&environment);
    let folder = match &options.keep {
        Some(path) => Folder::kept(path)?,
        None => Folder::temporary(Path::new(environment.get("TMPDIR").unwrap_or("/tmp")))?,
    };
    introduce(&mut terminal, &folder)?;
    // Between the lines of the tour the audit's would only be in the way; who looks around by hand wants to see them.
    let audit: Box<dyn Write + Send> =
        if options.tour { Box::new(folder.create("audit.jsonl")?) } else { Box::new(std::io::stderr()) };
    let staging = Box::pin(Staging::set_up(folder, options.port, audit)).await?;
    let ended = show(&mut terminal, &staging, options.tour).await;
    staging.take_down().await;
    ended
}

async fn show(terminal: &mut Terminal, staging: &Staging, tour: bool) -> anyhow::Result<ExitCode> {
    staging.set_caps().await?;
    if tour {
        return tokio::select! {
            ended = Box::pin(Tour::new(terminal, staging)?.walk()) => ended,
            interrupted = interruption() => interrupted.map(|()| ExitCode::from(INTERRUPTED)),
        };
    }
    invite(terminal, staging)?;
    interruption().await.map(|()| ExitCode::SUCCESS)
}

fn terminal(environment: &Environment) -> Terminal {
    let out = std::io::stdout();
    // https://no-color.org: any value that is not empty.
    let refused = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = out.is_terminal() && !refused;
    Terminal::new(Box::new(out), colour)
}

fn introduce(terminal: &mut Terminal, folder: &Folder) -> anyhow::Result<()> {
    terminal.title("Tollgate demo")?;
    terminal.say(
        "This is a demo, not a service. The gateway is the real one; the people and the model behind it are invented. \
         Everything runs in this process, listens on 127.0.0.1 only, and calls nothing outside this machine.",
    )?;
    let place = folder.path().display();
    match folder.is_kept() {
        true => terminal.say(&format!("What it writes stays in {place}."))?,
        false => terminal.say(&format!("It keeps nothing: what it writes is in {place} and is removed at the end."))?,
    }
    Ok(())
}

/// Says what there is and where to go.
fn invite(terminal: &mut Terminal, staging: &Staging) -> anyhow::Result<()> {
    let url = staging.origin();
    terminal.heading("What is running")?;
    terminal.fact("gateway", url)?;
    terminal.fact("configuration", &staging.config.display().to_string())?;
    terminal.fact("admin key", &staging.admin_key)?;
    for person in PEOPLE {
        terminal.fact(person.name, person.role)?;
    }
    terminal.fact("everybody", "at most $20 a month each")?;

    terminal.heading("With Claude Code")?;
    terminal.say("Give the client this file as its managed settings, start it, and log in as one of the people:")?;
    terminal.command(&format!(
        "sudo mkdir -p /etc/claude-code && sudo cp -i {} /etc/claude-code/",
        staging.settings.display()
    ))?;
    terminal.say(
        "On macOS the folder is \"/Library/Application Support/ClaudeCode\". Remove the file again after the demo, or the \
         client goes on asking for this gateway.",
    )?;

    terminal.heading("With curl")?;
    terminal
        .say("Ask for a code, open the verification_uri_complete of the answer in a browser, and pick a person:")?;
    terminal.command(&format!("curl -s -X POST {url}/oauth/device_authorization"))?;
    terminal.say("Then, with the device_code of that answer, fetch the bearer and ask the model:")?;
    terminal.command(&format!(
        "curl -s {url}/oauth/token \\\n  -d grant_type=urn:ietf:params:oauth:grant-type:device_code -d device_code=DEVICE_CODE"
    ))?;
    terminal.command(&format!(
        r#"curl -N {url}/v1/messages \
  -H 'authorization: Bearer ACCESS_TOKEN' -H 'content-type: application/json' \
  -d '{{"model":"claude-haiku-4-5","max_tokens":300,"stream":true,
       "messages":[{{"role":"user","content":"hello"}}]}}'"#
    ))?;
    terminal.say("Who has spent how much today, under which cap:")?;
    terminal.command(&format!(
        "curl -sg '{url}/v1/organizations/spend_limits/effective?period[]=daily' \\\n  -H 'x-api-key: {}'",
        staging.admin_key
    ))?;

    terminal.blank()?;
    terminal.say("The audit log follows, one line of JSON per event. Ctrl-C ends the demo.")?;
    terminal.blank()?;
    Ok(())
}

/// Ctrl-C, or the polite signal of whoever started this.
async fn interruption() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate()).context("signals cannot be heard")?;
    tokio::select! {
        heard = tokio::signal::ctrl_c() => heard.context("signals cannot be heard"),
        _ = terminated.recv() => Ok(()),
    }
}
