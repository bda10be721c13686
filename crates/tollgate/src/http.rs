//! HTTP: every path and every layer of every surface, on one page.

pub mod admin;
pub mod caller;
pub mod documents;
pub mod error;
pub mod health;
pub mod inference;
pub mod layers;
pub mod managed;
pub mod metrics;
pub mod oauth;
pub mod otlp;
mod unread;

use std::sync::Arc;

pub use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{Method, StatusCode};
use wire::error::ErrorType;

use caller::Wall;
use error::refuse;
use layers::{Edge, RequestFacts};

/// The surfaces, by who may come in.
#[derive(Debug, Default)]
pub struct Surfaces {
    /// Open to all: health, the documents, the sign-in. Everything else is closed.
    pub open: Router,
    /// For callers with a bearer.
    pub guarded: Router,
    /// Has keys of its own.
    pub admin: Router,
}

/// Everything that the gateway serves.
pub fn app(edge: Arc<Edge>, wall: &Wall, surfaces: Surfaces) -> Router {
    let Surfaces { open, guarded, admin } = surfaces;
    let guarded = guarded
        .method_not_allowed_fallback(async |facts: RequestFacts| beyond(StatusCode::METHOD_NOT_ALLOWED, &facts))
        .layer(middleware::from_fn_with_state(wall.clone(), caller::require));
    let nowhere = behind(wall, StatusCode::NOT_FOUND);
    let no_method = behind(wall, StatusCode::METHOD_NOT_ALLOWED);
    let no_head = behind(wall, StatusCode::METHOD_NOT_ALLOWED);
    let routes = open
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            head_only_for_health(request, next, no_head.clone())
        }))
        .merge(admin)
        .merge(guarded)
        .fallback(nowhere);
    // A router's own layers run after it has chosen a route, and the edge decides what the path is.
    Router::new()
        .fallback_service(routes)
        // Outermost: names the request, judges its address and sizes, and dresses every answer, whoever gave it.
        .layer(middleware::from_fn_with_state(edge, layers::edge))
}

/// A path or method that does not exist is told only to callers: to all others there is nothing here (contract A2).
fn behind(
    wall: &Wall,
    status: StatusCode,
) -> impl Fn(RequestFacts, Request) -> std::future::Ready<Response> + Clone + Send + Sync + 'static {
    let wall = wall.clone();
    move |facts, request| {
        std::future::ready(match wall.authenticate(request.headers()) {
            Ok(_) => beyond(status, &facts),
            Err(error) => wall.refuse(error, request.uri().path(), &facts),
        })
    }
}

fn beyond(status: StatusCode, facts: &RequestFacts) -> Response {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            refuse(status, ErrorType::InvalidRequest, "method not allowed", &facts.request_id)
        }
        _ => refuse(status, ErrorType::NotFound, "not found", &facts.request_id),
    }
}

/// The router answers HEAD wherever GET is known; of the open paths only the health checks do.
async fn head_only_for_health<F>(request: Request, next: Next, refuse: F) -> Response
where
    F: Fn(RequestFacts, Request) -> std::future::Ready<Response>,
{
    if request.method() == Method::HEAD && !layers::is_health(&request) {
        let facts = request.extensions().get::<RequestFacts>().cloned();
        if let Some(facts) = facts {
            return refuse(facts, request).await;
        }
    }
    next.run(request).await
}
