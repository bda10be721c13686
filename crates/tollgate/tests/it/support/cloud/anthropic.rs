//! The Claude API with workload identity federation: its token endpoint, and messages for who holds a token of it.

use serde_json::json;

use crate::support::upstream::{Answer, Received};

pub(crate) const TOKEN: &str = "sk-ant-oat01-of-the-workload";
/// What the workload's own provider wrote into its file.
pub(crate) const ASSERTION: &str = "the-token-of-the-workload";

/// `auth` of an upstream whose workload may exchange its token.
pub(crate) fn auth(identity_token_file: &std::path::Path) -> serde_json::Value {
    json!({
        "federation_rule_id": "fdrl_1", "organization_id": "00000000-1111-2222-3333-444444444444",
        "identity_token_file": identity_token_file, "service_account_id": "svac_1", "workspace_id": "wrkspc_1",
        "api_key": null,
    })
}

/// <https://platform.claude.com/docs/en/manage-claude/wif-reference>
pub(crate) fn exchange(request: &Received) -> Answer {
    assert_eq!(request.method, "POST");
    let refused = |why: &str| Answer::error(400, "invalid_request_error", why);
    if request.header("anthropic-beta") != Some("oauth-2025-04-20,oidc-federation-2026-04-01") {
        return refused("unknown grant");
    }
    let expected = json!({
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": ASSERTION,
        "federation_rule_id": "fdrl_1", "organization_id": "00000000-1111-2222-3333-444444444444",
        "service_account_id": "svac_1", "workspace_id": "wrkspc_1",
    });
    if request.json() != expected {
        return refused("no rule matches");
    }
    Answer::json(200, &json!({ "access_token": TOKEN, "expires_in": 600, "token_type": "Bearer" }))
}
