//! Policy: what a principal may use, and the settings its client receives.
//!
//! Pure: every document, checksum and list is computed when the configuration is read; a request only matches and looks
//! up. Knows no store, no clock, no HTTP, and not where its configuration was written.

mod matcher;
pub mod permit;
mod settings;
mod warning;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use wire::catalog::{Catalog, Model};

use crate::identity::Principal;
use matcher::Matcher;
use permit::{Denied, Permit, Role};

pub use settings::Served;
pub use warning::Warning;

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
    catalog: Arc<Catalog>,
    /// In file order; the first that matches is the caller's. `None` without a `managed` section.
    policies: Option<Vec<Policy>>,
    /// What everybody receives when there is telemetry but no `managed` section.
    telemetry_only: Option<Served>,
    /// The role of those whom no policy matches.
    unlisted: Role,
}

#[derive(Debug)]
struct Policy {
    matcher: Matcher,
    served: Served,
    role: Role,
}

/// What `GET /managed/settings` has for a principal.
#[derive(Debug)]
pub enum Selection<'a> {
    /// Neither policies nor telemetry are configured.
    NotConfigured,
    /// There are policies, and none is for this principal.
    NoMatch,
    /// This document.
    Serve(&'a Served),
}

impl Policies {
    /// Computes everything that the policies say, and what an operator should know about them.
    ///
    /// The first entry that matches everyone is the base of all others, wherever it stands (contract A9).
    #[must_use]
    pub fn compile(config: Config, catalog: Arc<Catalog>) -> (Self, Vec<Warning>) {
        let nothing = Map::new();
        let entries = config.policies.as_deref().unwrap_or_default();
        let base_index = entries.iter().position(|entry| Matcher::new(entry).matches_everyone());
        let base = base_index.and_then(|index| entries[index].cli.as_ref()).unwrap_or(&nothing);
        let merged: Vec<_> = entries
            .iter()
            .map(|entry| entry.cli.as_ref().map_or_else(|| base.clone(), |cli| wire::settings::merge(base, cli)))
            .collect();
        let warnings = warning::about(&config, base_index, &merged, &catalog);

        let policies = config.policies.as_ref().map(|entries| {
            let both = entries.iter().zip(merged).enumerate();
            both.map(|(index, (entry, document))| Policy {
                matcher: Matcher::new(entry),
                role: Role::of(&document, &catalog),
                served: Served::new(Some(index), settings::complete(document, &config)),
            })
            .collect()
        });
        let telemetry_only = (policies.is_none() && !config.telemetry_env.is_empty())
            .then(|| Served::new(None, settings::complete(Map::new(), &config)));
        let unlisted = Role::of(&nothing, &catalog);
        (Self { catalog, policies, telemetry_only, unlisted }, warnings)
    }

    /// The settings document of that principal.
    #[must_use]
    pub fn select(&self, principal: &Principal) -> Selection<'_> {
        match (&self.policies, &self.telemetry_only) {
            (Some(_), _) => {
                self.policy_of(principal).map_or(Selection::NoMatch, |policy| Selection::Serve(&policy.served))
            }
            (None, Some(served)) => Selection::Serve(served),
            (None, None) => Selection::NotConfigured,
        }
    }

    /// Whether that principal may send a request that names `model`: its role first, then the operator's catalogue.
    ///
    /// # Errors
    /// [`Denied`] says which of the two refuses; always the caller's fault.
    pub fn permit(&self, principal: &Principal, model: &str) -> Result<Permit, Denied> {
        self.role_of(principal).permit(model, &self.catalog)
    }

    /// The models that `/v1/models` lists to that principal, in the catalogue's order.
    pub fn models(&self, principal: &Principal) -> impl Iterator<Item = &Arc<Model>> {
        self.role_of(principal).listed()
    }

    /// Settings, permits and lists follow the same policy: this one.
    fn policy_of(&self, principal: &Principal) -> Option<&Policy> {
        let domain = principal.email_domain();
        self.policies.iter().flatten().find(|policy| policy.matcher.matches(&principal.groups, domain.as_deref()))
    }

    fn role_of(&self, principal: &Principal) -> &Role {
        self.policy_of(principal).map_or(&self.unlisted, |policy| &policy.role)
    }
}

#[cfg(test)]
mod tests;
