//! Lines: where the keys of the file stand, for what is found out about them after it was read.

use std::collections::HashMap;

use super::tree::{Kind, Node, child, item};

/// The line of each key and entry, by its path.
#[derive(Debug, Clone, Default)]
pub struct Lines(HashMap<String, usize>);

impl Lines {
    pub(super) fn of(tree: &Node) -> Self {
        let mut lines = Self::default();
        lines.collect(tree, "");
        lines
    }

    /// The line of what stands at a path such as `managed.policies[0].cli`, or of the nearest thing above it.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn collect(&mut self, node: &Node, path: &str) {
        match &node.kind {
            Kind::Map(entries) => {
                for entry in entries {
                    let below = child(path, &entry.key);
                    self.collect(&entry.value, &below);
                    self.0.insert(below, entry.line);
                }
            }
            Kind::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    let below = item(path, index);
                    self.collect(node, &below);
                    self.0.insert(below, node.line);
                }
            }
            Kind::Scalar { .. } | Kind::Unknown => {}
        }
    }
}
