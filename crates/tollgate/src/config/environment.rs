//! The environment: what is read from the process, once.
//!
//! The only place beside the command line that may ask for it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use control::connect::ProxyConfig;
use secrecy::SecretString;

use super::LogLevel;
use super::problem::Report;
use super::root::DRAIN;

/// Environment variables by name. Their values may be secret and are never shown.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// The environment of this process; a variable that is not UTF-8 does not exist.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the environment")]
    pub fn from_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// An environment that holds exactly these.
    #[must_use]
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self { variables: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// With one more.
    #[cfg(test)]
    #[must_use]
    pub(super) fn and(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The value of a variable that is set, be it empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether connections to loopback are allowed: only by `1`.
    #[must_use]
    pub fn allow_loopback(&self) -> bool {
        self.get("CLAUDE_GATEWAY_ALLOW_LOOPBACK") == Some("1")
    }

    /// The forward proxy, in either letter case as curl reads it.
    pub(super) fn proxy(&self, report: &Report) -> Option<ProxyConfig> {
        let either = |lower: &str| {
            let upper = lower.to_ascii_uppercase();
            self.get(lower).or_else(|| self.get(&upper)).filter(|value| !value.trim().is_empty())
        };
        let url = |name| either(name).map(SecretString::from);
        let mut proxy = ProxyConfig {
            https: url("https_proxy"),
            http: url("http_proxy"),
            no_proxy: either("no_proxy").map(str::to_owned),
            is_egress_boundary: false,
        };
        let is_set = proxy.https.is_some() || proxy.http.is_some();
        proxy.is_egress_boundary = self.proxy_is_boundary(is_set, proxy.no_proxy.is_some(), report);
        is_set.then_some(proxy)
    }

    /// Only where nothing can go around the proxy.
    fn proxy_is_boundary(&self, is_set: bool, has_exceptions: bool, report: &Report) -> bool {
        const NAME: &str = "CLAUDE_GATEWAY_PROXY_IS_EGRESS_BOUNDARY";
        if self.get(NAME) != Some("1") {
            return false;
        }
        let stopped_by = if !is_set {
            "neither HTTPS_PROXY nor HTTP_PROXY is set"
        } else if has_exceptions {
            "NO_PROXY is set"
        } else if self.allow_loopback() {
            "CLAUDE_GATEWAY_ALLOW_LOOPBACK is 1"
        } else {
            return true;
        };
        report.warning(
            NAME,
            None,
            format!("has no effect, because {stopped_by}: host names are resolved and checked here"),
        );
        false
    }

    pub(super) fn drain_timeout(&self, report: &Report) -> Duration {
        const NAME: &str = "CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS";
        let Some(written) = self.get(NAME).filter(|value| !value.is_empty()) else { return DRAIN };
        written.trim().parse().map(Duration::from_millis).unwrap_or_else(|_| {
            report.warning(NAME, None, "not a whole number of milliseconds; 25000 is used");
            DRAIN
        })
    }

    pub(super) fn log_level(&self, report: &Report) -> LogLevel {
        const NAME: &str = "CLAUDE_GATEWAY_LOG_LEVEL";
        match self.get(NAME).unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "debug" => LogLevel::Debug,
            "" | "info" => LogLevel::Info,
            "warn" => LogLevel::Warn,
            "error" => LogLevel::Error,
            _ => {
                report.warning(NAME, None, "must be debug, info, warn or error; info is used");
                LogLevel::Info
            }
        }
    }
}
