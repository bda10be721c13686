//! `availableModels`: which of the client's own strings a role may send.

use std::collections::HashSet;

use super::{BUILTIN, Catalog, Model, lower};

/// A compiled `availableModels` list. An empty one admits nothing; a policy without the key has no `Allowlist`.
#[derive(Debug, Clone)]
pub struct Allowlist {
    families: HashSet<String>,
    ids: HashSet<String>,
}

impl Allowlist {
    /// Compiles the entries of the merged policy.
    #[must_use]
    pub fn new(entries: &[String]) -> Self {
        let known = BUILTIN.families();
        let normal = entries.iter().map(|entry| without_window(&lower(entry)).to_owned());
        let (families, ids) =
            normal.filter(|entry| !entry.is_empty()).partition(|entry| known.contains(entry.as_str()));
        Self { families, ids }
    }

    /// Whether the list admits the client's own string. An id admits itself and its dated form, but not its Vertex and
    /// Bedrock spellings; a family alias admits every spelling of its family; a `[1m]` suffix counts on neither side.
    #[must_use]
    pub fn admits(&self, requested: &str, catalog: &Catalog) -> bool {
        let requested = lower(requested);
        let requested = without_window(&requested);
        if self.ids.contains(requested) || self.families.contains(requested) {
            return true;
        }
        match catalog.resolve(requested) {
            Some(model) => self.admits_spelling(model, requested),
            None => self.families.iter().any(|family| looks_like(requested, family)),
        }
    }

    /// Whether `/v1/models` shows that model to the caller.
    #[must_use]
    pub fn admits_listed(&self, model: &Model) -> bool {
        let id = lower(&model.id);
        self.ids.contains(&*id) || self.admits_spelling(model, &id)
    }

    fn admits_spelling(&self, model: &Model, spelling: &str) -> bool {
        let by_family = match &model.family {
            Some(family) => self.families.contains(family),
            None => self.families.iter().any(|family| looks_like(spelling, family)),
        };
        let dated =
            |builtin: &super::Builtin| spelling == builtin.first_party && self.ids.contains(builtin.canonical.as_str());
        by_family || model.builtin.is_some_and(dated)
    }
}

fn without_window(id: &str) -> &str {
    id.strip_suffix("[1m]").unwrap_or(id)
}

/// Whether an id that the catalogue files under no family names one: `eu.anthropic.claude-opus-4-8`, `claude-opus-next`.
fn looks_like(id: &str, family: &str) -> bool {
    id.find("claude-").is_some_and(|at| id[at..].split('-').any(|part| part == family))
}
