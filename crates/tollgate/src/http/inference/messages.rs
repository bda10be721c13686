//! `POST /v1/messages` and `POST /v1/messages/count_tokens` (contract B1).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use control::identity::Principal;
use control::identity::session::Revoked;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
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
    /// What cuts streams; `None`: they run to their end.
    cut_by: Option<Arc<Revoked>>,
}

/// The two paths; behind the bearer wall. `blocked_message` is `admin.blocked_message`; with `cut_by`, what is revoked there
/// has its streams cut.
pub fn routes(inference: Arc<Inference>, blocked_message: Option<String>, cut_by: Option<Arc<Revoked>>) -> Router {
    let state = Messages { inference, blocked_message: blocked_message.map(Arc::from), cut_by };
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
    State(Messages { inference, blocked_message, cut_by }): State<Messages>,
    Caller(principal): Caller,
    facts: RequestFacts,
    endpoint: Endpoint,
    request: Request,
) -> Response {
    let RequestFacts { request_id, received, .. } = facts;
    let facts = Facts { request_id: Arc::clone(&request_id), received, principal };
    let cut = cut_by.map(|revoked| ended(revoked, Arc::clone(&facts.principal), inference.clock.now()));
    match inference.run(endpoint, facts, request).await {
        Ok(Answer { status, headers, standing, body }) => {
            let body = match cut {
                Some(cut) => body.until(cut),
                None => body,
            };
            answered(Answer { status, headers, standing, body }, &request_id)
        }
        Err(failure) => error::response(&failure, &request_id, blocked_message.as_deref()),
    }
}

async fn ended(revoked: Arc<Revoked>, principal: Arc<Principal>, since: Timestamp) {
    revoked.ended(principal.session.as_deref(), &principal.sub, since).await;
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
