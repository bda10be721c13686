//! `admin`, `enforcement` and `pricing`: the admin API, spend limits, and what spend costs.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use control::identity::admin_key::{AdminKey, AdminKeys};
use control::spend::price::PriceOverride;
use control::spend::{self, GroupMode, Overshoot, Pricing, Retention};
use proxy::upstream;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use wire::catalog::{Catalog, Rates};

use super::models::check_upstream;
use super::number;
use super::read::{Field, Mapping, all};
use super::reference::{Section, key};

/// The `admin:` section, with `enforcement:`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// `write_keys` and `read_keys`.
    pub keys: AdminKeys,
    /// `admin_groups`: whose members may do everything.
    pub groups: Vec<String>,
    /// How spend is limited.
    pub spend: spend::Config,
    /// How long rows are kept.
    pub retention: Retention,
}

pub(super) const SECTION: Section = Section {
    path: "admin",
    about: "Turns on spend limits and the admin API under `/v1/organizations`. An empty mapping will do.",
    keys: &[
        key("write_keys", "list", "[]", "Keys that may read and write, sent as `x-api-key`."),
        key("read_keys", "list", "[]", "Keys that may read."),
        key(
            "admin_groups",
            "list of group names",
            "[]",
            "Members of one of these may read and write with their bearer.",
        ),
        key("blocked_message", "text", "", "Told to people whose spend limit is reached."),
        key(
            "group_limit_mode",
            "`min` or `max`",
            "min",
            "Which limit counts for a person in several groups: the smallest or the largest.",
        ),
        key(
            "billing_group_tag",
            "text of 1 to 64 letters, digits, `_ . : / = + - @`; not beginning with `anthropic`",
            "",
            "The tag of a request that names the group it is billed to.",
        ),
        key("audit_retention_days", "whole number, 1 to 3650", "365", "How long changes by administrators are kept."),
        key("spend_retention_months", "whole number, 1 to 120", "13", "How long counters of spend are kept."),
        key(
            "identity_retention_days",
            "whole number, 1 to 3650",
            "90",
            "How long names and e-mail addresses of people who are not seen any more are kept.",
        ),
        key(
            "usage_retention_days",
            "whole number, 35 to 3650",
            "90",
            "How long one row per request is kept, from which usage and cost are reported.",
        ),
    ],
    later: &[],
};

pub(super) const KEY: Section = Section {
    path: "admin.write_keys[], admin.read_keys[]",
    about: "One key. To rotate, add the new one, move the clients, remove the old one.",
    keys: &[
        key("id", "text, unique in both lists", "required", "What the audit calls it."),
        key("key", "text of at least 32 characters, unlike every other key", "required", "The key itself."),
    ],
    later: &[],
};

pub(super) const ENFORCEMENT: Section = Section {
    path: "enforcement",
    about: "How spend limits are enforced. Needs `admin`.",
    keys: &[
        key(
            "overshoot",
            "`bounded` or `none`",
            "bounded",
            "By how much a limit may be passed: by what one request costs, or not at all. With `none` as much as a request \
             can cost is set aside for it, one whose cost has no bound is refused, and so is every request while spend cannot \
             be checked ([Spend limits](spend.md)).",
        ),
        key(
            "fail_closed_on_error",
            "boolean",
            "false",
            "Whether requests are refused, instead of let through, while spend cannot be checked.",
        ),
        key(
            "wait_seconds",
            "whole number, 0 to 300",
            "5",
            "How long a request that does not fit beside others in flight waits for them to settle.",
        ),
    ],
    later: &[],
};

pub(super) const PRICING: Section = Section {
    path: "pricing",
    about: "What spend is metered at, in place of list prices. Needs `admin` or `managed`.",
    keys: &[
        key("multiplier", "number above 0", "1", "Every charge is multiplied by this."),
        key("overrides", "list", "[]", "Rates for single models."),
        key(
            "unknown_model",
            "`tier` or `refuse`",
            "tier",
            "A model of `models` that has neither a list price nor an override is metered at 5 USD (input) and 25 USD \
             (output) per million tokens, or cannot be used.",
        ),
    ],
    later: &[],
};

pub(super) const OVERRIDE: Section = Section {
    path: "pricing.overrides[]",
    about: "Rates of one model in USD per million tokens, fast or not; the multiplier applies to them too. Of several rows \
            that fit a request, one for its upstream beats one for all; then the exact id sent there beats the one that \
            the client asked for, and that a built-in id, which stands for all its spellings.",
    keys: &[
        key("upstream", "name of an upstream", "", "Where it applies; left out: on every upstream."),
        key("model", "text", "required", "The model id."),
        key("input", "number above 0", "required", "Input that is not cached."),
        key("output", "number above 0", "required", "Output."),
        key("cache_read", "number above 0", "required", "Input read from the prompt cache."),
        key("cache_write", "number above 0", "required", "Input written to the prompt cache."),
        key("cache_write_1h", "number above 0", "cache_write", "Input written to the cache for one hour."),
        key("web_search", "number above 0", "0.01", "One web search, in USD."),
    ],
    later: &[],
};

const MIN_KEY_CHARACTERS: usize = 32;
const NANO: i64 = 1_000_000_000;

/// `Some(None)` without the section; beside it the billing tag, which goes into bearers.
pub(super) fn read(
    admin: Option<Field<'_>>,
    enforcement: Option<Field<'_>>,
) -> Option<(Option<Admin>, Option<String>)> {
    let enforcement = match enforcement {
        Some(field) => read_enforcement(&field, admin.is_some()),
        None => Some(spend::Config::default()),
    };
    let Some(field) = admin else { return enforcement.map(|_| (None, None)) };
    let admin = field.mapping(&SECTION)?;
    let keys = read_keys(&admin);
    let groups = admin.or("admin_groups", Vec::new(), Field::texts);
    let blocked_message = admin.maybe("blocked_message", Field::string);
    let group_mode = admin.or("group_limit_mode", GroupMode::Min, |field| {
        field.one_of(&[("min", GroupMode::Min), ("max", GroupMode::Max)])
    });
    let tag = admin.maybe("billing_group_tag", read_tag);
    let retention = read_retention(&admin);
    let spend = spend::Config { group_mode: group_mode?, blocked_message: blocked_message?, ..enforcement? };
    Some((Some(Admin { keys: keys?, groups: groups?, spend, retention: retention? }), tag?))
}

fn read_retention(admin: &Mapping<'_>) -> Option<Retention> {
    let usual = Retention::default();
    let span = |key, usual: u16, range: RangeInclusive<u64>| {
        admin.or(key, usual, |field| field.whole(range).and_then(|span| u16::try_from(span).ok()))
    };
    let usage = span("usage_retention_days", usual.usage_days, 35..=3650);
    let spend = span("spend_retention_months", usual.spend_months, 1..=120);
    let identity = span("identity_retention_days", usual.identity_days, 1..=3650);
    let audit = span("audit_retention_days", usual.audit_days, 1..=3650);
    Some(Retention { usage_days: usage?, spend_months: spend?, identity_days: identity?, audit_days: audit? })
}

fn read_keys(admin: &Mapping<'_>) -> Option<AdminKeys> {
    let mut seen = Seen::default();
    let write = admin.or("write_keys", Vec::new(), |field| read_key_list(field, &mut seen));
    let read = admin.or("read_keys", Vec::new(), |field| read_key_list(field, &mut seen));
    Some(AdminKeys { write: write?, read: read? })
}

/// The ids and keys of both lists.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    keys: HashSet<String>,
}

fn read_key_list(field: &Field<'_>, seen: &mut Seen) -> Option<Vec<AdminKey>> {
    all(field.items()?.iter().map(|item| read_key(item, seen)))
}

fn read_key(item: &Field<'_>, seen: &mut Seen) -> Option<AdminKey> {
    let entry = item.mapping(&KEY)?;
    let id = entry.required("id", "write the name by which the audit will call this key", |field| {
        let id = field.string()?;
        if !seen.ids.insert(id.clone()) {
            field.refuse("another admin key has this id; ids are unique in write_keys and read_keys together");
            return None;
        }
        Some(id)
    });
    let key = entry.required("key", "write a reference to it, such as ${GATEWAY_ADMIN_KEY}", |field| {
        let key = field.secret()?;
        if key.expose_secret().chars().count() < MIN_KEY_CHARACTERS {
            field.refuse("must be at least 32 characters long; `openssl rand -base64 32` makes one");
            return None;
        }
        if !seen.keys.insert(key.expose_secret().to_owned()) {
            field.refuse("equals another admin key, so that nobody could tell whose it is; make one for each");
            return None;
        }
        Some(key)
    });
    Some(AdminKey { id: id?, key: key? })
}

fn read_tag(field: &Field<'_>) -> Option<String> {
    let tag = field.text()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.:/=+-@".contains(c);
    if tag.len() > 64 || !tag.chars().all(allowed) || tag.to_ascii_lowercase().starts_with("anthropic") {
        field.refuse("must be 1 to 64 letters, digits or _ . : / = + - @, and not begin with anthropic");
        return None;
    }
    Some(tag.to_owned())
}

/// The part of [`spend::Config`] that is written here.
fn read_enforcement(field: &Field<'_>, has_admin: bool) -> Option<spend::Config> {
    let enforcement = field.mapping(&ENFORCEMENT)?;
    let needs_admin = |field: &Field<'_>| {
        if !has_admin {
            field.refuse("needs the admin section, without which no spend is checked; add admin, or leave it out");
        }
    };
    let overshoot = enforcement.or("overshoot", Overshoot::Bounded, |field| {
        let overshoot = field.one_of(&[("bounded", Overshoot::Bounded), ("none", Overshoot::None)])?;
        if overshoot == Overshoot::None {
            needs_admin(field);
        }
        Some(overshoot)
    });
    let fail_closed = enforcement.or("fail_closed_on_error", overshoot == Some(Overshoot::None), |field| {
        let fail_closed = field.flag()?;
        if fail_closed {
            needs_admin(field);
        } else if overshoot == Some(Overshoot::None) {
            field.refuse(
                "must be true, or left out, with overshoot: none, which cannot hold a limit that cannot be checked",
            );
        }
        Some(fail_closed)
    });
    let wait = enforcement.or("wait_seconds", 5, |field| field.whole(0..=300));
    Some(spend::Config {
        overshoot: overshoot?,
        fail_closed: fail_closed?,
        wait: Duration::from_secs(wait?),
        ..spend::Config::default()
    })
}

/// What the rows of `pricing` may name; `None` when that is not known.
#[derive(Clone, Copy)]
pub(super) struct Priced<'a> {
    pub(super) upstreams: Option<&'a [upstream::Config]>,
    pub(super) catalog: Option<&'a Catalog>,
}

/// List prices without the section; and whether a model without a price is refused.
pub(super) fn read_pricing(
    pricing: Option<Field<'_>>,
    priced: Priced<'_>,
    has_user: bool,
) -> Option<(Option<Pricing>, bool)> {
    let Some(field) = pricing else { return Some((None, false)) };
    if !has_user {
        field.refuse("needs admin, which meters spend, or managed, which tells clients; add one, or leave it out");
    }
    let pricing = field.mapping(&PRICING)?;
    let multiplier = pricing.or("multiplier", NANO, |field| {
        let multiplier = field.nano()?;
        if multiplier > NANO {
            field.warn("above 1: spend is metered above list price");
        }
        Some(multiplier)
    });
    let overrides = pricing.or("overrides", Vec::new(), |field| read_overrides(field, priced));
    let refuse_unknown = pricing.or("unknown_model", false, |field| field.one_of(&[("tier", false), ("refuse", true)]));
    Some((Some(Pricing { multiplier_nano: multiplier?, overrides: overrides? }), refuse_unknown?))
}

fn read_overrides(field: &Field<'_>, priced: Priced<'_>) -> Option<Vec<PriceOverride>> {
    let items = field.items()?;
    let read: Vec<Option<PriceOverride>> = items.iter().map(|item| read_override(item, priced)).collect();
    for (index, row) in read.iter().enumerate() {
        let Some(row) = row else { continue };
        let same = |earlier: &PriceOverride| {
            earlier.upstream == row.upstream && earlier.model.eq_ignore_ascii_case(&row.model)
        };
        if read[..index].iter().flatten().any(same) {
            items[index].refuse("an earlier row has the same upstream and model; keep one");
        }
        if priced.catalog.is_some_and(|catalog| !catalog.knows(&row.model)) {
            items[index]
                .warn(format!("no request can match this row: no model that can be used is called {}", row.model));
        }
    }
    all(read.into_iter())
}

fn read_override(item: &Field<'_>, priced: Priced<'_>) -> Option<PriceOverride> {
    let row = item.mapping(&OVERRIDE)?;
    let upstream = row.maybe("upstream", |field| {
        let name = field.string()?;
        if let Some(upstreams) = priced.upstreams {
            check_upstream(field, &name, upstreams);
        }
        Some(name)
    });
    let model = row.required("model", "write the model id that the rates are for", Field::string);
    let rate = |key| row.required(key, "write the rate in USD per million tokens", Field::nano);
    let (input, output) = (rate("input"), rate("output"));
    let (cache_read, cache_write) = (rate("cache_read"), rate("cache_write"));
    let cache_write_1h = row.maybe("cache_write_1h", Field::nano);
    let web_search = row.maybe("web_search", Field::nano);
    let cache_write_5m = cache_write?;
    let rates = Rates {
        input: input?,
        output: output?,
        cache_read: cache_read?,
        cache_write_5m,
        cache_write_1h: cache_write_1h?.unwrap_or(cache_write_5m),
    };
    Some(PriceOverride { upstream: upstream?, model: model?, rates, web_search: web_search? })
}

/// `modelPricing` as clients understand it: one row for a model, the first.
pub(super) fn model_pricing(pricing: &Pricing) -> Value {
    let usd = |nano: i64| number::json_of_nano(nano).map_or(Value::Null, Value::Number);
    let mut overrides = Map::new();
    for row in &pricing.overrides {
        overrides.entry(row.model.clone()).or_insert_with(|| {
            json!({
                "input": usd(row.rates.input),
                "output": usd(row.rates.output),
                "cacheRead": usd(row.rates.cache_read),
                "cacheWrite": usd(row.rates.cache_write_5m),
            })
        });
    }
    json!({ "multiplier": usd(pricing.multiplier_nano), "overrides": overrides })
}
