//! The reference: every key of `gateway.yaml` as data, and the page of documentation made of it.
//!
//! Readers check keys against these tables and the page is printed from them, so neither can know a key that the other
//! does not.

use std::fmt::Write;

use super::{
    access, admin, failover, listen, load_test, managed, metrics, models, oidc, root, session, store, telemetry,
    upstreams,
};

/// A mapping of the file and the keys it may hold.
#[derive(Debug)]
pub(super) struct Section {
    /// Where it stands: `listen.tls`, `upstreams[]`.
    pub(super) path: &'static str,
    /// What it is for.
    pub(super) about: &'static str,
    /// The keys that are built.
    pub(super) keys: &'static [Key],
    /// The keys that are known and not built yet.
    pub(super) later: &'static [Later],
}

/// A key that is built.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Type and rule. It begins with the type where that is not some text: boolean, number, whole number, list, mapping.
    pub(super) form: &'static str,
    /// `required`, or what stands when the key is left out.
    pub(super) default: &'static str,
    pub(super) meaning: &'static str,
}

/// A key, or a value, that the reference server or a later version of this one understands.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) name: &'static str,
    /// What it is for, in a short clause.
    pub(super) purpose: &'static str,
}

impl Later {
    /// What a file that uses it is told.
    pub(super) fn refusal(&self) -> String {
        format!("not supported by this version of Tollgate ({})", self.purpose)
    }
}

/// Shorthand for tables.
pub(super) const fn key(name: &'static str, form: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, form, default, meaning }
}

/// Shorthand for tables.
pub(super) const fn later(name: &'static str, purpose: &'static str) -> Later {
    Later { name, purpose }
}

/// Every section, in the order of the page.
pub(super) const SECTIONS: &[&Section] = &[
    &root::SECTION,
    &listen::SECTION,
    &listen::TLS,
    &oidc::SECTION,
    &oidc::ASSERTION,
    &oidc::GOOGLE,
    &session::SECTION,
    &store::SECTION,
    &upstreams::SECTION,
    &upstreams::AUTH,
    &upstreams::GUARDRAIL,
    &upstreams::ASSUME_ROLE,
    &failover::OWN_TIMEOUTS,
    &failover::BREAKER,
    &models::SECTION,
    &managed::SECTION,
    &managed::POLICY,
    &managed::MATCH,
    &admin::SECTION,
    &admin::KEY,
    &admin::ENFORCEMENT,
    &admin::PRICING,
    &admin::OVERRIDE,
    &metrics::SECTION,
    &telemetry::SECTION,
    &telemetry::DESTINATION,
    &access::ACCESS_CONTROL,
    &access::LIMITS,
    &access::RATE_LIMITS,
    &access::RATE_LIMIT,
    &failover::TIMEOUTS,
    &load_test::SECTION,
];

const OPENING: &str = "\
<!-- Generated from the tables in crates/tollgate/src/config. A test fails when this page and the tables differ.
     To write it anew: UPDATE_DOCS=1 cargo test -p tollgate --lib config -->
# Configuration

Tollgate reads one YAML file, named by `--config`. `tollgate check --config FILE` says everything that is wrong with it,
each problem with its field, its line and what to write instead; `tollgate serve` refuses to start on the same problems.
A key that is not listed here is refused, and so is a key written twice.

**References.** `${VAR}` anywhere in a value is replaced by that environment variable, which must be set.
`${file:/absolute/path}` as the whole value is replaced by the content of that file, without the white space around it.
Both are filled in after the file was parsed, so what they hold is always text. Write secrets this way, not into the file.

**Limits.** The file may be 1 MiB large and 64 levels deep. Anchors, aliases and merge keys (`<<`) work as in YAML.
";

const ENVIRONMENT: &str = "
## Environment

| Variable | Default | Meaning |
|---|---|---|
| `CLAUDE_GATEWAY_LOG_LEVEL` | `info` | `debug`, `info`, `warn` or `error`; audit lines are not affected |
| `CLAUDE_GATEWAY_ALLOW_LOOPBACK` | | `1` allows connections to loopback addresses, for tests on one machine |
| `CLAUDE_GATEWAY_DRAIN_TIMEOUT_MS` | `25000` | how long open requests may take to finish after SIGTERM |
| `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` | | the forward proxy of upstream connections, in either letter case; \
`oidc.use_proxy` says whether the identity provider is behind it too |
| `CLAUDE_GATEWAY_PROXY_IS_EGRESS_BOUNDARY` | | `1` leaves it to the proxy to resolve host names and to decide where \
connections may go, also for the identity provider unless `oidc.use_proxy: false`. It takes a proxy variable, an empty \
`NO_PROXY`, and loopback that is not allowed; otherwise a warning says what stopped it |
";

const LATER: &str = "
## Known, and not supported by this version

A file that uses one of these is refused with its name, so that nothing is silently left undone.

| Key | What it is for |
|---|---|
";

/// `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = OPENING.to_owned();
    for section in SECTIONS {
        // Writing to a `String` cannot fail.
        let _ = print_section(&mut page, section);
    }
    page.push_str(ENVIRONMENT);
    page.push_str(LATER);
    for section in SECTIONS {
        for later in section.later {
            let dot = if section.path.is_empty() { "" } else { "." };
            let _ = writeln!(page, "| `{}{dot}{}` | {} |", section.path, later.name, later.purpose);
        }
    }
    for (name, purpose) in OTHER_FORMS {
        let _ = writeln!(page, "| {name} | {purpose} |");
    }
    page
}

/// What is known and not built without being a key of its own.
const OTHER_FORMS: &[(&str, &str)] = &[("`oidc` as a list", oidc::LIST.purpose)];

fn print_section(page: &mut String, section: &Section) -> std::fmt::Result {
    match section.path {
        "" => writeln!(page, "\n## The file\n\n{}\n", section.about)?,
        path => writeln!(page, "\n## `{path}`\n\n{}\n", section.about)?,
    }
    writeln!(page, "| Key | Type and rule | Default | Meaning |\n|---|---|---|---|")?;
    for key in section.keys {
        let default = match key.default {
            "" | "required" => key.default.to_owned(),
            default => format!("`{default}`"),
        };
        writeln!(page, "| `{}` | {} | {default} | {} |", key.name, key.form, key.meaning)?;
    }
    Ok(())
}

/// Whether a generated file of `docs/` holds that text; with `UPDATE_DOCS` set it is written first.
#[cfg(test)]
pub(crate) fn is_current(name: &str, text: &str) -> bool {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if option_env!("UPDATE_DOCS").is_some() && std::fs::write(&file, text).is_err() {
        return false;
    }
    std::fs::read_to_string(&file).is_ok_and(|written| written == text)
}

#[cfg(test)]
mod tests {
    use super::{SECTIONS, is_current, markdown};

    #[test]
    fn the_page_in_the_docs_is_the_one_the_tables_make() {
        assert!(is_current("configuration.md", &markdown()), "stale: run this test with UPDATE_DOCS=1");
    }

    #[test]
    fn no_key_is_listed_twice_in_its_section() {
        for section in SECTIONS {
            let mut names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            names.extend(section.later.iter().map(|later| later.name));
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{}", section.path);
        }
    }
}
