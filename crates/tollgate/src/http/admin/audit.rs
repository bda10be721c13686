//! `/v1/organizations/spend_limits/audit`: who changed which cap (contract B8).

use axum::extract::{RawQuery, State};
use axum::response::Response;
use control::audit::AdminEvent;
use http::StatusCode;
use serde_json::json;

use super::query::Query;
use super::{Error, Surface, json};

pub(super) async fn list(State(surface): State<Surface>, RawQuery(query): RawQuery) -> Result<Response, Error> {
    let query = Query::parse(query.as_deref());
    let limit = query.limit_or(100)?;
    let after = query.get("after_id").map(|id| {
        let number = id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten();
        number.ok_or_else(|| Error::Invalid("after_id: must be the id of an audit event".to_owned()))
    });
    let (events, has_more) = surface.report.cap_changes(after.transpose()?, limit).await?;
    let data: Vec<_> = events.iter().map(AdminEvent::to_json).collect();
    Ok(json(StatusCode::OK, &json!({ "data": data, "has_more": has_more })))
}
