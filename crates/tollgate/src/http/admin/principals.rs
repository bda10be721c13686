//! `/v1/organizations/principals/{sub}`: somebody's personal data, and the end of it.

use axum::extract::State;
use axum::response::Response;
use control::audit::Event;
use http::StatusCode;
use serde_json::json;

use super::{Error, Id, Surface, Writer, json, sessions};
use crate::http::layers::RequestFacts;

pub(super) async fn erase(
    State(surface): State<Surface>,
    facts: RequestFacts,
    Writer(access): Writer,
    Id(sub): Id,
) -> Result<Response, Error> {
    // First, so that nobody is remembered anew by a client that is still signed in.
    let by = sessions::by(&facts, access.actor());
    let sessions = surface.sessions.revoke(&access, Some(&sub), by).await?;
    let erased = surface.upkeep.erase(&access, &sub).await?;
    let forgotten = surface.sessions.forget(&sub, &erased.pseudonym).await?;
    if !erased.was_known && forgotten == 0 {
        return Err(Error::NotFound);
    }
    let event = Event::PrincipalErase {
        actor: access.actor(),
        pseudonym: &erased.pseudonym,
        usage_rows: erased.usage_rows,
        sessions,
    };
    surface.audit.emit(Some(&facts.request_id), &event);
    let body = json!({
        "type": "principal_erased",
        "pseudonym": erased.pseudonym,
        "usage_rows": erased.usage_rows,
        "spend_limits_deleted": erased.caps,
        "sessions_ended": sessions,
    });
    Ok(json(StatusCode::OK, &body))
}
