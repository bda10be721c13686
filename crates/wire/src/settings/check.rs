//! What is wrong or doubtful in a settings document.

use serde_json::{Map, Value};

use super::known::{self, HOOK_EVENTS, KNOWN_KEYS, PERMISSION_KEYS};

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

impl Finding {
    fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), severity: Severity::Error, message: message.into() }
    }

    fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), severity: Severity::Warning, message: message.into() }
    }
}

/// Everything wrong or doubtful in a document, in its order.
#[must_use]
pub fn check(document: &Map<String, Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, value) in document {
        match known::find(key) {
            _ if key == "mcpServers" => {
                findings
                    .push(Finding::error(key, "MCP servers cannot be set here; write them under managedMcpServers"));
            }
            None => findings.push(unknown_key(key)),
            Some(known) if !known.expected.accepts(value) => {
                findings.push(Finding::error(key, format!("must be {}", known.expected.describe())));
            }
            Some(_) => check_inside(key, value, &mut findings),
        }
    }
    findings
}

/// A typo stops the boot, because what it was meant to say would silently not apply; a key of a newer client does not.
fn unknown_key(key: &str) -> Finding {
    match nearest(key, KNOWN_KEYS.iter().map(|known| known.name)) {
        Some(meant) => Finding::error(key, format!("is not a settings key; did you mean {meant}?")),
        None => Finding::warning(key, "is not a settings key this version knows; it is served as it is"),
    }
}

fn check_inside(key: &str, value: &Value, findings: &mut Vec<Finding>) {
    let Value::Object(members) = value else {
        return;
    };
    match key {
        "permissions" => check_permissions(members, findings),
        "env" => {
            let bad =
                members.iter().filter(|(_, value)| !(value.is_string() || value.is_number() || value.is_boolean()));
            findings.extend(
                bad.map(|(name, _)| Finding::error(format!("env.{name}"), "must be a string, number or boolean")),
            );
        }
        "hooks" => check_hooks(members, findings),
        _ => {}
    }
}

fn check_permissions(permissions: &Map<String, Value>, findings: &mut Vec<Finding>) {
    for (key, value) in permissions {
        let path = format!("permissions.{key}");
        match PERMISSION_KEYS.iter().find(|(name, _)| name == key) {
            Some((_, expected)) if !expected.accepts(value) => {
                findings.push(Finding::error(path, format!("must be {}", expected.describe())));
            }
            Some((name, _)) if matches!(*name, "allow" | "deny" | "ask") => {
                for (place, rule) in value.as_array().into_iter().flatten().filter_map(Value::as_str).enumerate() {
                    check_rule(&format!("{path}[{place}]"), rule, findings);
                }
            }
            Some(_) => {}
            None => {
                if let Some(meant) = nearest(key, PERMISSION_KEYS.iter().map(|(name, _)| *name)) {
                    findings.push(Finding::error(path, format!("is not a permissions key; did you mean {meant}?")));
                }
            }
        }
    }
}

/// A rule is `Tool` or `Tool(what)`; a server's tools are `mcp__server` or `mcp__server__tool`.
fn check_rule(path: &str, rule: &str, findings: &mut Vec<Finding>) {
    let (tool, inside) = match rule.split_once('(') {
        Some((tool, rest)) => (tool, Some(rest.strip_suffix(')'))),
        None => (rule, None),
    };
    let error = |message: &str| Finding::error(path, format!("{rule:?}: {message}"));
    let is_server = tool.starts_with("mcp__");
    if rule.trim() != rule || tool.is_empty() {
        findings.push(error("a rule starts with a tool name, such as Bash(npm run test:*)"));
    } else if tool.contains(')') || inside == Some(None) {
        findings.push(error("the parentheses do not match"));
    } else if inside == Some(Some("")) {
        findings.push(error("empty parentheses match nothing; leave them out to mean every use of the tool"));
    } else if !is_server && tool.starts_with(|first: char| first.is_ascii_lowercase()) {
        findings.push(error("tool names start with a capital letter, and those of MCP servers with mcp__"));
    } else if is_server && inside.is_some() {
        findings.push(Finding::warning(path, format!("{rule:?}: a rule for MCP tools may not match with parentheses")));
    }
}

fn check_hooks(hooks: &Map<String, Value>, findings: &mut Vec<Finding>) {
    for (event, value) in hooks {
        let path = format!("hooks.{event}");
        if !HOOK_EVENTS.contains(&event.as_str()) {
            findings.push(match nearest(event, HOOK_EVENTS.iter().copied()) {
                Some(meant) => Finding::error(&path, format!("is not a hook event; did you mean {meant}?")),
                None => Finding::warning(&path, "is not a hook event this version knows; it is served as it is"),
            });
        }
        let Value::Array(matchers) = value else {
            findings.push(Finding::error(path, "must be a list of matchers, each with a list of hooks"));
            continue;
        };
        for (place, matcher) in matchers.iter().enumerate() {
            if let Some(message) = wrong_with_matcher(matcher) {
                findings.push(Finding::error(format!("{path}[{place}]"), message));
            }
        }
    }
}

fn wrong_with_matcher(matcher: &Value) -> Option<&'static str> {
    let Value::Object(members) = matcher else {
        return Some("must be an object with a list of hooks");
    };
    let Some(Value::Array(hooks)) = members.get("hooks") else {
        return Some("needs hooks, a list");
    };
    if members.get("matcher").is_some_and(|matcher| !matcher.is_string()) {
        Some("matcher must be a string")
    } else if hooks.iter().any(|hook| !hook.get("type").is_some_and(Value::is_string)) {
        Some("each of its hooks must be an object with a type, such as command")
    } else {
        None
    }
}

/// The known name that a mistyped one was probably meant to be.
fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    let allowed = if typed.len() <= 4 { 1 } else { 2 };
    names
        .map(|name| (distance(&typed, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words: optimal string alignment.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        rows[i][0] = i;
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[from.len()][to.len()]
}
