//! The model catalogue: which models exist, what each provider calls them, and what they cost.
//!
//! Data, not rules: one reviewed file, one loader, used by policy, spend and upstreams.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

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
    /// Whether `/v1/models` lists it.
    pub listed: bool,
    /// List price; a custom id takes the price of the built-in it maps to, else the unknown tier.
    pub price: Price,
    /// `models[].upstream_model`: upstream name to the id sent there.
    pub upstream_model: HashMap<String, String>,
}

impl Model {
    /// The id sent to that upstream; `None` when the upstream cannot serve the model. `region` steers the Bedrock prefix.
    #[must_use]
    pub fn id_for(
        &self,
        _upstream_name: &str,
        _provider: Provider,
        _region: Option<&str>,
    ) -> Option<Cow<'_, str>> {
        todo!()
    }

    /// List price on that upstream; `None` means the unknown tier ([`Catalog::unknown_price`]) and deserves a warning.
    #[must_use]
    pub fn price_on(&self, _upstream_name: &str) -> Option<&Price> {
        todo!()
    }
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

/// Every model a request may name under one configuration.
#[derive(Debug)]
pub struct Catalog {
    _models: Vec<Arc<Model>>,
}

/// Why a `models:` list cannot become a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// An entry without an id.
    #[error("a model needs an id")]
    BlankId,
    /// Two entries whose ids differ at most in letter case.
    #[error("model {id} is defined twice; keep one entry and give it both upstreams")]
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

impl Catalog {
    /// Builds the catalogue from the `models:` entries and, where wanted, the built-in list.
    pub fn new(
        _custom: Vec<CustomModel>,
        _auto_include_builtin: bool,
    ) -> Result<Self, CatalogError> {
        todo!()
    }

    /// The model a client means by that string, in any accepted spelling and letter case.
    #[must_use]
    pub fn resolve(&self, _requested: &str) -> Option<&Arc<Model>> {
        todo!()
    }

    /// What `/v1/models` lists, in its order.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<Model>> {
        self._models.iter()
    }

    /// The price of an id that no list names.
    #[must_use]
    pub fn unknown_price() -> Price {
        todo!()
    }

    /// List price of the built-in that some provider calls by that id.
    #[must_use]
    pub fn price_of_upstream_id(&self, _id: &str) -> Option<&Price> {
        todo!()
    }

    /// Nano-dollars per `server_tool_use.web_search_requests`.
    #[must_use]
    pub fn web_search_price() -> i64 {
        todo!()
    }

    /// The ids that the stock client asks for when its user chose no model: opus, sonnet, haiku.
    #[must_use]
    pub fn default_models() -> &'static [String] {
        todo!()
    }
}

/// A compiled `availableModels` list. An empty one admits nothing; a policy without the key has no `Allowlist`.
#[derive(Debug, Clone)]
pub struct Allowlist {}

impl Allowlist {
    /// Compiles the entries of the merged policy.
    #[must_use]
    pub fn new(_entries: &[String]) -> Self {
        todo!()
    }

    /// Whether the list admits the client's own string.
    #[must_use]
    pub fn admits(&self, _requested: &str, _catalog: &Catalog) -> bool {
        todo!()
    }

    /// Whether `/v1/models` shows that model to the caller.
    #[must_use]
    pub fn admits_listed(&self, _model: &Model) -> bool {
        todo!()
    }
}

/// Whether that is a family alias of `availableModels` (`opus`, `sonnet`, ...), in any letter case.
#[must_use]
pub fn is_known_family(_alias: &str) -> bool {
    todo!()
}

/// Exact nano-dollars of a decimal amount of dollars (`"3.75"`): no sign, no exponent, at most nine decimals.
#[must_use]
pub fn nano_dollars(_decimal: &str) -> Option<i64> {
    todo!()
}
