//! Credentials that have to be fetched: short-lived tokens that tell a cloud who we are, kept while they are good.
//!
//! Knows the clouds' token endpoints, credential files and metadata services; knows nothing of what the tokens are used
//! for, and reads no environment: what is needed of it comes as plain values.

pub mod anthropic;
pub mod azure;
mod exchange;
pub mod google;
mod program;
#[cfg(test)]
pub(in crate::upstream) mod testing;
mod tokens;

pub(super) use tokens::{Source, Tokens};

/// A credential that cannot work, said before anything is asked: the file is missing, or what it says is impossible. A
/// sentence for whoever wrote the configuration; never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// No token could be fetched. The texts name the cause, and never a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No connection, or no whole answer in time.
    #[error("no token from {endpoint}: {cause}")]
    Unreachable {
        /// Scheme, host and path of what was asked.
        endpoint: String,
        /// What went wrong.
        cause: String,
    },
    /// The answer was an error: mostly, the identity has no right, or is unknown.
    #[error("{endpoint} refused a token with {status}{said}")]
    Refused {
        /// Scheme, host and path of what was asked.
        endpoint: String,
        /// Its status.
        status: u16,
        /// What it said of the reason, after a colon and a space; empty when it said nothing that we understand.
        said: String,
    },
    /// The answer has no token that could be used.
    #[error("{endpoint} answered without a usable token: {why}")]
    Unreadable {
        /// Scheme, host and path of what was asked.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that holds the proof of our identity cannot be used any more.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        cause: String,
    },
    /// The assertion could not be signed.
    #[error("the key of {0} cannot sign")]
    Unsigned(&'static str),
    /// The credential helper gave no token.
    #[error("{program} gave no token: {cause}")]
    Helper {
        /// The program.
        program: String,
        /// What it said, or how it ended.
        cause: String,
    },
    /// Nothing on this machine says who we are.
    #[error("no credential was found: {0}")]
    Nothing(String),
}
