//! `GET /api/oauth/usage`: the dollars beside the percent that the unified headers tell (contract B7).

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use control::clock::rfc3339_ms;
use control::spend::ledger::Standing;
use control::spend::report::Standings;
use control::spend::{Money, Report};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use wire::error::ErrorType;

use super::unified;
use crate::http::caller::Caller;
use crate::http::error::{JSON, refuse};
use crate::http::layers::RequestFacts;

/// The path; behind the bearer wall. `None` without an `admin:` section: there is nothing to tell.
pub fn routes(report: Option<Report>) -> Router {
    Router::new().route("/api/oauth/usage", get(show)).with_state(report)
}

async fn show(State(report): State<Option<Report>>, Caller(principal): Caller, facts: RequestFacts) -> Response {
    let Some(report) = report else {
        return refuse(StatusCode::NOT_FOUND, ErrorType::NotFound, "not configured", &facts.request_id);
    };
    let mut response = match report.standings(&principal).await {
        Ok(standings) => ([(header::CONTENT_TYPE, JSON)], Json(body(&standings))).into_response(),
        Err(error) => {
            tracing::warn!("usage cannot be told request_id={}: {error}", facts.request_id);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            refuse(status, ErrorType::Api, "usage cannot be read right now", &facts.request_id)
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn body(standings: &Standings) -> Value {
    let Some(described) = standings.described() else { return uncapped(standings.spent) };
    let limits: Vec<Value> =
        standings.caps.iter().map(|standing| row(standing, std::ptr::eq(standing, described))).collect();
    json!({
        "extra_usage": {
            "is_enabled": true,
            // The client's word for the limit, whatever its period.
            "monthly_limit": described.cap.cents,
            "used_credits": described.spent.whole_cents(),
            "utilization": percent(described),
            "currency": "USD",
        },
        "limits": limits,
    })
}

/// `null`, because 0 would be a limit of nothing.
fn uncapped([day, week, month]: [Money; 3]) -> Value {
    let of = |spent: Money| json!({"limit": null, "used_credits": spent.whole_cents(), "utilization": null});
    json!({
        "extra_usage": {
            "is_enabled": true,
            "monthly_limit": null,
            "used_credits": month.whole_cents(),
            "utilization": null,
            "currency": "USD",
            "daily": of(day),
            "weekly": of(week),
        },
        "limits": [],
    })
}

fn row(standing: &Standing, is_described: bool) -> Value {
    let severity = match unified::surpassed(standing.spent, standing.cap.limit()) {
        _ if standing.is_exhausted() => "critical",
        Some(unified::MOST) => "critical",
        Some(_) => "warning",
        None => "normal",
    };
    json!({
        "kind": "spend",
        "group": standing.cap.period.as_str(),
        "percent": percent(standing),
        "resets_at": rfc3339_ms(standing.resets_at),
        "severity": severity,
        "is_active": is_described,
    })
}

/// Rounded to whole percents, but 100 only when the cap is reached; a cap of nothing is.
fn percent(standing: &Standing) -> i64 {
    let (spent, limit) = (i128::from(standing.spent.nano()), i128::from(standing.cap.limit().nano()));
    let rounded = (spent * 200 + limit).checked_div(limit * 2).unwrap_or(100);
    let shown = if standing.is_exhausted() { rounded } else { rounded.min(99) };
    i64::try_from(shown).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::unified::tests::standing;
    use super::*;

    #[test]
    fn percents_are_rounded_but_100_means_that_the_cap_is_reached() {
        let shown = |spent, cap| percent(&standing(spent, cap));
        assert_eq!(shown(0, 1_000), 0);
        assert_eq!((shown(967, 1_000), shown(965, 1_000), shown(964, 1_000)), (97, 97, 96));
        assert_eq!((shown(996, 1_000), shown(1_000, 1_000), shown(4_800, 1_000)), (99, 100, 480));
        assert_eq!(shown(0, 0), 100);
        assert_eq!(shown(0, i64::MAX), 0);
    }

    #[test]
    fn severity_rises_above_75_and_95_percent() {
        let severity = |spent, cap| row(&standing(spent, cap), true)["severity"].clone();
        assert_eq!((severity(75, 100), severity(76, 100)), (json!("normal"), json!("warning")));
        assert_eq!((severity(95, 100), severity(96, 100)), (json!("warning"), json!("critical")));
        assert_eq!((severity(100, 100), severity(0, 0)), (json!("critical"), json!("critical")));
    }
}
