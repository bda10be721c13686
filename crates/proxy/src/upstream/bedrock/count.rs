//! Counting tokens on Bedrock: a whole `InvokeModel` body, packed into another.
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html>

use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use control::connect::chain;
use http::header::CONTENT_LENGTH;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use wire::cloud::Told;
use wire::error::ErrorType;
use wire::messages::Rewrite;

use super::super::cloud::{Cloud, Outgoing, Way, Without, betas};
use super::super::{Answer, Call, Failure, Sent};
use super::{Bedrock, VERSION, encoded};

/// How long Bedrock's word that it does not count for a model is believed (contract B4).
const BELIEVED: Duration = Duration::from_secs(600);
/// The betas that pass to the count (contract B4).
const BETAS: [&str; 3] = ["claude-code-20250219", "context-management-2025-06-27", "oauth-2025-04-20"];
/// The largest answer that makes sense.
const MAX_ANSWER: usize = 64 * 1024;

pub(super) fn outgoing(call: &Call<'_>, model_id: &str, without: &Without) -> Outgoing {
    let packed = STANDARD.encode(inner(call, without).concat());
    let body = [b"{\"input\":{\"invokeModel\":{\"body\":\"", packed.as_bytes(), b"\"}}}"].concat();
    let path = format!("/model/{}/count-tokens", encoded(foundation_model(model_id), ""));
    Outgoing { path, headers: Default::default(), body: vec![body.into()] }
}

/// The body that would be sent for an answer, as far as it counts.
fn inner(call: &Call<'_>, without: &Without) -> Vec<Bytes> {
    let layout = &call.head.layout;
    let value = |name| layout.value(call.body, name);
    let mut body = Rewrite::new(call.body, layout);
    for name in ["model", "stream", "tags"] {
        body.remove(name);
    }
    let has_no_tools =
        value("tools").is_some_and(|tools| tools.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"[]"));
    if has_no_tools {
        body.remove("tools");
    }
    without.apply(&mut body);
    if value("max_tokens").is_none() {
        // The thinking must fit.
        let budget = call.head.thinking_budget(call.body).map_or(1, |budget| budget.saturating_add(1));
        body.add("max_tokens", budget.to_string().as_bytes());
    }
    let betas: Vec<&str> = betas(call, without, false).filter(|beta| BETAS.contains(beta)).collect();
    if !betas.is_empty() {
        body.add("anthropic_beta", &serde_json::to_vec(&betas).unwrap_or_default());
    }
    body.add("anthropic_version", VERSION);
    body.finish()
}

/// The model without the prefix of the regions that share it.
fn foundation_model(id: &str) -> &str {
    match id.find("anthropic.") {
        Some(at) if !id.starts_with("arn:") => &id[at..],
        _ => id,
    }
}

/// Counts, or says that this upstream cannot (contract R34).
///
/// # Errors
/// Always a [`Failure`] where there is no number: another upstream may count.
pub(in super::super) async fn count(
    cloud: &Cloud<Bedrock>,
    way: Way<'_>,
    call: &Call<'_>,
    model_id: &str,
    sent: &Sent,
) -> Result<Answer, Failure> {
    let bedrock = cloud.api();
    if model_id.contains(":application-inference-profile/") || bedrock.is_uncounted(model_id) {
        return Err(unsupported(call));
    }
    let answer = match cloud.ask(way, call, model_id, sent).await {
        Ok(answer) if answer.status().is_success() => counted(answer).await,
        Ok(answer) => {
            // Whether it is the model or the request that it does not count, only some of its words tell.
            if matches!(answer.status(), StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED) {
                bedrock.leave_uncounted(model_id);
            }
            return Err(unsupported(call));
        }
        Err(Failure::NoModel(_)) => {
            bedrock.leave_uncounted(model_id);
            return Err(unsupported(call));
        }
        Err(failure) => Err(failure),
    };
    answer
        .inspect_err(|failure| tracing::warn!(request_id = call.request_id, "tokens were not counted: {failure}"))
        .map_err(|_| unsupported(call))
}

/// `{"inputTokens":42}` as the Messages API says it.
async fn counted(answer: Answer) -> Result<Answer, Failure> {
    let mut head = Response::new(());
    *head.headers_mut() = answer.headers().clone();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| Failure::Interrupted(chain(&*error)))?.to_bytes();
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let tokens = told["inputTokens"].as_u64();
    let tokens = tokens.ok_or_else(|| Failure::Interrupted("the count has no inputTokens".to_owned()))?;
    let body = Bytes::from(format!("{{\"input_tokens\":{tokens}}}"));
    head.headers_mut().remove(CONTENT_LENGTH);
    Ok(Answer::whole(head.map(|()| body)))
}

/// The answer of an upstream that cannot count.
fn unsupported(call: &Call<'_>) -> Failure {
    let told = Told {
        kind: ErrorType::NotSupported,
        message: "count_tokens is not available on this Bedrock upstream".into(),
    };
    let mut response = Response::new(told.body(call.request_id));
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    Failure::Status(Box::new(Answer::whole(response)))
}

impl Bedrock {
    fn is_uncounted(&self, model_id: &str) -> bool {
        let uncounted = self.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        uncounted.get(model_id).is_some_and(|until| self.clock.instant() < *until)
    }

    fn leave_uncounted(&self, model_id: &str) {
        let mut uncounted = self.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        uncounted.insert(model_id.to_owned(), self.clock.instant() + BELIEVED);
    }
}
