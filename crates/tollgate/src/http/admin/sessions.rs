//! `/v1/organizations/sessions`: who is signed in, and the end of it.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use control::identity::session::ending::By;
use control::identity::session::list::{Filter, From, Listed};
use control::spend::cap;
use http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::{Body, Error, Id, Surface, Writer, json};
use crate::http::layers::RequestFacts;

pub(super) async fn list(State(surface): State<Surface>, RawQuery(query): RawQuery) -> Result<Response, Error> {
    let query = Query::parse(query.as_deref());
    let from = match query.from()? {
        cap::From::Start => From::Start,
        cap::From::After(id) => From::After(id),
        cap::From::Before(id) => From::Before(id),
    };
    let active = match query.get("active") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(Error::Invalid("active: must be true or false".to_owned())),
    };
    let filter = Filter { sub: query.get("user_id").map(str::to_owned), active };
    let page = surface.sessions.page(&from, &filter, query.limit()?).await?;
    let page = page.ok_or_else(|| Error::Invalid("after_id or before_id: no session has this id".to_owned()))?;
    let body = json!({
        "data": page.sessions.iter().map(Listed::to_json).collect::<Vec<_>>(),
        "has_more": page.has_more,
        "first_id": page.sessions.first().map(|session| &session.id),
        "last_id": page.sessions.last().map(|session| &session.id),
    });
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn end(
    State(surface): State<Surface>,
    facts: RequestFacts,
    Writer(access): Writer,
    Id(id): Id,
) -> Result<Response, Error> {
    let known = surface.sessions.end_one(&access, &id, by(&facts, access.actor())).await?;
    if !known {
        return Err(Error::NotFound);
    }
    Ok(json(StatusCode::OK, &json!({"type": "session_ended", "id": id})))
}

pub(super) async fn revoke(
    State(surface): State<Surface>,
    facts: RequestFacts,
    Writer(access): Writer,
    Body(body): Body,
) -> Result<Response, Error> {
    let whose = read_whose(&body)?;
    let ended = surface.sessions.revoke(&access, whose.as_deref(), by(&facts, access.actor())).await?;
    let body = json!({"type": "sessions_revoked", "user_id": whose, "all": whose.is_none(), "ended": ended});
    Ok(json(StatusCode::OK, &body))
}

/// A person's `user_id`, or `None` for everyone; which has to be said, because an empty body must not mean it.
fn read_whose(body: &[u8]) -> Result<Option<String>, Error> {
    let invalid = |message: &str| Error::Invalid(message.to_owned());
    let body: Value = serde_json::from_slice(body).map_err(|_| invalid("invalid JSON"))?;
    let body = body.as_object().ok_or_else(|| invalid("request body must be a JSON object"))?;
    match (body.get("user_id").filter(|id| !id.is_null()), body.get("all")) {
        (Some(Value::String(id)), None | Some(Value::Bool(false) | Value::Null)) if !id.is_empty() => {
            if id.contains('\0') {
                return Err(invalid("user_id: must not hold a NUL character"));
            }
            Ok(Some(id.clone()))
        }
        (None, Some(Value::Bool(true))) => Ok(None),
        (Some(_), None) => Err(invalid("user_id: must be text, not empty")),
        _ => Err(invalid("write either user_id or all: true")),
    }
}

pub(super) fn by<'a>(facts: &'a RequestFacts, actor: &'a str) -> By<'a> {
    By { request_id: Some(&facts.request_id), client_ip: Some(facts.client_ip), actor: Some(actor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_says_whose_sessions_it_means() {
        let read = |body: Value| read_whose(body.to_string().as_bytes()).ok();
        assert_eq!(read(json!({"user_id": "ann"})), Some(Some("ann".to_owned())));
        assert_eq!(read(json!({"user_id": "ann", "all": false})), Some(Some("ann".to_owned())));
        assert_eq!(read(json!({"all": true})), Some(None));
        for body in [
            json!({}),
            json!([]),
            json!({"all": false}),
            json!({"all": "true"}),
            json!({"user_id": ""}),
            json!({"user_id": 7}),
            json!({"user_id": "a\0"}),
            json!({"user_id": null}),
            json!({"user_id": "ann", "all": true}),
        ] {
            assert_eq!(read(body.clone()), None, "{body}");
        }
    }
}
