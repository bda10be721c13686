//! The model catalogue: which models exist, what each provider calls them, and what they cost.
//!
//! Data, not rules: one reviewed file (`catalog/catalog.json`), one loader, used by policy, spend and upstreams.

mod allowlist;
mod builtin;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

pub use allowlist::Allowlist;
pub use builtin::nano_dollars;
use builtin::{BUILTIN, Builtin};

/// A kind of vendor API, as written in `upstreams[].provider`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The Claude API, or a server that speaks it.
    Anthropic,
    /// Amazon Bedrock.
    Bedrock,
    /// Amazon Bedrock's Anthropic-format endpoint.
    Mantle,
    /// Claude Platform on AWS.
    AnthropicAws,
    /// Claude Platform on Google Cloud.
    AnthropicGoogleCloud,
    /// Google Cloud Vertex AI.
    Vertex,
    /// Microsoft Foundry.
    Foundry,
}

impl Provider {
    /// As it is written in `upstreams[].provider`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
            Self::Mantle => "mantle",
            Self::AnthropicAws => "anthropicAws",
            Self::AnthropicGoogleCloud => "anthropicGoogleCloud",
            Self::Vertex => "vertex",
            Self::Foundry => "foundry",
        }
    }
}

/// Prices of one class of tokens, in nano-dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Uncached input tokens.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
    /// Tokens read from the prompt cache.
    pub cache_read: i64,
    /// Tokens written to the prompt cache for five minutes.
    pub cache_write_5m: i64,
    /// Tokens written to the prompt cache for one hour.
    pub cache_write_1h: i64,
}

/// List price of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// The ordinary rates.
    pub base: Rates,
    /// Whole factor on every rate when the answer says `usage.speed: "fast"`; 1 where there is no fast price.
    pub fast: i64,
    /// `(threshold, rates)`: when the prompt (input + cache read + cache write tokens) is larger than the threshold, these
    /// rates apply to the whole request.
    pub long_prompt: Option<(u64, Rates)>,
}

/// One model that a client may name.
#[derive(Debug, Clone)]
pub struct Model {
    /// The id under which `/v1/models` lists it, or would.
    pub id: String,
    /// The built-in canonical id it is filed under (`claude-sonnet-4-5`), `None` for a custom id.
    pub canonical: Option<String>,
    /// The family alias that admits it in `availableModels` (`opus`, `sonnet`, `haiku`, `fable`), where it has one.
    pub family: Option<String>,
    /// `models[].label`, else the id.
    pub display_name: String,
    /// `models[].description`.
    pub description: Option<String>,
    /// Context window in tokens where the catalogue states one.
    pub max_input_tokens: Option<u64>,
    /// Whether it can be asked with a window of a million tokens; for a custom id, whether all it maps to can that the
    /// catalogue knows.
    pub supports_1m: bool,
    /// Whether `/v1/models` lists it.
    pub listed: bool,
    /// `models[].upstream_model`: upstream name to the id sent there.
    pub upstream_model: HashMap<String, String>,
    builtin: Option<&'static Builtin>,
}

impl Model {
    /// The id sent to that upstream; `None` when the upstream cannot serve the model. `region` steers the Bedrock prefix.
    ///
    /// A Mantle upstream serves only what its own `models` list names; that is the caller's to check.
    #[must_use]
    pub fn id_for(&self, upstream_name: &str, provider: Provider, region: Option<&str>) -> Option<Cow<'_, str>> {
        if let Some(id) = self.upstream_model.get(upstream_name) {
            return Some(Cow::Borrowed(id));
        }
        self.builtin?.id_on(provider, region).map(Cow::Borrowed)
    }

    /// What its list price is where an upstream is asked for it as `sent`: that of the built-in which some provider calls
    /// so, else of the built-in this model is filed under. `None` means the unknown tier ([`Catalog::unknown_price`]) and
    /// deserves a warning.
    #[must_use]
    pub fn listed_as(&self, sent: &str) -> Option<Listed> {
        let own = self.builtin.filter(|builtin| builtin.spellings().contains(&sent));
        let listed = own.or_else(|| BUILTIN.by_upstream_id(sent)).or(self.builtin)?;
        Some(Listed { canonical: &listed.canonical, price: &listed.price })
    }

    fn from_builtin(builtin: &'static Builtin) -> Self {
        Self {
            id: builtin.first_party.clone(),
            canonical: Some(builtin.canonical.clone()),
            family: Some(builtin.family.clone()),
            display_name: builtin.first_party.clone(),
            description: None,
            max_input_tokens: builtin.max_input_tokens,
            supports_1m: builtin.supports_1m,
            listed: builtin.listed,
            upstream_model: HashMap::new(),
            builtin: Some(builtin),
        }
    }

    fn from_custom(custom: CustomModel) -> Self {
        let builtin = BUILTIN.by_spelling(&custom.id);
        let mut mapped = custom.upstream_model.values().filter_map(|id| BUILTIN.by_upstream_id(id)).peekable();
        let maps_to_1m = mapped.peek().is_some() && mapped.all(|builtin| builtin.supports_1m);
        Self {
            supports_1m: builtin.map_or(maps_to_1m, |builtin| builtin.supports_1m),
            canonical: builtin.map(|builtin| builtin.canonical.clone()),
            family: builtin.map(|builtin| builtin.family.clone()),
            display_name: custom.label.unwrap_or_else(|| custom.id.clone()),
            description: custom.description,
            max_input_tokens: builtin.and_then(|builtin| builtin.max_input_tokens),
            listed: true,
            upstream_model: custom.upstream_model,
            id: custom.id,
            builtin,
        }
    }
}

/// A built-in model whose list price applies.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// Its canonical id.
    pub canonical: &'static str,
    /// Its list price.
    pub price: &'static Price,
}

/// A `models:` entry of the configuration.
#[derive(Debug, Clone)]
pub struct CustomModel {
    /// The client-facing id.
    pub id: String,
    /// Shown instead of the id.
    pub label: Option<String>,
    /// Shown in `/v1/models`.
    pub description: Option<String>,
    /// Upstream name to the id sent there; at least one.
    pub upstream_model: HashMap<String, String>,
}

impl CustomModel {
    /// Whether it has a list price where an upstream is asked for it as `sent`; see [`Model::listed_as`].
    #[must_use]
    pub fn is_listed_as(&self, sent: &str) -> bool {
        BUILTIN.by_upstream_id(sent).or_else(|| BUILTIN.by_spelling(&self.id)).is_some()
    }
}

/// Why a `models:` list cannot become a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// An entry without an id.
    #[error("a model needs an id")]
    BlankId,
    /// Two entries whose ids differ at most in letter case.
    #[error("model {id} is defined twice; keep one entry and name all its upstreams there")]
    DuplicateId {
        /// The id as written in the later entry.
        id: String,
    },
    /// An entry that maps to no upstream.
    #[error("model {id} maps to no upstream; name at least one in upstream_model")]
    NoUpstream {
        /// The id of the entry.
        id: String,
    },
}

/// Every model a request may name under one configuration.
#[derive(Debug)]
pub struct Catalog {
    models: Vec<Arc<Model>>,
    /// Every accepted spelling in lower case, to its place in `models`.
    spellings: HashMap<String, usize>,
}

impl Catalog {
    /// Builds the catalogue from the `models:` entries and, where wanted, the built-in list.
    ///
    /// An entry whose id is a spelling of a built-in stands for that built-in: it takes its place in the list and, with the
    /// built-in list on, also answers to its other spellings, so that no spelling slips past the operator's mapping.
    ///
    /// # Errors
    /// The first entry that cannot stand.
    pub fn new(custom: Vec<CustomModel>, auto_include_builtin: bool) -> Result<Self, CatalogError> {
        let mut catalog = Self { models: Vec::new(), spellings: HashMap::new() };
        for entry in custom {
            catalog.add_custom(entry)?;
        }
        if auto_include_builtin {
            catalog.add_builtin();
        }
        Ok(catalog)
    }

    /// The model a client means by that string, in any accepted spelling and letter case.
    #[must_use]
    pub fn resolve(&self, requested: &str) -> Option<&Arc<Model>> {
        self.models.get(*self.spellings.get(&*lower(requested))?)
    }

    /// What `/v1/models` lists, in its order: the entries of the configuration, then the built-in list.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.iter().filter(|model| model.listed)
    }

    /// The price of an id that no list names.
    #[must_use]
    pub fn unknown_price() -> &'static Price {
        &BUILTIN.unknown
    }

    /// Whether a client, a provider or the configuration may call one of these models so, in any letter case.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        let named = BUILTIN.by_upstream_id(id).map(|builtin| &builtin.canonical);
        self.models.iter().any(|model| {
            let is_sent = |sent: &String| {
                let listed = BUILTIN.by_upstream_id(sent).map(|builtin| &builtin.canonical);
                sent.eq_ignore_ascii_case(id) || listed.is_some_and(|canonical| canonical.eq_ignore_ascii_case(id))
            };
            let is_called = named.is_some() && model.canonical.as_ref() == named;
            is_called || model.id.eq_ignore_ascii_case(id) || model.upstream_model.values().any(is_sent)
        })
    }

    /// Nano-dollars per `server_tool_use.web_search_requests`.
    #[must_use]
    pub fn web_search_price() -> i64 {
        BUILTIN.web_search
    }

    /// The id that the stock client asks for when its user chose no model.
    #[must_use]
    pub fn default_model() -> &'static str {
        &BUILTIN.default
    }

    fn add_custom(&mut self, entry: CustomModel) -> Result<(), CatalogError> {
        if entry.id.trim().is_empty() {
            return Err(CatalogError::BlankId);
        }
        if entry.upstream_model.is_empty() {
            return Err(CatalogError::NoUpstream { id: entry.id });
        }
        let spelling = lower(&entry.id).into_owned();
        if self.spellings.insert(spelling, self.models.len()).is_some() {
            return Err(CatalogError::DuplicateId { id: entry.id });
        }
        self.models.push(Arc::new(Model::from_custom(entry)));
        Ok(())
    }

    fn add_builtin(&mut self) {
        let mut replaced: HashMap<&str, usize> = HashMap::new();
        for (place, model) in self.models.iter().enumerate() {
            if let Some(builtin) = model.builtin {
                replaced.entry(&builtin.canonical).or_insert(place);
            }
        }
        let mut added = Vec::new();
        for builtin in &BUILTIN.models {
            let place = replaced.get(builtin.canonical.as_str()).copied().unwrap_or_else(|| {
                added.push(Arc::new(Model::from_builtin(builtin)));
                self.models.len() + added.len() - 1
            });
            for spelling in builtin.spellings() {
                self.spellings.entry(spelling.to_owned()).or_insert(place);
            }
        }
        self.models.extend(added);
    }
}

/// Whether that is a family alias of `availableModels` (`opus`, `sonnet`, ...), in any letter case.
#[must_use]
pub fn is_known_family(alias: &str) -> bool {
    BUILTIN.families().contains(&*lower(alias))
}

/// ASCII lower case, borrowed where nothing changes. Ids are ASCII; other letters must match as they are.
fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests;
