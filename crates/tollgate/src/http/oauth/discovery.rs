//! The authorization server's metadata (RFC 8414).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use wire::oauth::ServerMetadata;

use super::Surface;
use crate::http::error::JSON;

/// `GET /.well-known/oauth-authorization-server`
pub(super) async fn show(State(surface): State<Surface>) -> Response {
    let origin = &surface.config.public_origin;
    let metadata = ServerMetadata::new(origin).with_revocation_endpoint(format!("{origin}/oauth/revoke"));
    match serde_json::to_vec(&metadata) {
        Ok(document) => ([(header::CONTENT_TYPE, JSON)], document).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
