//! The model catalogue: which models exist, what each provider calls them, and what they cost.
//!
//! Data, not rules: one reviewed file, one loader, used by policy, spend and upstreams.

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
