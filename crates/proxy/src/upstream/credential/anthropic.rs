//! Anthropic's workload identity federation: the workload's own identity token, exchanged for an access token of the Claude
//! API (<https://platform.claude.com/docs/en/manage-claude/wif-reference>).

use std::path::PathBuf;

use http::HeaderName;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use url::Url;

use super::CredentialError;
use super::exchange::{Question, Way, Ways, proof};
use super::tokens::Fetched;

const BETAS: &str = "oauth-2025-04-20,oidc-federation-2026-04-01";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// `auth` with `federation_rule_id`.
#[derive(Debug, Clone)]
pub struct FederationConfig {
    /// `federation_rule_id`.
    pub federation_rule_id: String,
    /// `organization_id`.
    pub organization_id: String,
    /// `identity_token_file`: read anew at every exchange, because its writer renews it.
    pub identity_token_file: PathBuf,
    /// `workspace_id`, if any.
    pub workspace_id: Option<String>,
    /// `service_account_id`, if any.
    pub service_account_id: Option<String>,
}

/// A federation at one address of the Claude API.
#[derive(Debug, Clone)]
pub(in crate::upstream) struct Federation {
    config: FederationConfig,
    token_url: Url,
}

impl Federation {
    /// `base` is the upstream's address; its path is kept as a prefix.
    pub(in crate::upstream) fn new(config: FederationConfig, base: &Url) -> Self {
        let mut token_url = base.clone();
        token_url.set_path(&format!("{}/v1/oauth/token", base.path().trim_end_matches('/')));
        Self { config, token_url }
    }

    pub(super) async fn fetch(&self, ways: &Ways) -> Result<Fetched, CredentialError> {
        let assertion = proof(&self.config.identity_token_file).await?;
        let fields = [
            ("grant_type", Some(GRANT)),
            ("assertion", Some(assertion.expose_secret())),
            ("federation_rule_id", Some(self.config.federation_rule_id.as_str())),
            ("organization_id", Some(self.config.organization_id.as_str())),
            ("service_account_id", self.config.service_account_id.as_deref()),
            ("workspace_id", self.config.workspace_id.as_deref()),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
        let body = Value::Object(given.collect::<Map<_, _>>());
        let question = Question::json(&self.token_url, &body);
        ways.token(Way::Far, question.known(HeaderName::from_static("anthropic-beta"), BETAS)).await
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::upstream::credential::testing::{Bench, NOW};

    #[tokio::test]
    async fn the_workloads_token_is_exchanged_below_the_base_url_as_it_stands_in_the_file_now() {
        let bench = Bench::new().await;
        let path = bench.file("token", "first");
        let config = FederationConfig {
            federation_rule_id: "fdrl_1".to_owned(),
            organization_id: "org".to_owned(),
            identity_token_file: path,
            workspace_id: None,
            service_account_id: Some("svac_1".to_owned()),
        };
        let base = Url::parse(&format!("{}/prefix/", bench.server.url())).unwrap();
        let federation = Federation::new(config, &base);
        bench.file("token", "second\n");
        let answer = serde_json::json!({ "access_token": "sk-ant-oat01-x", "expires_in": 600 });
        let ways = bench.ways();
        let (fetched, exchange) = tokio::join!(federation.fetch(&ways), bench.answer(200, &answer));
        assert!(exchange.head.starts_with("POST /prefix/v1/oauth/token HTTP/1.1"), "{}", exchange.head);
        for header in ["content-type: application/json", "anthropic-beta: oauth-2025-04-20,oidc-federation-2026-04-01"]
        {
            assert!(exchange.head.contains(header), "{}", exchange.head);
        }
        let body: Value = serde_json::from_slice(&exchange.body).unwrap();
        let wanted = serde_json::json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "second",
            "federation_rule_id": "fdrl_1", "organization_id": "org", "service_account_id": "svac_1",
        });
        assert_eq!(body, wanted);
        let fetched = fetched.unwrap();
        assert_eq!((fetched.token.expose_secret(), fetched.ends), ("sk-ant-oat01-x", NOW + 600));
    }
}
