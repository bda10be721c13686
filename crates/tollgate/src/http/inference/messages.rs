//! `POST /v1/messages` and `POST /v1/messages/count_tokens` (contract B1).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::{HeaderName, HeaderValue};
use proxy::inference::{Answer, Endpoint, Facts, Inference};

use super::{error, unified};
use crate::http::caller::Caller;
use crate::http::layers::RequestFacts;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// What the handlers serve.
#[derive(Debug, Clone)]
struct Messages {
    inference: Arc<Inference>,
    /// `admin.blocked_message`.
    blocked_message: Option<Arc<str>>,
}

/// The two paths; behind the bearer wall. `blocked_message` is `admin.blocked_message`.
pub fn routes(inference: Arc<Inference>, blocked_message: Option<String>) -> Router {
    let state = Messages { inference, blocked_message: blocked_message.map(Arc::from) };
    Router::new()
        .route(Endpoint::Messages.path(), post(messages))
        .route(Endpoint::CountTokens.path(), post(count_tokens))
        .with_state(state)
}

async fn messages(state: State<Messages>, caller: Caller, facts: RequestFacts, request: Request) -> Response {
    run(state, caller, facts, Endpoint::Messages, request).await
}

async fn count_tokens(state: State<Messages>, caller: Caller, facts: RequestFacts, request: Request) -> Response {
    run(state, caller, facts, Endpoint::CountTokens, request).await
}

async fn run(
    State(Messages { inference, blocked_message }): State<Messages>,
    Caller(principal): Caller,
    facts: RequestFacts,
    endpoint: Endpoint,
    request: Request,
) -> Response {
    let RequestFacts { request_id, received, .. } = facts;
    let facts = Facts { request_id: Arc::clone(&request_id), received, principal };
    match inference.run(endpoint, facts, request).await {
        Ok(answer) => answered(answer, &request_id),
        Err(failure) => error::response(&failure, &request_id, blocked_message.as_deref()),
    }
}

fn answered(answer: Answer, request_id: &str) -> Response {
    let Answer { status, headers, standing, body } = answer;
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if status.is_success() {
        // Beside the `x-request-id` of every answer: where the vendor's client libraries look.
        if let Ok(value) = HeaderValue::from_str(request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        if let Some(standing) = standing {
            response.headers_mut().extend(unified::allowed(&standing));
        }
    }
    response
}

#[cfg(test)]
mod tests;
