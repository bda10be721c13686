//! Documents: parts of the file that are handed on as JSON, and where in the file their parts stand.

use serde_json::{Map, Value};

use super::number;
use super::read::{Field, all};
use super::tree::{Kind, Style, child};

impl<'a> Field<'a> {
    /// A mapping as JSON, with numbers, booleans and nulls as such.
    pub(super) fn json_object(&self) -> Option<Map<String, Value>> {
        match self.json()? {
            Value::Object(object) => Some(object),
            _ => self.wrong_type("a mapping"),
        }
    }

    fn json(&self) -> Option<Value> {
        match &self.node.kind {
            Kind::Unknown => None,
            Kind::Scalar { .. } if self.node.is_null() => Some(Value::Null),
            Kind::Scalar { text, style: Style::Plain } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(Value::Bool(true)),
                "false" | "False" | "FALSE" => Some(Value::Bool(false)),
                text if number::is_number(text) => {
                    let json = number::json(text);
                    if json.is_none() {
                        self.refuse("JSON has no such number; write an ordinary one, or put quotes around it");
                    }
                    json.map(Value::Number)
                }
                text => Some(Value::String(text.to_owned())),
            },
            Kind::Scalar { text, .. } => Some(Value::String(text.clone())),
            Kind::List(_) => all(self.items()?.iter().map(Self::json)).map(Value::Array),
            Kind::Map(_) => {
                let entries = self.entries()?;
                all(entries.iter().map(|(key, field)| Some(((*key).to_owned(), field.json()?)))).map(Value::Object)
            }
        }
    }

    /// The value under a path such as `permissions.deny[2]`, or the nearest thing above it with the path nevertheless.
    pub(super) fn place(&self, path: &str) -> Self {
        let mut field = self.clone();
        let mut rest = path;
        while !rest.is_empty() {
            let Some((next, left)) = field.step(rest) else { break };
            field = next;
            rest = left.strip_prefix('.').unwrap_or(left);
        }
        field.path = if path.starts_with('[') { format!("{}{path}", self.path) } else { child(&self.path, path) };
        field
    }

    /// The child that `path` begins with, and the rest of it. Keys may hold dots themselves.
    fn step<'p>(&self, path: &'p str) -> Option<(Field<'a>, &'p str)> {
        match &self.node.kind {
            Kind::Map(_) => self.entries()?.into_iter().find_map(|(key, field)| {
                let left = path.strip_prefix(key)?;
                (left.is_empty() || left.starts_with(['.', '['])).then_some((field, left))
            }),
            Kind::List(_) => {
                let (index, left) = path.strip_prefix('[')?.split_once(']')?;
                let index: usize = index.parse().ok()?;
                Some((self.items()?.into_iter().nth(index)?, left))
            }
            _ => None,
        }
    }
}
