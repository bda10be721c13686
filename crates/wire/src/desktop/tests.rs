#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::shape::Severity;

fn map(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn said(document: Value) -> Vec<String> {
    check(&map(document))
        .into_iter()
        .map(|finding| {
            let word = if finding.severity == Severity::Error { "error" } else { "warning" };
            format!("{word} {}: {}", finding.path, finding.message)
        })
        .collect()
}

#[test]
fn a_usual_overlay_has_nothing_to_say_about() {
    let document = json!({
        "banner": {"enabled": true, "text": "pilot", "linkUrl": "https://go/ai"}, "autoModeEnabled": "true",
        "disabledBuiltinTools": ["WebSearch", "Whatever"], "builtinToolPolicy": {"Bash": "ask"},
        "coworkEgressAllowedHosts": ["*", "localhost", "a.example.com:443", "*.example.com", "10.0.0.1"],
        "allowedWorkspaceFolders": ["~/work", {"path": "~/docs", "isDefaultSelected": true}],
        "managedMcpServers": [
            {"name": "a", "url": "https://mcp.example.com", "transport": "http", "toolPolicy": {"read_*": "allow"}},
            {"name": "b", "transport": "stdio", "command": "/bin/server", "args": ["-x"]},
            {"name": "c", "server": "microsoft365", "tenantId": "t", "clientId": "c"},
        ],
        "orgPluginSettings": [{"serverName": "s", "tools": [{"toolName": "t", "permission": "blocked"}]}],
        "inferenceMaxTokensPerWindow": 5000, "inferenceTokenWindowHours": "24", "disableAutoUpdates": false,
    });
    assert_eq!(said(document), [""; 0]);
}

#[test]
fn a_key_that_cannot_be_delivered_is_refused_with_its_reason() {
    let wrong = json!({
        "bootstrapUrl": "https://x", "inferenceModels": [], "inferenceGatewayApiKey": "k", "otlpEndpoint": "https://x",
        "expiresAt": 1, "code": {}, "isDxtEnabled": true, "chatSurface": {}, "autoModeEnable": true, "bannеr": {}, "fooBar": 1,
    });
    insta::assert_snapshot!(said(wrong).join("\n"), @r"
    error autoModeEnable: is not a key of Claude Desktop; did you mean autoModeEnabled?
    error bannеr: is not a key of Claude Desktop; did you mean banner?
    error bootstrapUrl: Claude Desktop reads this only from what is installed on the machine; set it there
    error chatSurface: is a section of another form of this configuration; write the flat keys
    error code: is a key of this file and not of Claude Desktop; check the indentation
    error expiresAt: the gateway fills this in by itself; leave it out
    warning fooBar: is not a key of Claude Desktop that this version knows; it is served as it is
    error inferenceGatewayApiKey: follows from `upstreams` and `models`; leave it out
    error inferenceModels: follows from `upstreams` and `models`; leave it out
    error isDxtEnabled: is the older name of isDesktopExtensionEnabled; write that
    error otlpEndpoint: the gateway fills this in by itself; leave it out
    ");
}

#[test]
fn a_wrong_type_is_named_however_deep_it_stands() {
    let wrong = json!({
        "banner": {"text": 1, "colour": "red"}, "autoModeEnabled": "yes", "autoUpdaterEnforcementHours": 100,
        "disabledBuiltinTools": ["Bash", 1], "builtinToolPolicy": {"Bash": "blocked", "Bsh": "ask", "Nope": "ask"},
        "coworkEgressAllowedHosts": ["http://x", "*.*.com", "a:0", ""], "allowedWorkspaceFolders": [{"zz": 1}, 3],
        "managedMcpServers": [{"name": "a", "url": 1}, {"name": "b", "server": "other"}, "x"],
        "otlpDesktopLogLevel": "ERROR", "otlpContentCapture": ["userPrompts", "everything"],
    });
    insta::assert_snapshot!(said(wrong).join("\n"), @r#"
    error allowedWorkspaceFolders[0]: needs path, a string
    error allowedWorkspaceFolders[0].zz: is not known here; leave it out
    error allowedWorkspaceFolders[1]: must be a string or an object
    error autoModeEnabled: must be true or false
    error autoUpdaterEnforcementHours: must be a whole number from 1 to 72
    error banner.colour: is not known here; leave it out
    error banner.text: must be a string
    error builtinToolPolicy.Bash: must be allow or ask
    error builtinToolPolicy.Bsh: is not known here; did you mean Bash?
    error builtinToolPolicy.Nope: is not known here; leave it out
    error coworkEgressAllowedHosts[0]: must be a host, such as api.example.com, *.example.com:8443 or *, without scheme and path
    error coworkEgressAllowedHosts[1]: must be a host, such as api.example.com, *.example.com:8443 or *, without scheme and path
    error coworkEgressAllowedHosts[2]: must be a host, such as api.example.com, *.example.com:8443 or *, without scheme and path
    error coworkEgressAllowedHosts[3]: must be a host, such as api.example.com, *.example.com:8443 or *, without scheme and path
    error disabledBuiltinTools[1]: must be a string
    error managedMcpServers[0].url: must be a string
    error managedMcpServers[1].server: must be microsoft365 or websearch
    error managedMcpServers[2]: must be an object
    error otlpContentCapture[1]: must be userPrompts or assistantResponses or toolDetails or toolContent or rawApiBodies
    error otlpDesktopLogLevel: "ERROR" is not known here; did you mean error?
    warning banner.text: is shown nowhere, because the banner is not enabled
    "#);
}

#[test]
fn what_the_base_denies_stays_denied_and_objects_are_replaced_whole() {
    let base = json!({
        "banner": {"enabled": true, "text": "base"}, "disabledBuiltinTools": ["WebSearch"], "disableAutoUpdates": true,
        "builtinToolPolicy": {"Bash": "ask", "Edit": "allow", "Write": "ask"},
    });
    let own = json!({
        "banner": {"enabled": false}, "disabledBuiltinTools": ["WebFetch", "WebSearch"],
        "builtinToolPolicy": {"Bash": "allow", "Edit": "ask", "Read": "allow"},
    });
    assert_eq!(
        Value::Object(merge(&map(base), &map(own))),
        json!({
            "banner": {"enabled": false}, "disabledBuiltinTools": ["WebSearch", "WebFetch"], "disableAutoUpdates": true,
            "builtinToolPolicy": {"Bash": "ask", "Edit": "ask", "Write": "ask", "Read": "allow"},
        })
    );
}

#[test]
fn tools_and_hosts_follow_from_the_settings() {
    let settings = json!({
        "permissions": {"deny": ["Grep", "mcp__x", "mcp__x__y", "Bash(rm:*)", "Write", "Edit(*)"]},
        "sandbox": {"network": {"allowedDomains": ["a.example.com"]}},
    });
    let derived = |overlay: Value| Value::Object(derive(&map(settings.clone()), &map(overlay)));
    assert_eq!(
        derived(json!({"disabledBuiltinTools": ["Glob", "Write"], "banner": {}})),
        json!({
            "banner": {}, "disabledBuiltinTools": ["Grep", "Write", "Glob"],
            "coworkEgressAllowedHosts": ["a.example.com"],
        })
    );
    assert_eq!(derived(json!({"coworkEgressAllowedHosts": []}))["coworkEgressAllowedHosts"], json!([]));
    assert_eq!(derive(&Map::new(), &Map::new()), Map::new());
}
