//! What providers are known not to know: values of `anthropic-beta` and fields of a request that they refuse.
//!
//! Data, not rules: one reviewed file (`capability/table.json`), each entry with its source. What it does not list passes.
//!
//! Claude Platform on AWS and on Google Cloud and Mantle have no rows, because no refusal of theirs is documented. Microsoft
//! Foundry has none, because what it refuses depends on where a deployment is hosted, which a request does not tell:
//! structured outputs are refused by those hosted on Azure only
//! (<https://platform.claude.com/docs/en/build-with-claude/claude-in-microsoft-foundry>, github.com/can1357/oh-my-pi/issues/4679).

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::catalog::Provider;

/// What one provider is known to refuse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Table {
    /// Values of `anthropic-beta`.
    pub betas: &'static [String],
    /// Top-level fields of the body.
    pub fields: &'static [String],
    /// Fields of the definitions in `tools`.
    pub tool_fields: &'static [String],
    documented: &'static [String],
}

impl Table {
    /// Whether the provider's documentation lists that beta.
    #[must_use]
    pub fn accepts(&self, beta: &str) -> bool {
        self.documented.iter().any(|name| name == beta)
    }
}

/// What that provider is known to refuse.
#[must_use]
pub fn table(provider: Provider) -> Table {
    TABLE.providers.get(provider.as_str()).map_or_else(Table::default, |row| Table {
        betas: &row.betas.0,
        fields: &row.fields.0,
        tool_fields: &row.tool_fields.0,
        documented: row.documented_betas.as_ref().map_or(&[], |documented| &documented.names),
    })
}

/// Each beta with the field that only it allows.
pub fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.pairs.iter().map(|pair| (&*pair.beta, &*pair.field))
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test loads it")]
static TABLE: LazyLock<File> =
    LazyLock::new(|| serde_json::from_str(include_str!("capability/table.json")).expect("table.json is valid"));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "date")]
    _date: String,
    #[serde(rename = "rule")]
    _rule: String,
    pairs: Vec<Pair>,
    providers: HashMap<String, Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    beta: String,
    field: String,
    #[serde(rename = "source")]
    _source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    betas: Names,
    fields: Names,
    tool_fields: Names,
    documented_betas: Option<Documented>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Documented {
    #[serde(rename = "source")]
    _source: String,
    names: Vec<String>,
}

/// Names, each of which was written with its source.
#[derive(Deserialize)]
#[serde(from = "Vec<Sourced>")]
struct Names(Vec<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sourced {
    name: String,
    #[serde(rename = "source")]
    _source: String,
}

impl From<Vec<Sourced>> for Names {
    fn from(sourced: Vec<Sourced>) -> Self {
        Self(sourced.into_iter().map(|one| one.name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_nothing_is_both_refused_and_documented() {
        assert!(pairs().any(|pair| pair == ("context-management-2025-06-27", "context_management")));
        let bedrock = table(Provider::Bedrock);
        assert!(bedrock.betas.contains(&"oauth-2025-04-20".to_owned()));
        assert!(bedrock.accepts("interleaved-thinking-2025-05-14"));
        assert!(!bedrock.betas.iter().any(|beta| bedrock.accepts(beta)));
        assert_eq!(table(Provider::Anthropic), Table::default());
    }
}
