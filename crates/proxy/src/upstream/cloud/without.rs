//! What is left out of requests because the upstream does not know it: by a reviewed table, and by what it said itself.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use wire::capability::{self, Table};
use wire::catalog::Provider;
use wire::cloud::Unknown;
use wire::messages::Rewrite;

use super::super::Call;

/// Betas and fields that are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Without {
    betas: BTreeSet<String>,
    fields: BTreeSet<String>,
    tool_fields: BTreeSet<String>,
    table: Table,
}

/// What one upstream is known not to know, by model.
#[derive(Debug)]
pub(super) struct Learned {
    from_table: Arc<Without>,
    by_model: RwLock<HashMap<String, Arc<Without>>>,
}

impl Learned {
    pub(super) fn new(provider: Provider) -> Self {
        let table = capability::table(provider);
        let owned = |names: &[String]| names.iter().cloned().collect();
        let from_table = Arc::new(Without {
            betas: owned(table.betas),
            fields: owned(table.fields),
            tool_fields: owned(table.tool_fields),
            table,
        });
        Self { from_table, by_model: RwLock::default() }
    }

    pub(super) fn of(&self, model_id: &str) -> Arc<Without> {
        let by_model = self.by_model.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_model.get(model_id).unwrap_or(&self.from_table))
    }

    /// Asked without these, it answered.
    pub(super) fn keep(&self, model_id: &str, without: Without) {
        let mut by_model = self.by_model.write().unwrap_or_else(PoisonError::into_inner);
        by_model.insert(model_id.to_owned(), Arc::new(without));
    }
}

impl Without {
    pub(super) fn has_beta(&self, beta: &str) -> bool {
        self.betas.contains(beta)
    }

    /// Takes the fields out of a body.
    pub(in super::super) fn apply(&self, rewrite: &mut Rewrite<'_>) {
        for field in &self.fields {
            rewrite.remove(field);
        }
        for field in &self.tool_fields {
            rewrite.remove_in_each("tools", field);
        }
    }

    /// The same with what a refusal names, and what belongs to it; `None` when the request would be the same again.
    pub(super) fn and(&self, unknown: &Unknown, call: &Call<'_>) -> Option<Self> {
        let mut less = self.clone();
        match unknown {
            Unknown::Betas(named) => less.betas.extend(
                super::betas(call, self, true).filter(|beta| named.iter().any(|name| name == beta)).map(str::to_owned),
            ),
            Unknown::SomeBeta => {
                let unproven = super::betas(call, self, true).filter(|beta| !self.table.accepts(beta));
                less.betas.extend(unproven.map(str::to_owned));
            }
            Unknown::Field { name, in_tools: false } if call.head.layout.value(call.body, name).is_some() => {
                less.fields.insert(name.clone());
            }
            Unknown::Field { name, in_tools: true } => {
                let mut trial = Rewrite::new(call.body, &call.head.layout);
                if trial.remove_in_each("tools", name) {
                    less.tool_fields.insert(name.clone());
                }
            }
            Unknown::Field { .. } => {}
        }
        less.add_partners();
        // What a model cannot do without is never taken out.
        for needed in ["model", "messages", "max_tokens", "system", "tools", "anthropic_version"] {
            less.fields.remove(needed);
        }
        (less != *self).then_some(less)
    }

    /// A beta and the field that it allows go together.
    fn add_partners(&mut self) {
        for (beta, field) in capability::pairs() {
            if self.betas.contains(beta) || self.fields.contains(field) {
                self.betas.insert(beta.to_owned());
                self.fields.insert(field.to_owned());
            }
        }
    }

    /// What is in this and not in `before`, for the log.
    pub(super) fn newly(&self, before: &Self) -> String {
        let betas = self.betas.difference(&before.betas).map(|beta| format!("beta {beta}"));
        let fields = self.fields.difference(&before.fields).map(|field| format!("field {field}"));
        let tools = self.tool_fields.difference(&before.tool_fields).map(|field| format!("field {field} of tools"));
        betas.chain(fields).chain(tools).collect::<Vec<_>>().join(", ")
    }
}
