//! Telemetry: what clients post for OpenTelemetry collectors (contract A11; surface: OTLP over HTTP).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use proxy::otlp::{Relay, Signal};
use wire::error::ErrorType;

use crate::http::caller::Caller;
use crate::http::error::refuse;
use crate::http::layers::RequestFacts;

/// What the handlers serve.
#[derive(Debug, Clone)]
struct Telemetry {
    relay: Arc<Relay>,
    max_request_bytes: usize,
}

/// One path per signal; behind the bearer wall.
pub fn routes(relay: Arc<Relay>, max_request_bytes: usize) -> Router {
    let route = |router: Router<Telemetry>, signal: Signal| {
        let handler = move |state, caller, facts, request| accept(signal, state, caller, facts, request);
        router.route(signal.path(), post(handler))
    };
    Signal::ALL.into_iter().fold(Router::new(), route).with_state(Telemetry { relay, max_request_bytes })
}

/// Answers at once, whether or not any collector will take it: telemetry must never hold up a client.
async fn accept(
    signal: Signal,
    State(Telemetry { relay, max_request_bytes }): State<Telemetry>,
    Caller(_): Caller,
    facts: RequestFacts,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    match Limited::new(body, max_request_bytes).collect().await {
        Ok(body) => {
            relay.forward(signal, &head.headers, &body.to_bytes());
            Response::new(Body::empty())
        }
        // Only over HTTP/2, where no length need be declared.
        Err(error) if error.is::<LengthLimitError>() => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            refuse(status, ErrorType::RequestTooLarge, "payload too large", &facts.request_id)
        }
        Err(_) => {
            let message = "the request body ended early";
            refuse(StatusCode::BAD_REQUEST, ErrorType::InvalidRequest, message, &facts.request_id)
        }
    }
}
