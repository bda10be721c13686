//! The keys of Claude Desktop's managed configuration: the loader of `keys.json`, and what is wrong with a document.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::shape::{Finding, Object, nearest};

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test loads it")]
static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("keys.json")).expect("keys.json is valid"));

/// Everything wrong or doubtful in the keys of `desktop`.
#[must_use]
pub fn check(document: &Map<String, Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, value) in document {
        match TABLE.keys.find(key) {
            Some(field) => field.shape.check(key, value, &mut findings),
            None => findings.push(TABLE.not_deliverable(key)),
        }
    }
    if document.get("banner").is_some_and(|banner| banner.get("text").is_some() && !is_on(&banner["enabled"])) {
        findings.push(Finding::warning("banner.text", "is shown nowhere, because the banner is not enabled"));
    }
    findings
}

fn is_on(value: &Value) -> bool {
    matches!(value, Value::Bool(true)) || matches!(value.as_str(), Some("true" | "1"))
}

/// The whole file.
#[derive(Debug)]
struct Table {
    keys: Object,
    /// Desktop reads these only from what is installed on the machine.
    on_machines: Vec<String>,
    /// The gateway fills these in.
    by_the_gateway: Vec<String>,
    /// Older names.
    renamed: HashMap<String, String>,
    /// Sections of another form of the same configuration.
    nested: Vec<String>,
    /// Keys of gateway.yaml, which stand here by a slip of the indentation.
    of_the_file: Vec<String>,
}

impl Table {
    fn read(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(rename = "source")]
            _source: String,
            #[serde(rename = "date")]
            _date: String,
            named: Map<String, Value>,
            keys: Map<String, Value>,
            on_machines: Vec<String>,
            by_the_gateway: Vec<String>,
            renamed: HashMap<String, String>,
            nested: Vec<String>,
            of_the_file: Vec<String>,
        }
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self {
            keys: Object::read(&file.named, file.keys)?,
            on_machines: file.on_machines,
            by_the_gateway: file.by_the_gateway,
            renamed: file.renamed,
            nested: file.nested,
            of_the_file: file.of_the_file,
        })
    }

    fn not_deliverable(&self, key: &str) -> Finding {
        let is_in = |names: &[String]| names.iter().any(|name| name == key);
        if is_in(&self.on_machines) {
            let message = "Claude Desktop reads this only from what is installed on the machine; set it there";
            return Finding::error(key, message);
        }
        if is_in(&self.by_the_gateway) {
            return Finding::error(key, "the gateway fills this in by itself; leave it out");
        }
        if is_in(&self.of_the_file) {
            return Finding::error(key, "is a key of this file and not of Claude Desktop; check the indentation");
        }
        if is_in(&self.nested) {
            return Finding::error(key, "is a section of another form of this configuration; write the flat keys");
        }
        if let Some(name) = self.renamed.get(key) {
            return Finding::error(key, format!("is the older name of {name}; write that"));
        }
        if let Some(meant) = nearest(key, self.keys.fields.iter().map(|field| field.name.as_str())) {
            return Finding::error(key, format!("is not a key of Claude Desktop; did you mean {meant}?"));
        }
        if key.starts_with("inference") {
            return Finding::error(key, "follows from `upstreams` and `models`; leave it out");
        }
        if !key.is_ascii() {
            return Finding::error(key, "holds letters outside ASCII, and no key of Claude Desktop does");
        }
        Finding::warning(key, "is not a key of Claude Desktop that this version knows; it is served as it is")
    }
}
