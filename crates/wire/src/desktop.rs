//! Claude Desktop bootstrap documents: known keys, how a policy's are laid over the base's, and what follows from settings.
//!
//! Knows documents; knows nothing of who they are for.

mod known;

use serde_json::{Map, Value};

pub use known::check;

/// Lays a policy's keys over the base's: what the base denies stays denied, everything else is the policy's where it says
/// something (contract A10).
#[must_use]
pub fn merge(base: &Map<String, Value>, policy: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = base.clone();
    for (key, value) in policy {
        let value = match (key.as_str(), base.get(key), value) {
            ("disabledBuiltinTools", Some(Value::Array(below)), Value::Array(own)) => {
                crate::settings::union(below, own).into()
            }
            ("builtinToolPolicy", Some(Value::Object(below)), Value::Object(own)) => stricter(below, own).into(),
            _ => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

/// The keys that Desktop receives: those of `overlay`, with the tools and hosts that follow from a settings document.
///
/// A bare tool name in `permissions.deny` takes the tool away here too; a rule with parentheses and the tools of MCP servers
/// mean less than a whole tool. `sandbox.network.allowedDomains` are the hosts, where the overlay does not name its own.
#[must_use]
pub fn derive(settings: &Map<String, Value>, overlay: &Map<String, Value>) -> Map<String, Value> {
    let mut document = overlay.clone();
    let denied = settings.get("permissions").and_then(|permissions| permissions["deny"].as_array());
    let is_bare = |rule: &&Value| rule.as_str().is_some_and(|rule| !rule.starts_with("mcp__") && !rule.contains('('));
    let denied: Vec<Value> = denied.into_iter().flatten().filter(is_bare).cloned().collect();
    let own = overlay.get("disabledBuiltinTools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let disabled = crate::settings::union(&denied, own);
    if !disabled.is_empty() {
        document.insert("disabledBuiltinTools".to_owned(), disabled.into());
    }
    let hosts = settings.get("sandbox").and_then(|sandbox| sandbox["network"]["allowedDomains"].as_array());
    if let Some(hosts) = hosts {
        document.entry("coworkEgressAllowedHosts").or_insert_with(|| hosts.clone().into());
    }
    document
}

fn stricter(below: &Map<String, Value>, own: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = below.clone();
    for (tool, policy) in own {
        if below.get(tool).is_none_or(|base| base == "allow") {
            merged.insert(tool.clone(), policy.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests;
