//! What can go wrong with the database, in words for the operator.

use std::fmt;

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct StoreError {
    kind: Kind,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unreachable,
    TimedOut,
    Refused,
    Inconsistent,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "the database cannot be reached",
            Self::TimedOut => "the database did not answer in time",
            Self::Refused => "the database refused a statement",
            Self::Inconsistent => "the database holds a row that cannot be",
        })
    }
}

impl StoreError {
    /// No connection, or it broke.
    pub fn unreachable(detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Unreachable, detail: detail.to_string() }
    }

    /// The two-second budget is over.
    #[must_use]
    pub fn timed_out() -> Self {
        Self { kind: Kind::TimedOut, detail: "gave up after the statement budget".to_owned() }
    }

    /// The database answered with an error.
    pub fn refused(detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Refused, detail: detail.to_string() }
    }

    /// A row that the schema's rules forbid; `detail` names table and row.
    pub fn inconsistent(detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Inconsistent, detail: detail.to_string() }
    }

    /// Whether the fault is the connection or the time, so that a later attempt may succeed.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::TimedOut)
    }
}
