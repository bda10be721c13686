//! The authorization server's metadata (RFC 8414).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use wire::oauth::ServerMetadata;

use super::Surface;
use crate::http::error::JSON;

/// `GET /.well-known/oauth-authorization-server`
pub(super) async fn show(State(surface): State<Surface>) -> Response {
    match serde_json::to_vec(&ServerMetadata::new(&surface.config.public_origin)) {
        Ok(document) => ([(header::CONTENT_TYPE, JSON)], document).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
