//! Small grammars: permission rules (code.claude.com/docs/en/permissions) and hosts that may be reached
//! (claude.com/docs/third-party/claude-desktop/configuration).

use super::Finding;

/// A rule is `Tool` or `Tool(what)`; a server's tools are `mcp__server` or `mcp__server__tool`.
pub(super) fn check(path: &str, rule: &str, findings: &mut Vec<Finding>) {
    let (tool, inside) = match rule.split_once('(') {
        Some((tool, rest)) => (tool, Some(rest.strip_suffix(')'))),
        None => (rule, None),
    };
    let is_server = tool.starts_with("mcp__");
    let wrong = if rule.trim() != rule || tool.is_empty() {
        "a rule starts with a tool name, such as Bash(npm run test:*)"
    } else if tool.contains(')') || inside == Some(None) {
        "the parentheses do not match"
    } else if inside == Some(Some("")) {
        "empty parentheses match nothing; leave them out to mean every use of the tool"
    } else if !is_server && tool.starts_with(|first: char| first.is_ascii_lowercase()) {
        "tool names start with a capital letter, and those of MCP servers with mcp__"
    } else if is_server && inside.is_some() {
        "a rule for tools of MCP servers has no parentheses; leave them out"
    } else {
        return;
    };
    let shown: String = rule.chars().take(80).collect();
    findings.push(Finding::error(path, format!("{shown:?}: {wrong}")));
}

/// `*`, `localhost`, `host[:port]` or `*.host[:port]`.
pub(super) fn is_host(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let host = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}
