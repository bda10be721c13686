//! `managed`: the policies, and the settings that clients receive.

use std::path::Path;

use control::policy::{Kind, PolicyConfig};
use serde_json::{Map, Value};
use wire::shape::{Finding, Severity};

use super::oidc::read_domain;
use super::problem::Report;
use super::read::{Field, Mapping, all};
use super::reference::{Section, key};
use super::tree;

pub(super) const SECTION: Section = Section {
    path: "managed",
    about: "What people may use, and the settings that their clients receive. One of the two.",
    keys: &[
        key("policies", "list", "", "Read from the top; the first that matches a person is theirs."),
        key(
            "settings",
            "path of a JSON file",
            "",
            "One Claude Code managed-settings document for everyone; relative to this file. Ignored beside `policies`.",
        ),
    ],
    later: &[],
};

pub(super) const POLICY: Section = Section {
    path: "managed.policies[]",
    about: "One policy. The entry with an empty `match`, conventionally the last, is the base of all others. All policies of \
            a file have their settings under `cli`, or all under `code`.",
    keys: &[
        key("match", "mapping", "{}", "Whom it is for; empty: everyone."),
        key(
            "cli",
            "mapping",
            "",
            "A Claude Code managed-settings document, for sessions in a terminal. `availableModels` is enforced by the \
             gateway too. Left out: the base's.",
        ),
        key("settings", "mapping", "", "Older name of `cli`."),
        key("code", "mapping", "", "The same, for Claude Code wherever it runs: Claude Desktop's Code tab as well."),
        key(
            "desktop",
            "mapping",
            "",
            "Claude Desktop's managed configuration. A policy has Desktop served when it or the base has this, even empty.",
        ),
    ],
    later: &[],
};

pub(super) const MATCH: Section = Section {
    path: "managed.policies[].match",
    about: "Whom a policy is for; with both keys, those who meet both.",
    keys: &[
        key("groups", "list of group names, not empty", "", "Members of any of these, in exactly this spelling."),
        key("email_domain", "one bare domain", "", "People whose e-mail address ends in this domain."),
    ],
    later: &[],
};

/// What `managed` says.
#[derive(Default)]
pub(super) struct Managed {
    /// `None` without the section.
    pub(super) policies: Option<Vec<PolicyConfig>>,
    pub(super) kind: Kind,
}

/// Reads the section; `folder` is what a relative path starts from.
pub(super) fn read(managed: Option<Field<'_>>, folder: &Path) -> Option<Managed> {
    let Some(field) = managed else { return Some(Managed::default()) };
    let managed = field.mapping(&SECTION)?;
    match (managed.get("policies"), managed.get("settings")) {
        (Some(policies), settings) => {
            if let Some(settings) = settings {
                settings.warn("is ignored, because policies are written too; make it one of them, or leave it out");
            }
            read_policies(&policies)
        }
        (None, Some(settings)) => {
            let policy = PolicyConfig {
                path: settings.path.clone(),
                document_path: settings.path.clone(),
                settings: Some(read_settings_file(&settings, folder)?),
                ..PolicyConfig::default()
            };
            Some(Managed { policies: Some(vec![policy]), kind: Kind::Cli })
        }
        (None, None) => {
            managed.missing("policies", "write a list of policies, each with match and cli");
            None
        }
    }
}

fn read_policies(field: &Field<'_>) -> Option<Managed> {
    let items = field.items()?;
    let has_code = |item: &Field<'_>| item.below("code").is_some();
    let kind = if items.iter().any(has_code) { Kind::Code } else { Kind::Cli };
    let policies = all(items.iter().map(|item| read_policy(item, kind)));
    Some(Managed { policies: Some(policies?), kind })
}

fn read_policy(item: &Field<'_>, kind: Kind) -> Option<PolicyConfig> {
    let policy = item.mapping(&POLICY)?;
    let asked = policy.or("match", (None, None), read_match);
    let document = read_document_of(&policy, kind);
    let desktop = policy.maybe("desktop", |field| read_document(field, wire::desktop::check));
    let (groups, email_domains) = asked?;
    let (document_path, settings) = document?;
    Some(PolicyConfig {
        path: item.path.clone(),
        document_path: document_path.unwrap_or_else(|| tree::child(&item.path, "cli")),
        groups,
        email_domains,
        settings,
        desktop: desktop?,
    })
}

/// A settings document that may be left out, and where it is written.
type Document = (Option<String>, Option<Map<String, Value>>);

fn read_document_of(policy: &Mapping<'_>, kind: Kind) -> Option<Document> {
    let written: Vec<Field<'_>> = ["code", "cli", "settings"].iter().filter_map(|key| policy.get(key)).collect();
    let mut fits = true;
    if kind == Kind::Code {
        for field in written.iter().filter(|field| !field.path.ends_with(".code")) {
            fits = false;
            field.refuse(
                "other settings of this file stand under code, and these would not reach Claude Desktop's Code tab; write \
                 them under code too",
            );
        }
    } else if let [_, second, ..] = written.as_slice() {
        fits = false;
        second.refuse("is the older name of cli, which is written too; keep cli");
    }
    let documents: Option<Vec<Document>> = all(written.iter().map(|field| {
        let document = read_document(field, wire::settings::check)?;
        Some((Some(field.path.clone()), Some(document)))
    }));
    let first = documents?.into_iter().next().unwrap_or_default();
    fits.then_some(first)
}

/// Groups and domains that a policy asks for.
type Asked = (Option<Vec<String>>, Option<Vec<String>>);

fn read_match(field: &Field<'_>) -> Option<Asked> {
    let asked = field.mapping(&MATCH)?;
    let groups = asked.maybe("groups", |field| field.some_texts("group"));
    let domain = asked.maybe("email_domain", read_domain);
    Some((groups?, domain?.map(|domain| vec![domain])))
}

fn read_document(field: &Field<'_>, check: fn(&Map<String, Value>) -> Vec<Finding>) -> Option<Map<String, Value>> {
    let document = field.json_object()?;
    let mut served = true;
    for finding in check(&document) {
        let place = field.place(&finding.path);
        match finding.severity {
            Severity::Error => {
                served = false;
                place.refuse(finding.message);
            }
            Severity::Warning => place.warn(finding.message),
        }
    }
    served.then_some(document)
}

/// The document of a file; what is wrong in it is reported with its own lines.
fn read_settings_file(field: &Field<'_>, folder: &Path) -> Option<Map<String, Value>> {
    let file = folder.join(field.text()?);
    let bytes =
        super::read_file(&file).map_err(|message| field.refuse(format!("{}: {message}", file.display()))).ok()?;
    let report = Report::default();
    let document = match std::str::from_utf8(&bytes) {
        Ok(text) => tree::parse(text, &report).and_then(|node| {
            let whole = Field::of_file(&node, &report);
            read_document(&whole, wire::settings::check)
        }),
        Err(_) => {
            report.problem("", None, "the file is not UTF-8 text; save it as UTF-8");
            None
        }
    };
    let is_clean = report.is_clean();
    let (problems, warnings) = report.finish();
    problems.iter().for_each(|problem| field.refuse(format!("{}: {problem}", file.display())));
    warnings.iter().for_each(|warning| field.warn(format!("{}: {warning}", file.display())));
    if document.is_none() && problems.is_empty() {
        field.refuse(format!("{}: the file is empty; write a JSON object", file.display()));
    }
    document.filter(|_| is_clean)
}
