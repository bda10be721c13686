//! Config: what the configuration file and the environment say, as each room wants to hear it.
//!
//! The file becomes a tree with lines, references are filled in, and one reader per section turns its part into the
//! room's own `Config`. All problems are told at once. Knows every room's `Config`; no room knows this one.

mod access;
mod admin;
mod environment;
mod failover;
mod headers;
mod json;
mod lines;
pub mod listen;
mod load_test;
mod managed;
pub mod metrics;
mod models;
mod number;
mod oidc;
mod problem;
mod read;
pub mod reference;
mod root;
pub mod schema;
mod secret;
mod session;
mod store;
mod telemetry;
mod tree;
mod upstreams;

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::identity::{OidcConfig, SessionConfig};
use control::spend::Pricing;
use control::{connect, policy};
use proxy::otlp::Destination;
use proxy::upstream;
use wire::catalog::CustomModel;

pub use access::{AccessControl, Limits, RateLimits};
pub use admin::Admin;
pub use environment::Environment;
pub use lines::Lines;
pub use problem::{Problem, Problems, Remark, Warning};

use problem::Report;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to serve, and the public origin.
    pub listen: listen::Config,
    /// Which client addresses get in.
    pub access_control: AccessControl,
    /// Largest requests.
    pub limits: Limits,
    /// Canned answers in place of an upstream's; `None`: off.
    pub load_test: Option<upstream::LoadTest>,
    /// How often one client address may ask.
    pub rate_limits: RateLimits,
    /// The identity provider.
    pub oidc: OidcConfig,
    /// `oidc.form_action_origins` as origins, for the approval page.
    pub form_action_origins: Vec<String>,
    /// Bearers. Their issuer is the origin with the configured port; see [`Config::listening_on`].
    pub session: SessionConfig,
    /// Whether streams are cut when their session ends.
    pub cut_streams: bool,
    /// The database.
    pub store: control::store::Config,
    /// How long `/readyz` stays ready after the database stopped answering.
    pub readiness_grace: Duration,
    /// Spend limits and the admin API; `None`: off.
    pub admin: Option<Admin>,
    /// What tokens cost.
    pub pricing: Pricing,
    /// Where inference goes, in order; never empty.
    pub upstreams: Vec<upstream::Config>,
    /// Model ids of the operator's own.
    pub models: Vec<CustomModel>,
    /// Whether the built-in catalogue can be used beside them.
    pub auto_include_builtin_models: bool,
    /// Policies, and what is added to the settings that are served.
    pub policy: policy::Config,
    /// Where telemetry is relayed to.
    pub telemetry: Vec<Destination>,
    /// Where figures are served; `None`: nowhere.
    pub metrics: Option<metrics::Metrics>,
    /// One line of 1 to 500 characters, told when a sign-in begins.
    pub login_notice: Option<String>,
    /// How long open requests may take to finish after SIGTERM.
    pub drain_timeout: Duration,
    /// Which operational lines are written.
    pub log_level: LogLevel,
    /// What outbound connections may do.
    pub connect: connect::Config,
}

/// `CLAUDE_GATEWAY_LOG_LEVEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may need care.
    Warn,
    /// What went wrong.
    Error,
}

/// A configuration with what is known about its file.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// SHA-256 of the file's bytes, 64 hexadecimal digits.
    pub digest: String,
    /// The file, as it was named.
    pub path: PathBuf,
    /// Where its keys stand.
    pub lines: Lines,
}

impl Config {
    /// Makes the port that was bound the one of the issuer, where the system chose it and no `public_url` is written.
    pub fn listening_on(&mut self, port: u16) {
        self.session.issuer = self.listen.origin(port);
        self.policy.desktop.origin.clone_from(&self.session.issuer);
    }
}

/// Reads a configuration file.
///
/// # Errors
/// Every problem at once, when the file cannot be read, is not YAML, or says something that cannot be done.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, Problems> {
    let refuse = |(problems, warnings)| Problems { file: path.to_owned(), problems, warnings };
    let unread = |message| refuse((vec![Remark { path: String::new(), line: None, message }], Vec::new()));
    let bytes = read_file(path).map_err(unread)?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let report = Report::default();
    let (config, lines) = read(&bytes, folder, environment, &report);
    let (config, warnings) = told(config, report).map_err(refuse)?;
    Ok(Loaded { config, warnings, digest: digest(&bytes), path: path.to_owned(), lines })
}

/// Reads the bytes of a configuration file that lies in `folder`.
///
/// # Errors
/// Every problem at once; never none.
pub fn parse(bytes: &[u8], folder: &Path, environment: &Environment) -> Result<(Config, Vec<Warning>), Vec<Problem>> {
    let report = Report::default();
    let (config, _) = read(bytes, folder, environment, &report);
    told(config, report).map_err(|(problems, _)| problems)
}

/// Why there is no configuration, and what else was said.
type Refused = (Vec<Problem>, Vec<Warning>);

/// The configuration, unless a problem was reported; with it what else was.
fn told(config: Option<Config>, report: Report) -> Result<(Config, Vec<Warning>), Refused> {
    let clean = report.is_clean();
    let (mut problems, warnings) = report.finish();
    match config {
        Some(config) if clean => Ok((config, warnings)),
        _ => {
            if problems.is_empty() {
                let message = "it cannot be read; please report this file".to_owned();
                problems.push(Remark { path: String::new(), line: None, message });
            }
            Err((problems, warnings))
        }
    }
}

fn read(bytes: &[u8], folder: &Path, environment: &Environment, report: &Report) -> (Option<Config>, Lines) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        report.problem("", None, "the file is not UTF-8 text; save it as UTF-8");
        return (None, Lines::default());
    };
    let before = report.is_clean();
    let mut tree = match tree::parse(text, report) {
        Some(tree) => tree,
        None => {
            if before && report.is_clean() {
                report.problem("", None, "the file is empty; write the sections listen, oidc, session and upstreams");
            }
            return (None, Lines::default());
        }
    };
    secret::expand(&mut tree, environment, report);
    (root::read(&tree, folder, environment, report), Lines::of(&tree))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = tree::MAX_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| format!("the file cannot be read: {error}"))?;
    if bytes.len() > tree::MAX_BYTES {
        return Err("the file is larger than 1 MiB; make it smaller".to_owned());
    }
    Ok(bytes)
}

fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
