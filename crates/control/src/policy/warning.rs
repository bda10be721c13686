//! What an operator should know about policies that are valid but may not do what was meant.

use std::fmt;

use serde_json::{Map, Value};
use wire::catalog::{Allowlist, Catalog};

use super::Config;
use super::matcher::Matcher;
use super::permit::strings;

/// A sentence about one place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where, as `managed.policies[0].cli.sandbox`.
    pub path: String,
    /// What is doubtful, and what to write instead.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Everything doubtful in the policies, in file order. `merged` holds one document per policy.
pub(super) fn about(
    config: &Config,
    base_index: Option<usize>,
    merged: &[Map<String, Value>],
    catalog: &Catalog,
) -> Vec<Warning> {
    let Some(entries) = &config.policies else { return Vec::new() };
    let mut warnings = Vec::new();
    let mut warn = |path: String, message: String| warnings.push(Warning { path, message });
    if entries.is_empty() {
        warn(
            "managed.policies".to_owned(),
            "holds no policy, so nobody receives settings; add one with `match: {}`".to_owned(),
        );
    }
    let base = base_index.and_then(|index| entries[index].cli.as_ref());
    for (index, (entry, document)) in entries.iter().zip(merged).enumerate() {
        let path = format!("managed.policies[{index}]");
        if let Some(message) = doubtful_match(&Matcher::new(entry), index, base_index, entries.len()) {
            warn(format!("{path}.match"), message);
        }
        let Some(cli) = &entry.cli else { continue };
        if cli.contains_key("availableModels")
            && let Some(message) = doubtful_models(document, catalog)
        {
            warn(format!("{path}.cli.availableModels"), message);
        }
        for (key, dropped) in base.into_iter().flat_map(|base| dropped_keys(base, document)) {
            let message = format!(
                "replaces the base's `{key}` whole and so drops {}; repeat here what should stay",
                dropped.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            );
            warn(format!("{path}.cli.{key}"), message);
        }
    }
    warnings
}

fn doubtful_match(matcher: &Matcher, index: usize, base_index: Option<usize>, count: usize) -> Option<String> {
    if base_index.is_some_and(|base| index > base) {
        return None; // The catch-all before it says so for all that follow.
    }
    if matcher.matches_everyone() && index + 1 < count {
        return Some("matches everyone, so the policies below it are never chosen; move it to the end".to_owned());
    }
    matcher.matches_nobody().then(|| "holds an empty list, so this policy is never chosen".to_owned())
}

fn doubtful_models(document: &Map<String, Value>, catalog: &Catalog) -> Option<String> {
    let entries = strings(document.get("availableModels")?);
    if entries.is_empty() {
        return Some("is empty, so every request is refused; leave the key out to allow every model".to_owned());
    }
    let steered = document.contains_key("model") || document.get("enforceAvailableModels") == Some(&Value::Bool(true));
    let list = Allowlist::new(&entries);
    let default = Catalog::default_models().first()?;
    (!steered && !list.admits(default, catalog)).then(|| {
        format!(
            "leaves out {default}, which a client asks for until its user chooses a model; set `model` or \
             `enforceAvailableModels: true` beside it"
        )
    })
}

/// Per top-level key, the paths below it that the base has and the merged document has no more.
fn dropped_keys(base: &Map<String, Value>, merged: &Map<String, Value>) -> Vec<(String, Vec<String>)> {
    let lost = |(key, was): (&String, &Value)| {
        let mut dropped = Vec::new();
        collect_dropped(was, merged.get(key)?, "", &mut dropped);
        (!dropped.is_empty()).then(|| (key.clone(), dropped))
    };
    base.iter().filter_map(lost).collect()
}

fn collect_dropped(was: &Value, is: &Value, prefix: &str, dropped: &mut Vec<String>) {
    let (Value::Object(was), Value::Object(is)) = (was, is) else { return };
    for (key, value) in was {
        let path = format!("{prefix}{key}");
        match is.get(key) {
            Some(kept) => collect_dropped(value, kept, &format!("{path}."), dropped),
            None => dropped.push(path),
        }
    }
}
