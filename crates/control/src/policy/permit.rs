//! The proof of a yes: only policy can build a [`Permit`], and nothing goes upstream without one.

use std::sync::Arc;

use wire::catalog::Model;

/// A principal may send a request for this model.
#[derive(Debug, Clone)]
pub struct Permit {
    pub(super) model: Arc<Model>,
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
