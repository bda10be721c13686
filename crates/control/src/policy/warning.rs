//! What an operator should know about policies that are valid but may not do what was meant.

use std::fmt;

use serde_json::{Map, Value};
use wire::catalog::{Allowlist, Catalog};

use super::matcher::Matcher;
use super::permit::strings;
use super::{Config, Kind, Merged};

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

/// Everything doubtful in the policies, in file order.
pub(super) fn about(config: &Config, merged: &Merged, catalog: &Catalog) -> Vec<Warning> {
    let Some(entries) = &config.policies else { return Vec::new() };
    let mut warnings = Vec::new();
    let mut warn = |path: &str, message: String| warnings.push(Warning { path: path.to_owned(), message });
    if entries.is_empty() {
        let message = "holds no policy, so nobody receives settings; add one with `match: {}`";
        warn("managed.policies", message.to_owned());
    }
    let base = merged.base.and_then(|index| entries[index].settings.as_ref());
    for (index, (entry, document)) in entries.iter().zip(&merged.documents).enumerate() {
        if let Some(message) = doubtful_match(&Matcher::new(entry), index, merged.base, entries.len()) {
            warn(&format!("{}.match", entry.path), message);
        }
        let Some(own) = &entry.settings else { continue };
        let at = &entry.document_path;
        if own.contains_key("availableModels")
            && let Some(message) = doubtful_models(document, catalog)
        {
            warn(&format!("{at}.availableModels"), message);
        }
        for (key, dropped) in base.into_iter().flat_map(|base| dropped_keys(base, document)) {
            let message = format!(
                "replaces the base's `{key}` whole and so drops {}; repeat here what should stay",
                dropped.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            );
            warn(&format!("{at}.{key}"), message);
        }
    }
    if !entries.is_empty() && merged.overlays.iter().all(Option::is_none) {
        let message = "no policy has `desktop`, so Claude Desktop is turned away; add it to those that may use Desktop";
        warn("managed", message.to_owned());
    }
    if config.kind == Kind::Code {
        warn("managed", for_machines(&config.desktop.origin));
    }
    warnings
}

/// What Claude Desktop's Code tab needs on each machine before it takes settings from a gateway.
fn for_machines(origin: &str) -> String {
    let needed = serde_json::json!({"forceLoginGatewayUrl": origin, "parentSettingsBehavior": "merge"});
    format!(
        "the settings under `code` reach Claude Desktop's Code tab only on machines that name this gateway in their own \
         managed settings and reach it over HTTPS on a private network; install {needed} there"
    )
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
    let default = Catalog::default_model();
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
