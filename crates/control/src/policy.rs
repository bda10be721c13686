//! Policy: what a principal may use, and the settings its client receives.
//!
//! Pure: every document, checksum and list is computed when the configuration is read; a request only matches and looks
//! up. Knows no store, no clock, no HTTP, and not where its configuration was written.

mod desktop;
mod explain;
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

pub use desktop::{Bootstrap, DesktopConfig};
pub use explain::{Entry, Explanation, Origin, explain};
pub use settings::Served;
pub use warning::Warning;

/// `managed:` and what the gateway adds to the documents it serves.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `managed.policies`, in file order, or the one that `managed.settings` stands for; `None` when there is no `managed`
    /// section.
    pub policies: Option<Vec<PolicyConfig>>,
    /// Under which key the file has its settings documents.
    pub kind: Kind,
    /// Environment pushed for telemetry (contract A11); empty when nothing is pushed.
    pub telemetry_env: BTreeMap<String, String>,
    /// `modelPricing` as served to clients (contract A9), when `pricing` is set.
    pub model_pricing: Option<Value>,
    /// What Claude Desktop is told about the gateway itself.
    pub desktop: DesktopConfig,
}

/// For which sessions the settings documents of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// `cli` (alias `settings`): Claude Code in a terminal.
    #[default]
    Cli,
    /// `code`: Claude Code wherever it runs, Claude Desktop's Code tab included.
    Code,
}

/// One entry of `managed.policies`.
#[derive(Debug, Clone, Default)]
pub struct PolicyConfig {
    /// Where it is written: `managed.policies[0]`.
    pub path: String,
    /// Where its settings document is written: `managed.policies[0].cli`.
    pub document_path: String,
    /// `match.groups`: any of, exact; `None` when absent.
    pub groups: Option<Vec<String>>,
    /// `match.email_domain`: normalised to lower case without a leading `@`.
    pub email_domains: Option<Vec<String>>,
    /// The settings document; `None` inherits the base whole.
    pub settings: Option<Map<String, Value>>,
    /// `desktop`: keys of Claude Desktop; `None` inherits the base's.
    pub desktop: Option<Map<String, Value>>,
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
    bootstrap: Option<Bootstrap>,
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

/// What `GET /user/bootstrap` has for a principal.
#[derive(Debug)]
pub enum DesktopSelection<'a> {
    /// No policy has keys of Claude Desktop.
    NotConfigured,
    /// There are policies, and none is for this principal.
    NoMatch,
    /// Neither this principal's policy nor the base has keys of Claude Desktop.
    NotOptedIn,
    /// This document.
    Serve(&'a Bootstrap),
}

/// The policies laid over their base.
struct Merged {
    /// The first entry that matches everyone is the base of all others, wherever it stands (contract A9).
    base: Option<usize>,
    /// One settings document per entry, without what the gateway adds.
    documents: Vec<Map<String, Value>>,
    /// The keys of Claude Desktop per entry, where it or the base has some.
    overlays: Vec<Option<Map<String, Value>>>,
}

impl Merged {
    fn of(entries: &[PolicyConfig]) -> Self {
        let nothing = Map::new();
        let base = entries.iter().position(|entry| Matcher::new(entry).matches_everyone());
        let below = base.map(|index| &entries[index]);
        let settings = below.and_then(|base| base.settings.as_ref()).unwrap_or(&nothing);
        let lay_over = |own: &Map<String, Value>| wire::settings::merge(settings, own);
        let documents =
            entries.iter().map(|entry| entry.settings.as_ref().map_or_else(|| settings.clone(), lay_over)).collect();
        let desktop = below.and_then(|base| base.desktop.as_ref());
        let overlays = entries.iter().map(|entry| match (desktop, &entry.desktop) {
            (Some(base), Some(own)) => Some(wire::desktop::merge(base, own)),
            (base, own) => own.as_ref().or(base).cloned(),
        });
        Self { base, documents, overlays: overlays.collect() }
    }
}

impl Policies {
    /// Computes everything that the policies say, and what an operator should know about them.
    #[must_use]
    pub fn compile(config: Config, catalog: Arc<Catalog>) -> (Self, Vec<Warning>) {
        let merged = Merged::of(config.policies.as_deref().unwrap_or_default());
        let warnings = warning::about(&config, &merged, &catalog);
        let Merged { documents, overlays, .. } = merged;
        let policies = config.policies.as_ref().map(|entries| {
            let all = entries.iter().zip(documents).zip(overlays).enumerate();
            all.map(|(index, ((entry, document), overlay))| Policy {
                matcher: Matcher::new(entry),
                role: Role::of(&document, &catalog),
                bootstrap: overlay.map(|overlay| Bootstrap::new(index, &config, &document, &overlay)),
                served: Served::new(Some(index), config.kind, settings::complete(document, &config)),
            })
            .collect()
        });
        let telemetry_only = (policies.is_none() && !config.telemetry_env.is_empty())
            .then(|| Served::new(None, Kind::Cli, settings::complete(Map::new(), &config)));
        let unlisted = Role::of(&Map::new(), &catalog);
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

    /// The bootstrap document of that principal's Claude Desktop.
    #[must_use]
    pub fn select_desktop(&self, principal: &Principal) -> DesktopSelection<'_> {
        if !self.policies.iter().flatten().any(|policy| policy.bootstrap.is_some()) {
            return DesktopSelection::NotConfigured;
        }
        match self.policy_of(principal) {
            None => DesktopSelection::NoMatch,
            Some(policy) => policy.bootstrap.as_ref().map_or(DesktopSelection::NotOptedIn, DesktopSelection::Serve),
        }
    }

    /// Whether that principal may send a request that names `model`: its role first, then the operator's catalogue.
    ///
    /// # Errors
    /// [`Denied`] says which of the two refuses; always the caller's fault.
    pub fn permit(&self, principal: &Principal, model: &str) -> Result<Permit, Denied> {
        self.role_of(principal).permit(model, &self.catalog)
    }

    /// The models of that principal's policy, in the catalogue's order.
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
