//! The token endpoint (RFC 6749, section 3.2): device codes and refresh tokens for bearers.

use axum::extract::State;
use axum::response::Response;
use control::identity::sign_in::{Redemption, Tokens};
use control::limit::Hit;
use http::StatusCode;
use secrecy::ExposeSecret;
use wire::oauth::{ErrorCode, TokenRequest, TokenResponse, TokenType};

use super::error::{json, not_refreshed, refuse, too_many, unavailable};
use super::form::Form;
use super::{Surface, asker};
use crate::http::layers::RequestFacts;

/// `POST /oauth/token`: the code or token that is presented is the credential.
pub(super) async fn grant(State(surface): State<Surface>, facts: RequestFacts, form: Form) -> Response {
    match TokenRequest::from_form(form.pairs()) {
        Err(error) => refuse(error),
        Ok(TokenRequest::DeviceCode { device_code }) => match surface.sign_in.redeem(&device_code).await {
            Ok(Redemption::Tokens(tokens)) => issued(tokens),
            Ok(Redemption::Pending) => refuse(ErrorCode::AuthorizationPending),
            Ok(Redemption::SlowDown) => refuse(ErrorCode::SlowDown),
            Ok(Redemption::Denied) => refuse(ErrorCode::AccessDenied),
            Ok(Redemption::Expired) => refuse(ErrorCode::ExpiredToken),
            Err(error) => unavailable(&error, &facts),
        },
        Ok(TokenRequest::Refresh { refresh_token }) => refresh(&surface, &facts, &refresh_token).await,
    }
}

async fn refresh(surface: &Surface, facts: &RequestFacts, refresh_token: &str) -> Response {
    let presented = match surface.sign_in.present(refresh_token, asker(facts)) {
        Ok(presented) => presented,
        Err(error) => return not_refreshed(error),
    };
    let bucket = format!("refresh:{}", presented.session());
    match surface.counters.hit(&bucket, surface.config.refresh, surface.clock.now()).await {
        Ok(Hit::Over { retry_after }) => return too_many(retry_after),
        Ok(Hit::Within) => {}
        // A refresh must work without the database: it counts again when that is back.
        Err(error) => tracing::warn!("a refresh is not counted request_id={}: {error}", facts.request_id),
    }
    match surface.sign_in.refresh(presented, asker(facts)).await {
        Ok(tokens) => issued(tokens),
        Err(error) => not_refreshed(error),
    }
}

fn issued(tokens: Tokens) -> Response {
    let body = TokenResponse {
        access_token: tokens.bearer.token.expose_secret().to_owned(),
        refresh_token: tokens.refresh_token.map(|token| token.expose_secret().to_owned()),
        token_type: TokenType::Bearer,
        expires_in: tokens.bearer.expires_in,
        email: tokens.email,
    };
    json(StatusCode::OK, &body)
}
