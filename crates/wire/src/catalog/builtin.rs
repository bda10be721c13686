//! The loader of `catalog.json`: the built-in models as the file states them.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::{Price, Provider, Rates, lower};

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test loads it")]
pub(super) static BUILTIN: LazyLock<Builtins> =
    LazyLock::new(|| serde_json::from_str(include_str!("catalog.json")).expect("catalog.json is valid"));

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Builtins {
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "date")]
    _date: String,
    #[serde(rename = "unit")]
    _unit: String,
    #[serde(deserialize_with = "amount")]
    pub(super) web_search: i64,
    #[serde(deserialize_with = "plain_price")]
    pub(super) unknown: Price,
    pub(super) default: String,
    pub(super) models: Vec<Builtin>,
}

impl Builtins {
    /// The model with that spelling, in any letter case, of those a client may use.
    pub(super) fn by_spelling(&self, id: &str) -> Option<&Builtin> {
        let id = lower(id);
        self.models.iter().find(|model| model.spellings().contains(&&*id))
    }

    /// The model that some provider calls by that id, whatever the Bedrock region prefix.
    pub(super) fn by_upstream_id(&self, upstream_id: &str) -> Option<&Builtin> {
        let id = lower(upstream_id);
        let bare = id.find("anthropic.").filter(|at| *at == 0 || id[..*at].ends_with('.')).map(|at| &id[at..]);
        let names = |model: &&Builtin| {
            model.spellings().contains(&&*id)
                || bare.is_some_and(|bare| bare == model.bedrock_bare() || model.mantle.as_deref() == Some(bare))
        };
        self.models.iter().find(names)
    }

    pub(super) fn families(&self) -> HashSet<&str> {
        self.models.iter().map(|model| model.family.as_str()).collect()
    }
}

/// One model of the file.
#[derive(Debug, Deserialize)]
#[serde(from = "Row")]
pub(super) struct Builtin {
    pub(super) canonical: String,
    pub(super) family: String,
    pub(super) listed: bool,
    pub(super) max_input_tokens: Option<u64>,
    pub(super) supports_1m: bool,
    pub(super) first_party: String,
    bedrock: String,
    vertex: String,
    mantle: Option<String>,
    google_cloud: bool,
    pub(super) price: Price,
}

impl Builtin {
    /// What a client may call it, on every provider.
    pub(super) fn spellings(&self) -> [&str; 4] {
        [&self.canonical, &self.first_party, &self.vertex, &self.bedrock]
    }

    /// What that provider calls it; `None` where it is not offered.
    pub(super) fn id_on(&self, provider: Provider, region: Option<&str>) -> Option<&str> {
        match provider {
            Provider::Anthropic | Provider::AnthropicAws => Some(&self.first_party),
            Provider::AnthropicGoogleCloud => self.google_cloud.then_some(&self.first_party),
            Provider::Bedrock if region.is_some_and(has_us_profile) => Some(&self.bedrock),
            Provider::Bedrock => Some(self.bedrock_bare()),
            Provider::Mantle => self.mantle.as_deref(),
            Provider::Vertex => Some(&self.vertex),
            Provider::Foundry => Some(&self.canonical),
        }
    }

    pub(super) fn bedrock_bare(&self) -> &str {
        self.bedrock.strip_prefix("us.").unwrap_or(&self.bedrock)
    }
}

/// The regions whose calls go through the `us.` inference profiles.
fn has_us_profile(region: &str) -> bool {
    region == "ca-central-1" || (region.starts_with("us-") && !region.starts_with("us-gov-"))
}

/// A row as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    canonical: String,
    family: String,
    listed: bool,
    max_input_tokens: Option<u64>,
    #[serde(default)]
    supports_1m: bool,
    first_party: String,
    bedrock: String,
    vertex: String,
    mantle: bool,
    google_cloud: bool,
    price: Rates,
    #[serde(default = "one")]
    fast: i64,
    long_prompt: Option<LongPrompt>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongPrompt {
    above: u64,
    price: Rates,
}

impl From<Row> for Builtin {
    fn from(row: Row) -> Self {
        Self {
            family: row.family,
            listed: row.listed,
            max_input_tokens: row.max_input_tokens,
            // Some have the window only for those who ask for it, and `max_input_tokens` does not say so.
            supports_1m: row.supports_1m || row.max_input_tokens == Some(1_000_000),
            first_party: row.first_party,
            bedrock: row.bedrock,
            vertex: row.vertex,
            mantle: row.mantle.then(|| format!("anthropic.{}", row.canonical)),
            google_cloud: row.google_cloud,
            price: Price {
                base: row.price,
                fast: row.fast,
                long_prompt: row.long_prompt.map(|long| (long.above, long.price)),
            },
            canonical: row.canonical,
        }
    }
}

impl<'de> Deserialize<'de> for Rates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Dollars {
            #[serde(deserialize_with = "amount")]
            input: i64,
            #[serde(deserialize_with = "amount")]
            output: i64,
            #[serde(deserialize_with = "amount")]
            cache_read: i64,
            #[serde(deserialize_with = "amount")]
            cache_write_5m: i64,
            #[serde(deserialize_with = "amount")]
            cache_write_1h: i64,
        }
        let Dollars { input, output, cache_read, cache_write_5m, cache_write_1h } = Dollars::deserialize(deserializer)?;
        Ok(Self { input, output, cache_read, cache_write_5m, cache_write_1h })
    }
}

fn plain_price<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Price, D::Error> {
    Ok(Price { base: Rates::deserialize(deserializer)?, fast: 1, long_prompt: None })
}

fn one() -> i64 {
    1
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    nano_dollars(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a decimal amount")))
}

/// Exact nano-dollars of a decimal amount of dollars (`"3.75"`): no sign, no exponent, at most nine decimals. `None` when
/// the text is of another form or the amount does not fit.
#[must_use]
pub fn nano_dollars(decimal: &str) -> Option<i64> {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nano: i64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nano)
}
