//! The keys of a Claude Code settings document: the loader of `keys.json`, which says where they come from.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::shape::Object;

/// How a policy's value meets the base's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeKind {
    /// The policy's value stands alone.
    Replace,
    /// The base's entries, then the policy's new ones.
    Union,
    /// Member by member.
    Shallow,
    /// Member by member, `deny` and `ask` united.
    Permissions,
    /// Event by event, each united.
    Hooks,
}

/// The whole file.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) keys: Object,
    merge: HashMap<String, MergeKind>,
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test loads it")]
pub(super) static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::read(include_str!("keys.json")).expect("keys.json is valid"));

/// How a policy's value of that top-level key meets the base's (contract A9). Unknown keys are replaced whole.
#[must_use]
pub fn merge_of(key: &str) -> MergeKind {
    TABLE.merge.get(key).copied().unwrap_or(MergeKind::Replace)
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
            merge: HashMap<String, MergeKind>,
            named: Map<String, Value>,
            keys: Map<String, Value>,
        }
        let File { merge, named, keys, .. } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let keys = Object::read(&named, keys)?;
        if let Some(stray) = merge.keys().find(|key| keys.find(key).is_none()) {
            return Err(format!("{stray} is merged and not a key"));
        }
        Ok(Self { keys, merge })
    }
}
