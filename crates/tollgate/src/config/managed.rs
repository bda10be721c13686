//! `managed`: the policies, and the settings that clients receive.

use control::policy::PolicyConfig;
use serde_json::{Map, Value};
use wire::settings::{self, Severity};

use super::oidc::read_domain;
use super::read::{Field, all};
use super::reference::{Section, key, later};

pub(super) const SECTION: Section = Section {
    path: "managed",
    about: "What people may use, and the settings that their clients receive.",
    keys: &[key("policies", "list", "required", "Read from the top; the first that matches a person is theirs.")],
    later: &[later("settings", "one settings file for everyone")],
};

pub(super) const POLICY: Section = Section {
    path: "managed.policies[]",
    about: "One policy. The entry with an empty `match`, conventionally the last, is the base of all others.",
    keys: &[
        key("match", "mapping", "{}", "Whom it is for; empty: everyone."),
        key(
            "cli",
            "mapping",
            "",
            "A Claude Code managed-settings document. `availableModels` is enforced by the gateway too. Left out: the \
             base's.",
        ),
        key("settings", "mapping", "", "Older name of `cli`."),
    ],
    later: &[
        later("code", "settings for Claude Code under every client"),
        later("desktop", "settings of Claude Desktop"),
    ],
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

/// The policies; `Some(None)` without the section.
pub(super) fn read(managed: Option<Field<'_>>) -> Option<Option<Vec<PolicyConfig>>> {
    let Some(field) = managed else { return Some(None) };
    let managed = field.mapping(&SECTION)?;
    if managed.get("settings").is_some() && managed.get("policies").is_none() {
        return None;
    }
    managed.required("policies", "write a list of policies, each with match and cli", read_policies).map(Some)
}

fn read_policies(field: &Field<'_>) -> Option<Vec<PolicyConfig>> {
    all(field.items()?.iter().map(read_policy))
}

fn read_policy(item: &Field<'_>) -> Option<PolicyConfig> {
    let policy = item.mapping(&POLICY)?;
    let (groups, email_domains) = policy.or("match", (None, None), read_match)?;
    let cli = match (policy.get("cli"), policy.get("settings")) {
        (Some(_), Some(settings)) => {
            settings.refuse("is the older name of cli, which is written too; keep cli");
            None
        }
        (Some(document), None) | (None, Some(document)) => read_document(&document).map(Some),
        (None, None) => Some(None),
    };
    Some(PolicyConfig { groups, email_domains, cli: cli? })
}

/// Groups and domains that a policy asks for.
type Asked = (Option<Vec<String>>, Option<Vec<String>>);

fn read_match(field: &Field<'_>) -> Option<Asked> {
    let asked = field.mapping(&MATCH)?;
    let groups = asked.maybe("groups", |field| field.some_texts("group"));
    let domain = asked.maybe("email_domain", read_domain);
    Some((groups?, domain?.map(|domain| vec![domain])))
}

fn read_document(field: &Field<'_>) -> Option<Map<String, Value>> {
    let document = field.json_object()?;
    let mut served = true;
    for finding in settings::check(&document) {
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
