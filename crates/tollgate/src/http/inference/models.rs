//! `GET /v1/models`: the models that the caller may name (contract A10 and B3). Which ones is policy's decision.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use control::identity::Principal;
use control::policy::Policies;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use wire::catalog::Model;

use crate::http::caller::Caller;

/// Whether some upstream serves that model to a member of these groups.
pub type Reach = Arc<dyn Fn(&Model, &[String]) -> bool + Send + Sync>;

/// The model list; behind the bearer wall.
pub fn routes(policies: Arc<Policies>, reach: Reach) -> Router {
    Router::new().route("/v1/models", get(list)).with_state((policies, reach))
}

/// The models that the caller may name and some upstream serves, in the catalogue's order.
pub fn usable<'a>(
    policies: &'a Policies,
    reach: &'a Reach,
    principal: &'a Principal,
) -> impl Iterator<Item = &'a Arc<Model>> {
    policies.models(principal).filter(|model| reach(model, &principal.groups))
}

/// Never a second page, whatever `limit` asks for.
#[derive(Serialize)]
struct Page<'a> {
    data: Vec<Entry<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Entry<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

impl<'a> From<&'a Arc<Model>> for Entry<'a> {
    fn from(model: &'a Arc<Model>) -> Self {
        Self {
            r#type: "model",
            id: &model.id,
            display_name: &model.display_name,
            max_input_tokens: model.max_input_tokens,
            description: model.description.as_deref(),
        }
    }
}

async fn list(State((policies, reach)): State<(Arc<Policies>, Reach)>, Caller(principal): Caller) -> Response {
    let data = usable(&policies, &reach, &principal).map(Entry::from).collect();
    let json = [(CONTENT_TYPE, "application/json;charset=utf-8")];
    (json, Json(Page { data, has_more: false, first_id: None, last_id: None })).into_response()
}

#[cfg(test)]
mod tests;
