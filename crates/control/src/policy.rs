//! Policy: what a principal may use, and the settings its client receives. Pure: no store, no clock, no I/O.

pub mod permit;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use wire::catalog::Catalog;

/// `managed:` and what the gateway adds to the documents it serves.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `managed.policies`, in file order; `None` when there is no `managed` section.
    pub policies: Option<Vec<PolicyConfig>>,
    /// Environment pushed for telemetry (contract A11); empty when nothing is pushed.
    pub telemetry_env: BTreeMap<String, String>,
    /// `modelPricing` as served to clients (contract A9), when `pricing` is set.
    pub model_pricing: Option<Value>,
}

/// One entry of `managed.policies`.
#[derive(Debug, Clone, Default)]
pub struct PolicyConfig {
    /// `match.groups`: any of, exact; `None` when absent.
    pub groups: Option<Vec<String>>,
    /// `match.email_domain`: normalised to lower case without a leading `@`.
    pub email_domains: Option<Vec<String>>,
    /// `cli` (alias `settings`): the settings document; `None` inherits the base whole.
    pub cli: Option<Map<String, Value>>,
}

/// All policies, compiled against one catalogue.
#[derive(Debug)]
pub struct Policies {
    _catalog: Arc<Catalog>,
}
