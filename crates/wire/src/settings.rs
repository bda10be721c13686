//! Claude Code managed-settings documents: known keys, how a policy is laid over the base, and the canonical text.
//!
//! Knows documents; knows nothing of who they are for.

mod canonical;
mod check;
mod known;

pub use canonical::canonical_json;
pub use check::check;
pub use known::{MergeKind, merge_of};

use serde_json::{Map, Value};

/// Lays a policy over the base document, key by key as [`merge_of`] says. Where either side is of another type than
/// the rule needs, the policy's value replaces the base's.
#[must_use]
pub fn merge(base: &Map<String, Value>, policy: &Map<String, Value>) -> Map<String, Value> {
    lay_over(base, policy, merge_of)
}

/// Rules inside `permissions`: denials add up, everything else is the policy's where it says something.
fn merge_of_permission(key: &str) -> MergeKind {
    if matches!(key, "deny" | "ask") { MergeKind::Union } else { MergeKind::Replace }
}

fn lay_over(
    base: &Map<String, Value>,
    over: &Map<String, Value>,
    rule: impl Fn(&str) -> MergeKind,
) -> Map<String, Value> {
    let mut merged = base.clone();
    for (key, value) in over {
        let value = match base.get(key) {
            Some(below) => combine(below, value, rule(key)),
            None => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

fn combine(below: &Value, value: &Value, kind: MergeKind) -> Value {
    match (kind, below, value) {
        (MergeKind::Union, Value::Array(below), Value::Array(value)) => union(below, value).into(),
        (MergeKind::Shallow, Value::Object(below), Value::Object(value)) => {
            lay_over(below, value, |_| MergeKind::Replace).into()
        }
        (MergeKind::Permissions, Value::Object(below), Value::Object(value)) => {
            lay_over(below, value, merge_of_permission).into()
        }
        (MergeKind::Hooks, Value::Object(below), Value::Object(value)) => {
            lay_over(below, value, |_| MergeKind::Union).into()
        }
        _ => value.clone(),
    }
}

pub(crate) fn union(below: &[Value], value: &[Value]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::with_capacity(below.len() + value.len());
    for entry in below.iter().chain(value) {
        if !all.contains(entry) {
            all.push(entry.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests;
