//! What is wrong or doubtful in a settings document.

use serde_json::{Map, Value};

use super::known::TABLE;
use crate::shape::{Finding, nearest};

/// Everything wrong or doubtful in a document.
#[must_use]
pub fn check(document: &Map<String, Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, value) in document {
        match TABLE.keys.find(key) {
            Some(field) => field.shape.check(key, value, &mut findings),
            None if key == "mcpServers" => {
                let message =
                    "MCP servers cannot be set here; write them under managedMcpServers, http and sse ones only";
                findings.push(Finding::error(key, message));
            }
            None => findings.push(unknown_key(key)),
        }
    }
    findings
}

/// A typo stops the boot, because what it was meant to say would silently not apply; a key of a newer client does not.
fn unknown_key(key: &str) -> Finding {
    match nearest(key, TABLE.keys.fields.iter().map(|field| field.name.as_str())) {
        Some(meant) => Finding::error(key, format!("is not a settings key; did you mean {meant}?")),
        None if !key.is_ascii() => Finding::error(key, "holds letters outside ASCII, and no settings key does"),
        None => Finding::warning(key, "is not a settings key this version knows; it is served as it is"),
    }
}
