//! Why a principal receives what it receives: the policy that matches, and where each of its settings comes from.

use serde_json::{Map, Value};
use wire::settings::{MergeKind, merge_of};

use super::matcher::Matcher;
use super::{Config, Merged, settings};
use crate::identity::Principal;

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The policy that matches everyone and lies below the others.
    Base,
    /// The principal's own policy.
    Policy,
    /// Both: entries of the base, then the policy's own.
    Both,
    /// The gateway adds it.
    Gateway,
}

impl Origin {
    /// As shown: `base`, `policy`, `base+policy`, `gateway`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Policy => "policy",
            Self::Both => "base+policy",
            Self::Gateway => "gateway",
        }
    }
}

/// A setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its path: `permissions.deny`.
    pub path: String,
    /// What is served.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// Everything that decides for one principal.
#[derive(Debug)]
pub struct Explanation {
    /// Position of the policy that matches, from 0; `None`: nobody's.
    pub policy: Option<usize>,
    /// Position of the base.
    pub base: Option<usize>,
    /// The policies above it that do not match: their position, and what does not hold.
    pub passed_over: Vec<(usize, &'static str)>,
    /// The settings document; `None` when none is served.
    pub settings: Option<Vec<Entry>>,
    /// The keys of Claude Desktop that policies write; `None` when Desktop is turned away.
    pub desktop: Option<Vec<Entry>>,
}

/// Explains what that principal receives under a configuration.
#[must_use]
pub fn explain(config: &Config, principal: &Principal) -> Explanation {
    let entries = config.policies.as_deref().unwrap_or_default();
    let Merged { base, documents, overlays } = Merged::of(entries);
    let domain = principal.email_domain();
    let mut passed_over = Vec::new();
    let policy = entries.iter().enumerate().find_map(|(index, entry)| {
        match Matcher::new(entry).why_not(&principal.groups, domain.as_deref()) {
            None => Some(index),
            Some(why) => {
                passed_over.push((index, why));
                None
            }
        }
    });
    let nothing = Map::new();
    let Some(index) = policy else {
        let telemetry_only = config.policies.is_none() && !config.telemetry_env.is_empty();
        let settings = telemetry_only.then(|| origins(&nothing, &nothing, &settings::complete(Map::new(), config)));
        return Explanation { policy, base, passed_over, settings, desktop: None };
    };
    // Of the base itself nothing is inherited.
    let below = base.filter(|base| *base != index).map(|base| &entries[base]);
    let settings_below = below.and_then(|base| base.settings.as_ref()).unwrap_or(&nothing);
    let own = entries[index].settings.as_ref().unwrap_or(&nothing);
    let served = settings::complete(documents[index].clone(), config);
    let desktop_below = below.and_then(|base| base.desktop.as_ref()).unwrap_or(&nothing);
    let desktop_own = entries[index].desktop.as_ref().unwrap_or(&nothing);
    let desktop = overlays[index].as_ref().map(|overlay| {
        let entry = |(key, value): (&String, &Value)| Entry {
            path: key.clone(),
            value: value.clone(),
            origin: match key.as_str() {
                "disabledBuiltinTools" | "builtinToolPolicy" => {
                    origin(desktop_below.get(key), desktop_own.get(key), true)
                }
                _ => origin(desktop_below.get(key), desktop_own.get(key), false),
            },
        };
        overlay.iter().map(entry).collect()
    });
    Explanation { policy, base, passed_over, settings: Some(origins(settings_below, own, &served)), desktop }
}

/// One entry per setting, and one per member of an object that is merged member by member.
fn origins(base: &Map<String, Value>, own: &Map<String, Value>, served: &Map<String, Value>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (key, value) in served {
        let kind = merge_of(key);
        match (kind, value) {
            (MergeKind::Shallow | MergeKind::Permissions | MergeKind::Hooks, Value::Object(members)) => {
                for (name, value) in members {
                    let below = base.get(key).and_then(|object| object.get(name));
                    let above = own.get(key).and_then(|object| object.get(name));
                    let is_united = kind == MergeKind::Hooks
                        || kind == MergeKind::Permissions && matches!(name.as_str(), "deny" | "ask");
                    let origin = origin(below, above, is_united);
                    entries.push(Entry { path: format!("{key}.{name}"), value: value.clone(), origin });
                }
            }
            _ => {
                let origin = origin(base.get(key), own.get(key), kind == MergeKind::Union);
                entries.push(Entry { path: key.clone(), value: value.clone(), origin });
            }
        }
    }
    entries
}

fn origin(base: Option<&Value>, own: Option<&Value>, is_united: bool) -> Origin {
    match (base, own) {
        (None, None) => Origin::Gateway,
        (Some(_), None) => Origin::Base,
        (Some(_), Some(_)) if is_united => Origin::Both,
        (_, Some(_)) => Origin::Policy,
    }
}
