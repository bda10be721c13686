//! Explain: what one person would receive and might use under a configuration, and why. Asks the same rooms as a gateway
//! that serves; serves nothing and changes nothing.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use control::clock::{Clock, SystemClock};
use control::connect::Egress;
use control::identity::Principal;
use control::policy::{self, Entry, Kind, Policies};
use control::spend::report::Whose;
use control::spend::{Caps, Period, Report};
use control::store::{Store, StoreError};
use proxy::upstream::Upstreams;
use serde::Serialize;
use serde_json::Value;
use wire::catalog::Catalog;

use crate::config::{Config, Lines, Loaded};

/// Everything that decides for one person.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The configuration file.
    pub file: PathBuf,
    /// Who is asked for.
    pub principal: Who,
    /// The policy that matches; `None`: no policy does.
    pub policy: Option<Place>,
    /// The policy that lies below the others.
    pub base: Option<Place>,
    /// The policies above that do not match.
    pub passed_over: Vec<PassedOver>,
    /// For which sessions the settings are: `cli` or `code`.
    pub kind: &'static str,
    /// The merged settings document; `None`: none is served.
    pub settings: Option<Vec<Setting>>,
    /// The keys of Claude Desktop that policies write; `None`: Desktop is turned away.
    pub desktop: Option<Vec<Setting>>,
    /// The models that `/v1/models` lists.
    pub models: Vec<Listed>,
    /// The caps in force; only when a subject is given and spend limits are on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caps: Option<Vec<InForce>>,
    /// Why the caps are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caps_unknown: Option<String>,
}

/// Who is asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Who {
    /// E-mail address.
    pub email: Option<String>,
    /// Groups, as the identity provider would list them.
    pub groups: Vec<String>,
    /// The identity provider's subject.
    pub sub: Option<String>,
}

/// A place in the file.
#[derive(Debug, Serialize)]
pub struct Place {
    /// `managed.policies[0]`.
    pub path: String,
    /// Its line.
    pub line: Option<usize>,
}

/// A policy that does not match.
#[derive(Debug, Serialize)]
pub struct PassedOver {
    /// Which.
    #[serde(flatten)]
    pub place: Place,
    /// What does not hold.
    pub why: &'static str,
}

/// A setting and where it comes from.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// `permissions.deny`.
    pub path: String,
    /// What is served.
    pub value: Value,
    /// `base`, `policy`, `base+policy` or `gateway`.
    pub origin: &'static str,
}

/// A model of the list.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// `models[].label`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A cap in force.
#[derive(Debug, Serialize)]
pub struct InForce {
    /// `daily`, `weekly` or `monthly`.
    pub period: &'static str,
    /// Whole US cents, as text; `None`: unlimited.
    pub amount: Option<String>,
    /// US cents spent in the period so far.
    pub spent: Value,
    /// What it is set on.
    pub source: Value,
}

/// Explains a configuration for one person. With a subject and spend limits, the database is asked for caps.
///
/// # Errors
/// What would keep the configuration from serving.
pub async fn explain(loaded: Loaded, who: Who) -> anyhow::Result<Explained> {
    let Loaded { config, path: file, lines, .. } = loaded;
    let principal = Principal {
        sub: who.sub.clone().unwrap_or_else(|| "somebody".to_owned()),
        email: who.email.clone(),
        name: None,
        groups: who.groups.clone(),
        session: None,
        groups_unread: false,
        billing_group_tag: None,
    };
    let (caps, caps_unknown) = match (&who.sub, &config.admin) {
        (Some(_), Some(_)) => match caps_of(&config, &principal).await {
            Ok(caps) => (Some(caps), None),
            Err(error) => (None, Some(error.to_string())),
        },
        _ => (None, None),
    };
    let explanation = policy::explain(&config.policy, &principal);
    let place = |index: usize| {
        let path = config.policy.policies.iter().flatten().nth(index).map(|policy| policy.path.clone());
        let path = path.unwrap_or_default();
        Place { line: line_of(&lines, &path), path }
    };
    let shown = |entries: Vec<Entry>| -> Vec<Setting> {
        let one = |entry: Entry| Setting { path: entry.path, value: entry.value, origin: entry.origin.name() };
        entries.into_iter().map(one).collect()
    };
    Ok(Explained {
        file,
        policy: explanation.policy.map(place),
        base: explanation.base.map(place),
        passed_over: explanation
            .passed_over
            .into_iter()
            .map(|(index, why)| PassedOver { place: place(index), why })
            .collect(),
        kind: if config.policy.kind == Kind::Code { "code" } else { "cli" },
        settings: explanation.settings.map(shown),
        desktop: explanation.desktop.map(shown),
        models: models_of(config, &principal)?,
        principal: who,
        caps,
        caps_unknown,
    })
}

fn line_of(lines: &Lines, path: &str) -> Option<usize> {
    (!path.is_empty()).then(|| lines.find(path)).flatten()
}

fn models_of(config: Config, principal: &Principal) -> anyhow::Result<Vec<Listed>> {
    let catalog = Arc::new(Catalog::new(config.models, config.auto_include_builtin_models)?);
    let egress = Egress::new(&config.connect).map_err(|error| anyhow!(error))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let upstreams = Upstreams::new(config.upstreams, &catalog, &egress, &clock).map_err(|error| anyhow!("{error}"))?;
    let (policies, _) = Policies::compile(config.policy, catalog);
    let served = policies.models(principal).filter(|model| upstreams.serve(model, &principal.groups));
    let listed = served.map(|model| Listed {
        id: model.id.clone(),
        label: Some(model.display_name.clone()).filter(|label| *label != model.id),
    });
    Ok(listed.collect())
}

async fn caps_of(config: &Config, principal: &Principal) -> Result<Vec<InForce>, StoreError> {
    let Some(admin) = &config.admin else { return Ok(Vec::new()) };
    let store = Store::attach(&config.store).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let caps = Caps::load(store.clone(), Arc::clone(&clock), admin.spend.group_mode).await?;
    let report = Report::new(store, caps.clone(), clock);
    let page = report.effective(&Whose::Named(vec![principal.sub.clone()]), &Period::ALL).await?;
    // The groups are those that were asked for, not those of the last sign-in.
    let in_force = page.rows.iter().filter_map(|row| {
        let cap = caps.deciding(principal, row.period)?;
        Some(InForce {
            period: row.period.as_str(),
            amount: cap.cents.map(|cents| cents.to_string()),
            spent: row.spent.cents_rounded().into(),
            source: cap.scope.to_json(),
        })
    });
    Ok(in_force.collect())
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        self.line.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

impl Display for Explained {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Who { email, groups, sub } = &self.principal;
        let name = email.as_deref().or(sub.as_deref()).unwrap_or("somebody without an e-mail address");
        let groups = if groups.is_empty() { "no group".to_owned() } else { groups.join(", ") };
        writeln!(f, "{name}, in {groups}")?;
        for PassedOver { place, why } in &self.passed_over {
            writeln!(f, "  {place} does not match: {why}")?;
        }
        match (&self.policy, &self.base) {
            (None, _) => writeln!(f, "  no policy matches")?,
            (Some(policy), Some(base)) if policy.path != base.path => {
                writeln!(f, "  {policy} matches, over the base {base}")?;
            }
            (Some(policy), _) => writeln!(f, "  {policy} matches")?,
        }
        let sessions = if self.kind == "code" { "every session" } else { "sessions in a terminal" };
        write_settings(f, &format!("Claude Code, {sessions}"), self.settings.as_deref(), "no settings are served")?;
        write_settings(f, "Claude Desktop", self.desktop.as_deref(), "turned away: no policy of theirs has desktop")?;
        writeln!(f, "\nModels: {}", self.models.len())?;
        for model in &self.models {
            match &model.label {
                Some(label) => writeln!(f, "  {}  {label}", model.id)?,
                None => writeln!(f, "  {}", model.id)?,
            }
        }
        if let Some(caps) = &self.caps {
            writeln!(f, "\nCaps: {}", caps.len())?;
            for cap in caps {
                let amount =
                    cap.amount.as_ref().map_or_else(|| "unlimited".to_owned(), |cents| format!("{cents} cents"));
                writeln!(f, "  {} {amount}, {} cents spent, set on {}", cap.period, cap.spent, cap.source)?;
            }
        }
        self.caps_unknown.as_ref().map_or(Ok(()), |error| writeln!(f, "\nCaps: not known; {error}"))
    }
}

fn write_settings(f: &mut Formatter<'_>, what: &str, settings: Option<&[Setting]>, none: &str) -> fmt::Result {
    writeln!(f, "\n{what}")?;
    let Some(settings) = settings else { return writeln!(f, "  {none}") };
    if settings.is_empty() {
        return writeln!(f, "  (empty)");
    }
    let widest = settings.iter().map(|setting| setting.path.chars().count()).max().unwrap_or_default();
    settings
        .iter()
        .try_for_each(|Setting { path, value, origin }| writeln!(f, "  {origin:<11}  {path:<widest$}  {value}"))
}
