//! The proof of a yes: only this file can build a [`Permit`], and nothing goes upstream without one.

use std::sync::Arc;

use serde_json::{Map, Value};
use wire::catalog::{Allowlist, Catalog, Model};

/// A principal may send a request for this model.
#[derive(Debug, Clone)]
pub struct Permit {
    model: Arc<Model>,
}

impl Permit {
    /// The model that was asked for, resolved.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

/// Why a model is refused; the text is the contract's (B1) and may be shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller's policy does not list it.
    #[error("model {0} is not in your role's availableModels allowlist")]
    Role(String),
    /// The operator's catalogue does not know it.
    #[error("model {0} is not in the operator's model allowlist")]
    Catalog(String),
}

/// Which models the principals of one policy may use.
#[derive(Debug)]
pub(super) struct Role {
    /// `availableModels`; `None` admits all of the catalogue.
    allowlist: Option<Allowlist>,
    listed: Vec<Arc<Model>>,
}

impl Role {
    /// The role that a merged settings document describes. An `availableModels` that is not a list admits nothing.
    pub(super) fn of(document: &Map<String, Value>, catalog: &Catalog) -> Self {
        let allowlist = document.get("availableModels").map(|value| Allowlist::new(&strings(value)));
        let shown = |model: &&Arc<Model>| allowlist.as_ref().is_none_or(|list| list.admits_listed(model));
        let listed = catalog.listed().filter(shown).cloned().collect();
        Self { allowlist, listed }
    }

    pub(super) fn permit(&self, model: &str, catalog: &Catalog) -> Result<Permit, Denied> {
        if self.allowlist.as_ref().is_some_and(|list| !list.admits(model, catalog)) {
            return Err(Denied::Role(model.to_owned()));
        }
        let known = catalog.resolve(model).ok_or_else(|| Denied::Catalog(model.to_owned()))?;
        Ok(Permit { model: Arc::clone(known) })
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.listed.iter()
    }
}

/// The strings of a list; what is neither is left out.
pub(super) fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
