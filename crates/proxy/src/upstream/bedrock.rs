//! Amazon Bedrock: Anthropic's body without what stands in the address, and events inside Amazon's event stream.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html>

mod count;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use control::clock::Clock;
use control::connect::Egress;
use http::{HeaderMap, HeaderName, HeaderValue};
use wire::catalog;
use wire::messages::Rewrite;

use super::aws::{Authority, AwsConfig};
use super::base::encoded;
use super::cloud::{ANTHROPIC_VERSION, Framing, Outgoing, Provider, Unsigned, Without, betas};
use super::renewed::NoCredential;
use super::{Call, Caller, Endpoint, Invalid};

pub(super) use count::count;

const GUARDRAIL_ID: HeaderName = HeaderName::from_static("x-amzn-bedrock-guardrailidentifier");
const GUARDRAIL_VERSION: HeaderName = HeaderName::from_static("x-amzn-bedrock-guardrailversion");
/// The version of the body.
const VERSION: &[u8] = b"\"bedrock-2023-05-31\"";

/// An upstream with `provider: bedrock`.
#[derive(Debug, Clone)]
pub struct BedrockConfig {
    /// Where and as whom.
    pub aws: AwsConfig,
    /// `guardrail`: its id and version.
    pub guardrail: Option<Guardrail>,
}

/// `guardrail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guardrail {
    /// `id`.
    pub id: HeaderValue,
    /// `version`.
    pub version: HeaderValue,
}

/// How Bedrock is spoken to.
#[derive(Debug)]
pub(super) struct Bedrock {
    authority: Authority,
    guardrail: Option<Guardrail>,
    /// Models that it has said not to count for, until when that is believed.
    uncounted: Mutex<HashMap<String, Instant>>,
    clock: Arc<dyn Clock>,
}

impl Bedrock {
    /// For the upstream `name`.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(super) fn new(
        name: &str,
        config: BedrockConfig,
        egress: &Egress,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            authority: Authority::new(name, config.aws, "bedrock", egress, clock)?,
            guardrail: config.guardrail,
            uncounted: Mutex::default(),
            clock: Arc::clone(clock),
        })
    }

    fn headers(&self, call: &Call<'_>) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(16);
        if let Some(version) = call.headers.get(ANTHROPIC_VERSION) {
            headers.insert(ANTHROPIC_VERSION, version.clone());
        }
        if let Some(Guardrail { id, version }) = &self.guardrail {
            headers.insert(GUARDRAIL_ID, id.clone());
            headers.insert(GUARDRAIL_VERSION, version.clone());
        }
        headers
    }
}

impl Provider for Bedrock {
    const KIND: catalog::Provider = catalog::Provider::Bedrock;
    const FRAMING: Framing = Framing::Amazon;

    fn outgoing(&self, call: &Call<'_>, model_id: &str, without: &Without) -> Result<Outgoing, String> {
        if call.endpoint == Endpoint::CountTokens {
            return Ok(count::outgoing(call, model_id, without));
        }
        let verb = if call.head.stream { "invoke-with-response-stream" } else { "invoke" };
        let mut body = Rewrite::new(call.body, &call.head.layout);
        for name in ["model", "stream", "tags"] {
            body.remove(name);
        }
        without.apply(&mut body);
        let betas: Vec<&str> = betas(call, without, false).collect();
        if !betas.is_empty() {
            // Texts always serialise.
            body.add("anthropic_beta", &serde_json::to_vec(&betas).unwrap_or_default());
        }
        body.add("anthropic_version", VERSION);
        let path = format!("/model/{}/{verb}", encoded(model_id, ":"));
        Ok(Outgoing { path, headers: self.headers(call), body: body.finish() })
    }

    async fn authorize(&self, request: &mut Unsigned, caller: &Caller<'_>) -> Result<(), NoCredential> {
        self.authority.authorize(request, caller).await
    }

    fn refused(&self, shown: &HeaderValue, caller: &Caller<'_>) -> bool {
        self.authority.refused(shown, caller)
    }
}
