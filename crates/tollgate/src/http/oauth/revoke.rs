//! How a session is ended from outside: by its client (RFC 7009) and by the identity provider (OpenID Connect Back-Channel
//! Logout 1.0). The token that is presented is the credential.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control::identity::sign_in::Logout;
use http::StatusCode;
use wire::oauth::ErrorCode;

use super::error::{explain, refuse, unavailable};
use super::form::Form;
use super::{NO_STORE, Surface, asker};
use crate::http::layers::RequestFacts;

/// `POST /oauth/revoke`: 200 whatever the token was (section 2.2), so that nobody learns which ones are good.
pub(super) async fn revoke(State(surface): State<Surface>, facts: RequestFacts, form: Form) -> Response {
    let Some(token) = form.get("token").filter(|token| !token.is_empty()) else {
        return refuse(ErrorCode::InvalidRequest);
    };
    match surface.sign_in.revoke(token, asker(&facts)).await {
        Ok(()) => done(),
        Err(error) => unavailable(&error, &facts),
    }
}

/// `POST /oauth/backchannel_logout`
pub(super) async fn backchannel_logout(State(surface): State<Surface>, facts: RequestFacts, form: Form) -> Response {
    let Some(token) = form.get("logout_token") else {
        return refuse(ErrorCode::InvalidRequest);
    };
    match surface.sign_in.backchannel_logout(token, asker(&facts)).await {
        Ok(Logout::Done) => done(),
        Ok(Logout::Refused(why)) => {
            tracing::warn!("a back-channel logout was refused request_id={}: {why}", facts.request_id);
            explain(ErrorCode::InvalidRequest, &why)
        }
        Ok(Logout::Unavailable) => refuse(ErrorCode::TemporarilyUnavailable),
        Err(error) => unavailable(&error, &facts),
    }
}

fn done() -> Response {
    (StatusCode::OK, NO_STORE).into_response()
}
