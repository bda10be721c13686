//! `GET /v1/organizations/spend_limits/effective`: who is under which cap, and how far (contract B8).

use axum::extract::{RawQuery, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::spend::report::{Effective, Order, Whose};
use control::spend::{Money, Period};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::query::Query;
use super::{Error, Surface, json};

/// What a page token holds: the last principal seen and, ordered by spend, what it had spent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    p: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<i64>,
}

pub(super) async fn list(State(surface): State<Surface>, RawQuery(query): RawQuery) -> Result<Response, Error> {
    let query = Query::parse(query.as_deref());
    let periods = read_periods(&query)?;
    let whose = read_whose(&query, &periods)?;
    let periods = if periods.is_empty() { Period::ALL.to_vec() } else { periods };
    let page = surface.report.effective(&whose, &periods).await?;
    let body = json!({
        "data": page.rows.iter().map(Effective::to_json).collect::<Vec<_>>(),
        "next_page": page.next.as_ref().map(write_cursor),
    });
    Ok(json(StatusCode::OK, &body))
}

fn read_periods(query: &Query) -> Result<Vec<Period>, Error> {
    let mut periods = Vec::new();
    for word in query.all("period") {
        let unknown = || Error::Invalid("period[]: must be daily, weekly or monthly".to_owned());
        let period = Period::parse(word).ok_or_else(unknown)?;
        if !periods.contains(&period) {
            periods.push(period);
        }
    }
    Ok(periods)
}

fn read_whose(query: &Query, periods: &[Period]) -> Result<Whose, Error> {
    let limit = query.limit()?;
    let cursor = query.get("page").map(read_cursor).transpose()?;
    let order = match (query.get("sort"), periods) {
        (None, _) => match cursor {
            Some(Cursor { n: Some(_), .. }) => return Err(foreign_cursor()),
            cursor => Order::Subject { after: cursor.map(|cursor| cursor.p) },
        },
        (Some("spend_desc"), [period]) => {
            let after = match cursor {
                Some(Cursor { p, n: Some(nano) }) => Some((Money::from_nano(nano), p)),
                Some(_) => return Err(foreign_cursor()),
                None => None,
            };
            Order::Spend { period: *period, after }
        }
        (Some("spend_desc"), _) => {
            return Err(Error::Invalid("sort: spend_desc needs exactly one period[]".to_owned()));
        }
        (Some(_), _) => return Err(Error::Invalid("sort: must be spend_desc when given".to_owned())),
    };
    let named = query.all("user_ids");
    if named.contains(&"") {
        return Err(Error::Invalid("user_ids[]: must not be empty".to_owned()));
    }
    if !named.is_empty() {
        return Ok(Whose::Named(named.into_iter().map(str::to_owned).collect()));
    }
    Ok(Whose::Everyone { q: query.get("q").unwrap_or_default().to_owned(), order, limit })
}

fn read_cursor(token: &str) -> Result<Cursor, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let cursor = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let cursor = cursor.filter(|cursor: &Cursor| !cursor.p.contains('\0'));
    cursor.ok_or_else(|| Error::Invalid("page: not a page token of this list".to_owned()))
}

fn foreign_cursor() -> Error {
    Error::Invalid("page: this page token belongs to a list in another order".to_owned())
}

fn write_cursor(next: &Order) -> String {
    let cursor = match next {
        Order::Subject { after } => Cursor { p: after.clone().unwrap_or_default(), n: None },
        Order::Spend { after, .. } => {
            let (amount, sub) = after.clone().unwrap_or_default();
            Cursor { p: sub, n: Some(amount.nano()) }
        }
    };
    // Strings and numbers always serialise.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}
