//! Why no connection could be made, in words that tell a caller whether another upstream may be asked.

use std::error::Error;
use std::io;

use super::Blocked;

/// No connection was made, so nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The guard refuses the host or an address it resolves to: the configuration's fault.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// The URL has no host.
    #[error("the URL has no host")]
    NoHost,
    /// The name does not resolve.
    #[error("cannot resolve {host}: {source}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Every address refused, or could not be reached.
    #[error("cannot connect to {host}: {source}")]
    Refused {
        /// The name.
        host: String,
        /// What the last address said.
        source: io::Error,
    },
    /// No usable connection within the budget.
    #[error("no connection to {host} in time")]
    TimedOut {
        /// The name.
        host: String,
    },
    /// The TLS handshake failed: an untrusted or wrong certificate, or no TLS at all.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The name.
        host: String,
        /// What rustls said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The forward proxy could not be used.
    #[error("the forward proxy did not connect to {host}: {reason}")]
    Proxy {
        /// The name that was to be reached through it.
        host: String,
        /// What it said; never its credentials.
        reason: String,
    },
}

/// The connect error inside a client's error, when the request never got a connection.
#[must_use]
pub fn connect_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e ConnectError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
