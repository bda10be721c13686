//! `/v1/organizations/spend_limits`: caps (contract B8).

use axum::extract::{RawQuery, State};
use axum::response::Response;
use control::audit::{Event, LimitChange};
use control::identity::admin_key::WriteAccess;
use control::spend::cap::Listed;
use control::spend::pool::{Pool, PoolChange};
use control::spend::{Cap, Period, Scope, Setting};
use http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::{Body, Error, Id, Surface, Writer, json};
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
        "data": page.caps.iter().map(Listed::to_json).collect::<Vec<_>>(),
        "has_more": page.has_more,
        "first_id": page.caps.first().map(|listed| &listed.cap.id),
        "last_id": page.caps.last().map(|listed| &listed.cap.id),
    });
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn show(State(surface): State<Surface>, Id(id): Id) -> Result<Response, Error> {
    let cap = surface.caps.find(&id).await?.ok_or(Error::NotFound)?;
    Ok(json(StatusCode::OK, &cap.to_json()))
}

pub(super) async fn put(
    State(surface): State<Surface>,
    facts: RequestFacts,
    Writer(access): Writer,
    Body(body): Body,
) -> Result<Response, Error> {
    let wanted = read_setting(&body)?;
    let (set, before) = surface.caps.set(&access, &wanted).await?;
    let change = change(&access, before.as_ref(), Some(&set.cap));
    surface.audit.emit(Some(&facts.request_id), &Event::LimitUpsert(change));
    Ok(json(StatusCode::OK, &set.to_json()))
}

pub(super) async fn delete(
    State(surface): State<Surface>,
    facts: RequestFacts,
    Writer(access): Writer,
    Id(id): Id,
) -> Result<Response, Error> {
    let cap = surface.caps.delete(&access, &id).await?.ok_or(Error::NotFound)?;
    surface.audit.emit(Some(&facts.request_id), &Event::LimitDelete(change(&access, Some(&cap), None)));
    Ok(json(StatusCode::OK, &json!({"type": "spend_limit_deleted", "id": cap.id})))
}

/// What the log says of a change from one cap to another of the same target.
fn change<'a>(access: &'a WriteAccess, before: Option<&'a Cap>, after: Option<&'a Cap>) -> LimitChange<'a> {
    let cap = after.or(before);
    let amount = |cap: &Cap| cap.cents.map(|cents| cents.to_string());
    let pool = |cap: &Cap| cap.pool.map(Pool::to_json);
    LimitChange {
        actor: access.actor(),
        target: cap.map_or("", |cap| &cap.id),
        scope_type: cap.map_or("", |cap| cap.scope.kind()),
        scope_id: cap.map_or("", |cap| cap.scope.id()),
        period: cap.map_or("", |cap| cap.period.as_str()),
        before_amount: before.map(amount),
        amount: after.and_then(amount),
        before_pooled_budget: before.and_then(pool),
        pooled_budget: after.and_then(pool),
    }
}

/// The body of a `POST`, read at the door.
fn read_setting(body: &[u8]) -> Result<Setting, Error> {
    let invalid = |message: &str| Error::Invalid(message.to_owned());
    let body: Value = serde_json::from_slice(body).map_err(|_| invalid("invalid JSON"))?;
    let body = body.as_object().ok_or_else(|| invalid("request body must be a JSON object"))?;
    check_currency(body.get("currency"), "currency")?;
    let period = match body.get("period") {
        None => Period::Monthly,
        Some(period) => period
            .as_str()
            .and_then(Period::parse)
            .ok_or_else(|| invalid("period: must be daily, weekly or monthly"))?,
    };
    let scope = read_scope(body.get("scope"))?;
    let cents = read_amount(body.get("amount"))?;
    let pool = read_pool(body.get("pooled_budget"))?;
    if pool.is_some() && !scope.may_have_pool(period) {
        return Err(invalid("pooled_budget: only the monthly limit of an rbac_group can have one"));
    }
    Ok(Setting { scope, period, cents, pool })
}

fn check_currency(currency: Option<&Value>, field: &str) -> Result<(), Error> {
    match currency {
        Some(currency) if currency != "USD" => Err(Error::Invalid(format!("{field}: must be USD"))),
        _ => Ok(()),
    }
}

/// What is to become of the pool; `None` for a field that is left out, `null` or empty: it stays as it is. So does what is
/// `null` in it.
fn read_pool(pool: Option<&Value>) -> Result<Option<PoolChange>, Error> {
    let pool = match pool {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(pool)) if pool.is_empty() => return Ok(None),
        Some(Value::Object(pool)) => pool,
        Some(_) => return Err(Error::Invalid("pooled_budget: must be an object".to_owned())),
    };
    check_currency(pool.get("currency"), "pooled_budget.currency")?;
    let cents = match pool.get("amount") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(read_cents(text, "pooled_budget.amount")?),
        Some(_) => return Err(not_cents("pooled_budget.amount")),
    };
    let paused = match pool.get("paused") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(paused)) => Some(*paused),
        Some(_) => return Err(Error::Invalid("pooled_budget.paused: must be true or false".to_owned())),
    };
    Ok(Some(PoolChange { cents, paused }))
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
        Some(Value::String(text)) => read_cents(text, "amount").map(Some),
        _ => Err(Error::Invalid("amount: must be a string of whole US cents, such as \"500\", or null".to_owned())),
    }
}

fn read_cents(text: &str, field: &str) -> Result<i64, Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(not_cents(field));
    }
    text.parse().map_err(|_| Error::Invalid(format!("{field}: must be at most {} cents", i64::MAX)))
}

fn not_cents(field: &str) -> Error {
    Error::Invalid(format!("{field}: must be a string of whole US cents, such as \"500\""))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<Setting, String> {
        read_setting(body.to_string().as_bytes()).map_err(|error| match error {
            Error::Invalid(message) => message,
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn a_cap_is_read_with_its_defaults() {
        let wanted = read(&json!({"scope": {"type": "user", "user_id": "u"}, "amount": "007", "more": 1})).unwrap();
        let scope = Scope::User("u".to_owned());
        assert_eq!(wanted, Setting { scope, period: Period::Monthly, cents: Some(7), pool: None });
        let wanted = read(&json!({"scope": {"type": "organization"}, "amount": null, "period": "daily"})).unwrap();
        assert_eq!(wanted, Setting { scope: Scope::Organization, period: Period::Daily, cents: None, pool: None });
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

    #[test]
    fn a_pool_is_read_from_the_monthly_limit_of_a_group() {
        let with = |pool: Value| {
            let scope = json!({"type": "rbac_group", "rbac_group_id": "eng"});
            read(&json!({"scope": scope, "amount": "1", "pooled_budget": pool})).map(|wanted| wanted.pool)
        };
        let change = |cents, paused| Ok(Some(PoolChange { cents, paused }));
        assert_eq!(with(json!({"amount": "0500", "paused": true, "currency": "USD"})), change(Some(500), Some(true)));
        assert_eq!(with(json!({"paused": false, "more": 1})), change(None, Some(false)));
        assert_eq!((with(Value::Null), with(json!({}))), (Ok(None), Ok(None)));
        assert_eq!(with(json!({"amount": null, "paused": null})), change(None, None));
        for wrong in [json!([]), json!("5"), json!(5), json!(true)] {
            assert_eq!(with(wrong), Err("pooled_budget: must be an object".to_owned()));
        }
        for amount in [json!(5), json!("-1"), json!("5.0"), json!("")] {
            let refusal = with(json!({ "amount": amount })).unwrap_err();
            assert!(refusal.starts_with("pooled_budget.amount: must be a string of whole US cents"), "{amount}");
        }
        let refusal = with(json!({"amount": "5", "currency": "EUR"})).unwrap_err();
        assert_eq!(refusal, "pooled_budget.currency: must be USD");
        let refusal = with(json!({"amount": "5", "paused": "no"})).unwrap_err();
        assert_eq!(refusal, "pooled_budget.paused: must be true or false");
    }

    #[test]
    fn nothing_else_can_have_a_pool() {
        let group = json!({"type": "rbac_group", "rbac_group_id": "eng"});
        for (scope, period) in [
            (group.clone(), "daily"),
            (group, "weekly"),
            (json!({"type": "user", "user_id": "u"}), "monthly"),
            (json!({"type": "organization"}), "monthly"),
        ] {
            let body = json!({"scope": scope, "amount": "1", "period": period, "pooled_budget": {"amount": "1"}});
            let refusal = "pooled_budget: only the monthly limit of an rbac_group can have one";
            assert_eq!(read(&body).unwrap_err(), refusal, "{body}");
        }
    }
}
