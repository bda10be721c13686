//! `/v1/organizations/usage_report/messages` and `/v1/organizations/cost_report`, in the shapes of Anthropic's Usage and
//! Cost Admin API (platform.claude.com/docs/en/api/admin/usage_report, .../cost_report), and as CSV.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::spend::report::usage::{Dimension, Line, Wanted, Width};
use control::spend::{Money, Part};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::query::Query;
use super::{Error, Surface, csv, json};

pub(super) async fn usage(
    State(surface): State<Surface>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    answer(&surface, &headers, &Query::parse(query.as_deref()), &USAGE).await
}

pub(super) async fn cost(
    State(surface): State<Surface>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    answer(&surface, &headers, &Query::parse(query.as_deref()), &COST).await
}

/// One of the two reports.
pub(super) struct Kind {
    /// With the number of buckets on a page: usual and most.
    pub(super) widths: &'static [(&'static str, Width, usize, usize)],
    /// What lines can be grouped by, the dimension of that name first; none: known there, and the same in every row here.
    pub(super) groups: &'static [(&'static str, &'static [Dimension])],
    pub(super) filters: &'static [(&'static str, Dimension)],
    /// A line's figures, once or by what they are for.
    figures: fn(&Line, &Page) -> Vec<Members>,
}

pub(super) const USAGE: Kind = Kind {
    widths: &[("1d", Width::Day, 7, 31), ("1h", Width::Hour, 24, 168), ("1m", Width::Minute, 60, 1440)],
    groups: &[
        ("account_id", &[Dimension::Account]),
        ("api_key_id", &[]),
        ("context_window", &[Dimension::ContextWindow]),
        ("inference_geo", &[]),
        ("model", &[Dimension::Model]),
        ("service_account_id", &[]),
        ("service_tier", &[]),
        ("session_id", &[Dimension::Session]),
        ("speed", &[Dimension::Speed]),
        ("upstream", &[Dimension::Upstream]),
        ("workspace_id", &[Dimension::Workspace]),
    ],
    filters: &[
        ("account_ids", Dimension::Account),
        ("context_window", Dimension::ContextWindow),
        ("models", Dimension::Model),
        ("session_ids", Dimension::Session),
        ("speeds", Dimension::Speed),
        ("upstreams", Dimension::Upstream),
        ("workspace_ids", Dimension::Workspace),
    ],
    figures: usage_figures,
};

pub(super) const COST: Kind = Kind {
    widths: &[("1d", Width::Day, 7, 31)],
    groups: &[
        ("account_id", &[Dimension::Account]),
        ("description", &[Dimension::Model, Dimension::ContextWindow]),
        ("upstream", &[Dimension::Upstream]),
        ("workspace_id", &[Dimension::Workspace]),
    ],
    filters: &[
        ("account_ids", Dimension::Account),
        ("models", Dimension::Model),
        ("upstreams", Dimension::Upstream),
        ("workspace_ids", Dimension::Workspace),
    ],
    figures: cost_figures,
};

/// What the caller asked for, beside [`Wanted`].
struct Page {
    wanted: Wanted,
    /// The names in the order asked for.
    groups: Vec<&'static str>,
    /// The first bucket of the next page.
    next: Option<Timestamp>,
}

async fn answer(surface: &Surface, headers: &HeaderMap, query: &Query, kind: &Kind) -> Result<Response, Error> {
    let page = read(query, kind, surface.report.now())?;
    let as_csv = wants_csv(query, headers)?;
    let lines = surface.report.usage(&page.wanted).await?;
    let width = page.wanted.width;
    let next = page.next.map(|next| format!("page_{}", URL_SAFE_NO_PAD.encode(next.to_string())));
    let results = |line: &Line| {
        let all = (kind.figures)(line, &page).into_iter();
        let named = kind.groups.iter().map(|(name, _)| *name);
        all.map(|members| members.complete(named.clone(), |name| said(line, &page, name))).collect::<Vec<Members>>()
    };
    if as_csv {
        let rows = lines.iter().flat_map(|line| {
            results(line).into_iter().map(|result| {
                let mut row = Map::new();
                row.insert("starting_at".to_owned(), line.bucket.to_string().into());
                row.insert("ending_at".to_owned(), width.later(line.bucket, 1).to_string().into());
                row.extend(csv::flat(result.into()));
                row
            })
        });
        let mut response = ([(header::CONTENT_TYPE, CSV)], csv::table(rows)).into_response();
        if let Some(Ok(next)) = next.map(HeaderValue::try_from) {
            response.headers_mut().insert(NEXT_PAGE, next);
        }
        return Ok(response);
    }
    let mut data = Vec::new();
    let mut lines = lines.iter().peekable();
    let mut bucket = page.wanted.from;
    while bucket < page.wanted.until {
        let end = width.later(bucket, 1);
        let mut in_bucket = Vec::new();
        while let Some(line) = lines.next_if(|line| line.bucket < end) {
            in_bucket.extend(results(line));
        }
        data.push(Bucket { ending_at: end.to_string(), results: in_bucket, starting_at: bucket.to_string() });
        bucket = end;
    }
    Ok(json(StatusCode::OK, &Report { data, has_more: next.is_some(), next_page: next }))
}

/// A page of a report. Pages have lines by the hundred thousand, of which no tree is built.
#[derive(Serialize)]
struct Report {
    data: Vec<Bucket>,
    has_more: bool,
    next_page: Option<String>,
}

#[derive(Serialize)]
struct Bucket {
    ending_at: String,
    results: Vec<Members>,
    starting_at: String,
}

/// What one line of a report says, by name.
struct Members(Vec<(&'static str, Value)>);

impl Members {
    /// With the members of `names` that are not there yet, in the order of their names.
    fn complete(self, names: impl Iterator<Item = &'static str>, value: impl Fn(&str) -> Value) -> Self {
        let Self(mut members) = self;
        for name in names {
            if members.iter().all(|(known, _)| *known != name) {
                members.push((name, value(name)));
            }
        }
        members.sort_unstable_by_key(|(name, _)| *name);
        Self(members)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl From<Members> for Map<String, Value> {
    fn from(Members(members): Members) -> Self {
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

const CSV: HeaderValue = HeaderValue::from_static("text/csv;charset=utf-8");
/// A CSV has no place for the page token.
const NEXT_PAGE: HeaderName = HeaderName::from_static("x-next-page");

/// `null` unless it was grouped by.
fn said(line: &Line, page: &Page, name: &str) -> Value {
    match name {
        _ if !page.groups.contains(&name) => Value::Null,
        "service_tier" => STANDARD.into(),
        _ => dimension_of(name).map_or(Value::Null, |dimension| page.word(line, dimension)),
    }
}

fn dimension_of(name: &str) -> Option<Dimension> {
    USAGE.groups.iter().chain(COST.groups).find(|(known, _)| *known == name)?.1.first().copied()
}

impl Page {
    /// What a line says of itself.
    fn word(&self, line: &Line, dimension: Dimension) -> Value {
        let place = self.wanted.by.iter().position(|by| *by == dimension);
        place.and_then(|place| line.key.get(place)).map_or(Value::Null, |word| json!(word))
    }
}

/// The only tier there is here.
const STANDARD: &str = "standard";

fn usage_figures(line: &Line, _page: &Page) -> Vec<Members> {
    let totals = &line.totals;
    let cache_creation = json!({
        "ephemeral_1h_input_tokens": totals.cache_write_1h,
        "ephemeral_5m_input_tokens": totals.cache_write_5m,
    });
    vec![Members(vec![
        ("uncached_input_tokens", totals.input.into()),
        ("cache_creation", cache_creation),
        ("cache_read_input_tokens", totals.cache_read.into()),
        ("output_tokens", totals.output.into()),
        ("server_tool_use", json!({"web_search_requests": totals.web_searches})),
        ("requests", totals.requests.into()),
    ])]
}

/// What a part of a charge is for, in the words of the public API: `token_type`, if it is tokens, and in a description.
const fn named(part: Part) -> (Option<&'static str>, &'static str) {
    match part {
        Part::Input => (Some("uncached_input_tokens"), "input tokens"),
        Part::CacheRead => (Some("cache_read_input_tokens"), "cache reads"),
        Part::CacheWrite5m => (Some("cache_creation.ephemeral_5m_input_tokens"), "5-minute cache writes"),
        Part::CacheWrite1h => (Some("cache_creation.ephemeral_1h_input_tokens"), "1-hour cache writes"),
        Part::Output => (Some("output_tokens"), "output tokens"),
        Part::WebSearch => (None, "web searches"),
    }
}

/// Every value of `token_type`.
pub(super) fn token_types() -> impl Iterator<Item = &'static str> {
    Part::ALL.into_iter().filter_map(|part| named(part).0)
}

/// Grouped by description, a line is split by what was charged for. What was estimated cannot be, and is told without a kind.
fn cost_figures(line: &Line, page: &Page) -> Vec<Members> {
    if !page.groups.contains(&"description") {
        return vec![Described::default().costs(line.totals.charge, line.totals.requests.into())];
    }
    let (model, window) = (page.word(line, Dimension::Model), page.word(line, Dimension::ContextWindow));
    let shown = model.as_str().unwrap_or_default();
    let split = line.totals.split;
    let parts = Part::ALL.into_iter().map(|part| {
        let (token_type, what) = named(part);
        let kind = token_type.map_or("web_search", |_| TOKENS);
        (split.of(part), kind, token_type, what)
    });
    let estimated = (line.totals.charge.minus(split.sum()), TOKENS, None, "estimated");
    let all = parts.chain([estimated]).filter(|(amount, ..)| *amount != Money::ZERO);
    all.map(|(amount, cost_type, token_type, what)| {
        let described = Described {
            cost_type: cost_type.into(),
            description: format!("{shown} usage - {what}").into(),
            model: model.clone(),
            service_tier: STANDARD.into(),
            token_type: token_type.into(),
            context_window: window.clone(),
        };
        // None of the lines into which it is split stands for a number of requests.
        described.costs(amount, Value::Null)
    })
    .collect()
}

const TOKENS: &str = "tokens";

/// What is charged for; all `null` unless it was grouped by description.
#[derive(Default)]
struct Described {
    cost_type: Value,
    description: Value,
    model: Value,
    service_tier: Value,
    token_type: Value,
    context_window: Value,
}

impl Described {
    fn costs(self, amount: Money, requests: Value) -> Members {
        let Self { cost_type, description, model, service_tier, token_type, context_window } = self;
        Members(vec![
            ("amount", amount.cents().into()),
            ("currency", "USD".into()),
            ("cost_type", cost_type),
            ("description", description),
            ("model", model),
            ("service_tier", service_tier),
            ("token_type", token_type),
            ("context_window", context_window),
            ("inference_geo", Value::Null),
            ("requests", requests),
        ])
    }
}

fn read(query: &Query, kind: &Kind, now: Timestamp) -> Result<Page, Error> {
    let width = query.get("bucket_width").unwrap_or("1d");
    let Some((_, width, usual, most)) = kind.widths.iter().find(|(name, ..)| *name == width) else {
        let names: Vec<&str> = kind.widths.iter().map(|(name, ..)| *name).collect();
        return Err(Error::Invalid(format!("bucket_width: must be {}", names.join(", "))));
    };
    let limit = query.limit_within(*usual, *most)?;
    let starting_at = query.time("starting_at")?;
    let starting_at = starting_at.ok_or_else(|| Error::Invalid("starting_at: required, as RFC 3339".to_owned()))?;
    let first = match query.get("page") {
        Some(token) => read_token(token)?,
        None => starting_at,
    };
    let from = width.start(first);
    // The bucket of this moment is the last; one that a given end cuts is left out.
    let end = query.time("ending_at")?.map_or_else(|| width.later(width.start(now), 1), |end| width.start(end));
    if end <= width.start(starting_at) {
        return Err(Error::Invalid("ending_at: must be at least one bucket later than starting_at".to_owned()));
    }
    let until = end.min(width.later(from, limit)).max(from);
    let (groups, by) = read_groups(query, kind)?;
    let only = read_filters(query, kind)?;
    Ok(Page { wanted: Wanted { width: *width, from, until, by, only }, groups, next: (until < end).then_some(until) })
}

fn read_groups(query: &Query, kind: &Kind) -> Result<(Vec<&'static str>, Vec<Dimension>), Error> {
    let (mut groups, mut by) = (Vec::new(), Vec::new());
    for word in query.all_even_bare("group_by") {
        let Some((name, dimensions)) = kind.groups.iter().find(|(name, _)| *name == word) else {
            let names: Vec<&str> = kind.groups.iter().map(|(name, _)| *name).collect();
            return Err(Error::Invalid(format!("group_by[]: must be one of {}", names.join(", "))));
        };
        if !groups.contains(name) {
            groups.push(*name);
            by.extend(dimensions.iter().copied());
        }
    }
    Ok((groups, by))
}

fn read_filters(query: &Query, kind: &Kind) -> Result<Vec<(Dimension, Vec<String>)>, Error> {
    // Known there and nothing here: to leave them aside would answer another question than was asked.
    for unknown in ["api_key_ids", "inference_geos", "service_account_ids", "service_tiers"] {
        if !query.all_even_bare(unknown).is_empty() {
            return Err(Error::Invalid(format!("{unknown}[]: this gateway does not tell requests apart by it")));
        }
    }
    let words = |name| query.all_even_bare(name).into_iter().map(str::to_owned).collect::<Vec<String>>();
    let all = kind.filters.iter().map(|(name, dimension)| (*dimension, words(name)));
    Ok(all.filter(|(_, words)| !words.is_empty()).collect())
}

fn read_token(token: &str) -> Result<Timestamp, Error> {
    let bytes = token.strip_prefix("page_").and_then(|token| URL_SAFE_NO_PAD.decode(token).ok());
    let at = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    at.ok_or_else(|| Error::Invalid("page: not a page token of this report".to_owned()))
}

fn wants_csv(query: &Query, headers: &HeaderMap) -> Result<bool, Error> {
    match query.get("format") {
        Some("csv") => Ok(true),
        Some("json") => Ok(false),
        Some(_) => Err(Error::Invalid("format: must be json or csv".to_owned())),
        None => Ok(headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/csv"))),
    }
}
