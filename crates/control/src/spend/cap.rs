//! Caps: how much a target may spend in a period.

use super::{Money, Period};

/// What a cap is set on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everyone, each by themselves.
    Organization,
    /// Every member of a group, each by themselves.
    Group(String),
    /// One person.
    User(String),
}

/// A cap as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// `spl_` and 32 hex digits.
    pub id: String,
    /// What it is set on.
    pub scope: Scope,
    /// Over which time.
    pub period: Period,
    /// Whole US cents; `None`: unlimited.
    pub cents: Option<i64>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// All caps.
#[derive(Debug)]
pub struct Caps;

/// A cap in force for a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Over which time.
    pub period: Period,
    /// How much.
    pub limit: Money,
    /// In whole US cents, as set.
    pub cents: i64,
    /// Where it comes from.
    pub source: Scope,
    /// Its id.
    pub id: String,
}
