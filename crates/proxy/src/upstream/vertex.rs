//! Google Cloud Vertex AI: Anthropic's body without the model, which stands in the address.
//! <https://platform.claude.com/docs/en/build-with-claude/claude-models-on-google-cloud/google-managed>

use std::sync::Arc;

use control::clock::Clock;
use control::connect::Egress;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use wire::catalog;
use wire::messages::Rewrite;

use super::base::encoded;
use super::cloud::{Framing, Outgoing, Provider, Unsigned, Without, anthropic_headers};
use super::credential::google::Google;
use super::credential::{Source, Tokens};
use super::renewed::NoCredential;
use super::{Call, Caller, Endpoint};

const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");
/// The version of the body.
const VERSION: &[u8] = b"\"vertex-2023-10-16\"";

/// An upstream with `provider: vertex`.
#[derive(Debug, Clone)]
pub struct VertexConfig {
    /// `project_id`.
    pub project_id: String,
    /// `region`: a region, `global`, or a multi-region (`us`, `eu`).
    pub region: String,
    /// `auth`.
    pub google: Google,
}

/// How requests to one upstream on Google Cloud are authorized.
#[derive(Debug)]
pub(super) struct GoogleAuthority {
    tokens: Tokens,
    quota_project: Option<HeaderValue>,
}

/// How Vertex AI is spoken to.
#[derive(Debug)]
pub(super) struct Vertex {
    /// Below `base_url`, up to the model.
    models: String,
    authority: GoogleAuthority,
}

impl VertexConfig {
    /// Where a region is served: <https://docs.cloud.google.com/vertex-ai/docs/general/googleapi-access-methods>
    #[must_use]
    pub fn base_url(region: &str) -> String {
        match region {
            "global" => "https://aiplatform.googleapis.com/v1".to_owned(),
            "us" | "eu" => format!("https://aiplatform.{region}.rep.googleapis.com/v1"),
            region => format!("https://{region}-aiplatform.googleapis.com/v1"),
        }
    }
}

impl GoogleAuthority {
    pub(super) fn new(google: Google, egress: &Egress, clock: &Arc<dyn Clock>) -> Self {
        let quota_project = google.quota_project().cloned();
        Self { tokens: Tokens::new(Source::Google(google), egress, clock), quota_project }
    }

    pub(super) async fn authorize(&self, headers: &mut HeaderMap) -> Result<(), NoCredential> {
        headers.insert(AUTHORIZATION, self.tokens.authorization().await?);
        if let Some(project) = &self.quota_project {
            headers.insert(USER_PROJECT, project.clone());
        }
        Ok(())
    }

    /// As [`Provider::refused`].
    pub(super) fn refused(&self, shown: &HeaderValue) -> bool {
        self.tokens.refused(shown)
    }
}

impl Vertex {
    pub(super) fn new(config: VertexConfig, egress: &Egress, clock: &Arc<dyn Clock>) -> Self {
        let VertexConfig { project_id, region, google } = config;
        let (project, region) = (encoded(&project_id, ":"), encoded(&region, ""));
        Self {
            models: format!("/projects/{project}/locations/{region}/publishers/anthropic/models"),
            authority: GoogleAuthority::new(google, egress, clock),
        }
    }
}

impl Provider for Vertex {
    const KIND: catalog::Provider = catalog::Provider::Vertex;
    const FRAMING: Framing = Framing::Events;

    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String> {
        let models = &self.models;
        let mut body = Rewrite::new(call.body, &call.head.layout);
        let path = match (call.endpoint, call.head.stream) {
            (Endpoint::CountTokens, _) => {
                // A text always serialises.
                body.replace("model", serde_json::to_vec(model_id).unwrap_or_default());
                format!("{models}/count-tokens:rawPredict")
            }
            (Endpoint::Messages, is_stream) => {
                body.remove("model");
                let verb = if is_stream { "streamRawPredict" } else { "rawPredict" };
                format!("{models}/{}:{verb}", encoded(model_id, "@"))
            }
        };
        body.remove("tags");
        without.apply(&mut body);
        body.add("anthropic_version", VERSION);
        Ok(Outgoing { path, headers: anthropic_headers(call, without, false), body: body.finish() })
    }

    async fn authorize(&self, request: &mut Unsigned, _: &Caller<'_>) -> Result<(), NoCredential> {
        self.authority.authorize(&mut request.headers).await
    }

    fn refused(&self, shown: &HeaderValue, _: &Caller<'_>) -> bool {
        self.authority.refused(shown)
    }
}

#[cfg(test)]
mod tests;
