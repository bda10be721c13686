//! Claude Code managed-settings documents: known keys, how a policy is laid over the base, and the canonical text.
//!
//! Knows documents; knows nothing of who they are for.

use serde_json::{Map, Value};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth telling the operator.
    Warning,
    /// The document must not be served.
    Error,
}

/// Something to say about a settings document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, in dots and brackets: `permissions.deny[2]`.
    pub path: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Lays a policy over the base document.
#[must_use]
pub fn merge(_base: &Map<String, Value>, _policy: &Map<String, Value>) -> Map<String, Value> {
    todo!()
}

/// The text whose SHA-256 is the checksum: keys sorted at every level, no white space, non-ASCII raw, the same bytes as
/// Python's `json.dumps(value, sort_keys=True, separators=(',', ':'), ensure_ascii=False)`.
#[must_use]
pub fn canonical_json(_value: &Value) -> String {
    todo!()
}

/// Everything wrong or doubtful in a document, in its order.
#[must_use]
pub fn check(_document: &Map<String, Value>) -> Vec<Finding> {
    todo!()
}
