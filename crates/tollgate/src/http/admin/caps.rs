//! `/v1/organizations/spend_limits`: caps (contract B8).

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use control::audit::{Event, LimitChange};
use control::spend::{Cap, Period, Scope};
use http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::{Error, Surface, Writer, json};
use crate::http::layers::RequestFacts;

pub(super) async fn list(State(surface): State<Surface>, RawQuery(query): RawQuery) -> Result<Response, Error> {
    let query = Query::parse(query.as_deref());
    let from = query.from()?;
    let scope = query.get("scope_type");
    if scope.is_some_and(|scope| !["organization", "rbac_group", "user"].contains(&scope)) {
        return Err(Error::Invalid("scope_type: must be organization, rbac_group or user".to_owned()));
    }
    let page = surface.caps.page(&from, query.limit()?, scope).await?;
    let page = page.ok_or_else(|| Error::Invalid("after_id or before_id: no spend limit has this id".to_owned()))?;
    let body = json!({
        "data": page.caps.iter().map(Cap::to_json).collect::<Vec<_>>(),
        "has_more": page.has_more,
        "first_id": page.caps.first().map(|cap| &cap.id),
        "last_id": page.caps.last().map(|cap| &cap.id),
    });
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn show(State(surface): State<Surface>, Path(id): Path<String>) -> Result<Response, Error> {
    let cap = surface.caps.find(&id).await?.ok_or(Error::NotFound)?;
    Ok(json(StatusCode::OK, &cap.to_json()))
}

pub(super) async fn put(
    State(surface): State<Surface>,
    facts: RequestFacts,
    Writer(access): Writer,
    body: Bytes,
) -> Result<Response, Error> {
    let wanted = Wanted::read(&body)?;
    let (cap, before) = surface.caps.set(&access, &wanted.scope, wanted.period, wanted.cents).await?;
    let amount = cap.cents.map(|cents| cents.to_string());
    let before = before.map(|before| before.cents.map(|cents| cents.to_string()));
    let change = LimitChange {
        actor: access.actor(),
        target: &cap.id,
        scope_type: cap.scope.kind(),
        scope_id: cap.scope.id(),
        period: cap.period.as_str(),
        before_amount: before.as_ref().map(Option::as_deref),
        amount: amount.as_deref(),
    };
    surface.audit.emit(Some(&facts.request_id), &Event::LimitUpsert(change));
    Ok(json(StatusCode::OK, &cap.to_json()))
}

pub(super) async fn delete(
    State(surface): State<Surface>,
    facts: RequestFacts,
    Writer(access): Writer,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let cap = surface.caps.delete(&access, &id).await?.ok_or(Error::NotFound)?;
    let before = cap.cents.map(|cents| cents.to_string());
    let change = LimitChange {
        actor: access.actor(),
        target: &cap.id,
        scope_type: cap.scope.kind(),
        scope_id: cap.scope.id(),
        period: cap.period.as_str(),
        before_amount: Some(before.as_deref()),
        amount: None,
    };
    surface.audit.emit(Some(&facts.request_id), &Event::LimitDelete(change));
    Ok(json(StatusCode::OK, &json!({"type": "spend_limit_deleted", "id": cap.id})))
}

/// The body of a `POST`, read at the door.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    scope: Scope,
    period: Period,
    cents: Option<i64>,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Self, Error> {
        let invalid = |message: &str| Error::Invalid(message.to_owned());
        let body: Value = serde_json::from_slice(body).map_err(|_| invalid("invalid JSON"))?;
        let body = body.as_object().ok_or_else(|| invalid("request body must be a JSON object"))?;
        if body.get("pooled_budget").is_some_and(|pool| !pool.is_null() && *pool != json!({})) {
            return Err(invalid("pooled_budget: not supported by this version"));
        }
        if body.get("currency").is_some_and(|currency| currency != "USD") {
            return Err(invalid("currency: must be USD"));
        }
        let period = match body.get("period") {
            None => Period::Monthly,
            Some(period) => period
                .as_str()
                .and_then(Period::parse)
                .ok_or_else(|| invalid("period: must be daily, weekly or monthly"))?,
        };
        Ok(Self { scope: read_scope(body.get("scope"))?, period, cents: read_amount(body.get("amount"))? })
    }
}

fn read_scope(scope: Option<&Value>) -> Result<Scope, Error> {
    let invalid = |message: &str| Error::Invalid(message.to_owned());
    let scope = scope.and_then(Value::as_object).ok_or_else(|| invalid("scope: must be an object with a type"))?;
    let id = |field: &str| -> Result<String, Error> {
        let id = scope.get(field).and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Error::Invalid(format!("scope.{field}: must be a string that is not empty")))?;
        // No database column holds it, and no identity provider issues it.
        if id.contains('\0') {
            return Err(Error::Invalid(format!("scope.{field}: must not hold a NUL character")));
        }
        Ok(id.to_owned())
    };
    match scope.get("type").and_then(Value::as_str) {
        Some("organization") => Ok(Scope::Organization),
        Some("rbac_group") => Ok(Scope::Group(id("rbac_group_id")?)),
        Some("user") => Ok(Scope::User(id("user_id")?)),
        _ => Err(invalid("scope.type: must be organization, rbac_group or user")),
    }
}

/// Whole cents as text; `null` is unlimited, and must be written.
fn read_amount(amount: Option<&Value>) -> Result<Option<i64>, Error> {
    match amount {
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            let too_large = || Error::Invalid(format!("amount: must be at most {} cents", i64::MAX));
            text.parse().map(Some).map_err(|_| too_large())
        }
        _ => Err(Error::Invalid("amount: must be a string of whole US cents, such as \"500\", or null".to_owned())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<Wanted, String> {
        Wanted::read(body.to_string().as_bytes()).map_err(|error| match error {
            Error::Invalid(message) => message,
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn a_cap_is_read_with_its_defaults() {
        let wanted = read(&json!({"scope": {"type": "user", "user_id": "u"}, "amount": "007", "more": 1})).unwrap();
        let scope = Scope::User("u".to_owned());
        assert_eq!(wanted, Wanted { scope, period: Period::Monthly, cents: Some(7) });
        let wanted = read(&json!({"scope": {"type": "organization"}, "amount": null, "period": "daily"})).unwrap();
        assert_eq!(wanted, Wanted { scope: Scope::Organization, period: Period::Daily, cents: None });
    }

    #[test]
    fn amounts_are_exact_up_to_the_largest_bigint() {
        let with = |amount: &str| read(&json!({"scope": {"type": "organization"}, "amount": amount}));
        assert_eq!(with("9007199254740993").unwrap().cents, Some(9_007_199_254_740_993));
        assert_eq!(with(&i64::MAX.to_string()).unwrap().cents, Some(i64::MAX));
        assert!(with("9223372036854775808").unwrap_err().starts_with("amount: must be at most"));
    }

    #[test]
    fn every_fault_is_named_by_its_field() {
        let org = json!({"type": "organization"});
        let cases = [
            (json!([]), "request body must be a JSON object"),
            (json!({"amount": "1"}), "scope: must be an object with a type"),
            (json!({"scope": {"type": "team"}, "amount": "1"}), "scope.type: must be organization, rbac_group or user"),
            (json!({"scope": {"type": "user"}, "amount": "1"}), "scope.user_id: must be a string that is not empty"),
            (
                json!({"scope": {"type": "rbac_group", "rbac_group_id": ""}, "amount": "1"}),
                "scope.rbac_group_id: must be a string that is not empty",
            ),
            (json!({"scope": org, "amount": "1", "period": "hourly"}), "period: must be daily, weekly or monthly"),
            (json!({"scope": org, "amount": "1", "currency": "EUR"}), "currency: must be USD"),
            (
                json!({"scope": org, "amount": "1", "pooled_budget": {"amount": "1"}}),
                "pooled_budget: not supported by this version",
            ),
        ];
        for (body, message) in cases {
            assert_eq!(read(&body).unwrap_err(), message);
        }
        for amount in [json!(5), json!(1.5), json!("-1"), json!("1.5"), json!(""), json!("1e3"), json!({})] {
            let refusal = read(&json!({"scope": org, "amount": amount})).unwrap_err();
            assert!(refusal.starts_with("amount: must be a string of whole US cents"), "{amount}");
        }
        assert!(read(&json!({"scope": org})).unwrap_err().starts_with("amount:"));
    }
}
