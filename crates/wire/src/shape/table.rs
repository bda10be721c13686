//! The loader of tables: shapes as JSON.
//!
//! `"bool"`, `"switch"`, `"number"`, `"integer"`, `"integer 1..72"`, `"count 1..72"` (also in words), `"text"`, `"rule"`, `"host"`, `"any"`;
//! `["text"]` is a list; `{"choice": [..]}` words and `{"open": [..]}` words among others, `{"either": [..]}` shapes; `{"by": "type", "variants": {..}}` is an object that says
//! what it is; `{"fields": {"name!": ..}, "rest": .., "closed": true}` is an object, `!` marks what must be there. Any other
//! word is a shape that the file names.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Field, Object, Shape};

/// Shapes that a file names, by their names.
#[derive(Debug, Default)]
struct Names(HashMap<String, Shape>);

impl Object {
    /// A document, as its file lists its keys with the shapes that it names.
    pub(crate) fn read(named: &Map<String, Value>, keys: Map<String, Value>) -> Result<Self, String> {
        Names::read(named)?.object(&Map::from_iter([("fields".to_owned(), Value::Object(keys))]))
    }
}

impl Names {
    /// Reads the shapes that the others are written with; they may use those before them.
    fn read(named: &Map<String, Value>) -> Result<Self, String> {
        let mut names = Self::default();
        for (name, shape) in named {
            let shape = names.shape(shape)?;
            names.0.insert(name.clone(), shape);
        }
        Ok(names)
    }

    /// Reads a shape.
    fn shape(&self, written: &Value) -> Result<Shape, String> {
        match written {
            Value::String(word) => self.word(word),
            Value::Array(items) => match items.as_slice() {
                [item] => Ok(Shape::List(Box::new(self.shape(item)?))),
                _ => Err(format!("{written} is not a list of one shape")),
            },
            Value::Object(members) => self.compound(members).ok_or_else(|| format!("{written} is no shape"))?,
            _ => Err(format!("{written} is no shape")),
        }
    }

    fn word(&self, word: &str) -> Result<Shape, String> {
        let (kind, bounds) = word.split_once(' ').unwrap_or((word, ".."));
        let (low, high) = bounds.split_once("..").ok_or_else(|| format!("{word:?}: bounds are low..high"))?;
        let bound = |text: &str, none: i64| if text.is_empty() { Ok(none) } else { text.parse() };
        let bounds = || -> Result<(i64, i64), String> {
            let wrong = |error: std::num::ParseIntError| format!("{word:?}: {error}");
            Ok((bound(low, i64::MIN).map_err(wrong)?, bound(high, i64::MAX).map_err(wrong)?))
        };
        Ok(match kind {
            "any" => Shape::Anything,
            "bool" => Shape::Bool,
            "switch" => Shape::Switch,
            "number" => Shape::Number,
            "integer" => bounds().map(|(low, high)| Shape::Integer { low, high, or_text: false })?,
            "count" => bounds().map(|(low, high)| Shape::Integer { low, high, or_text: true })?,
            "text" => Shape::Text,
            "rule" => Shape::Rule,
            "host" => Shape::Host,
            name => self.0.get(name).cloned().ok_or_else(|| format!("{name:?} is not named"))?,
        })
    }

    fn compound(&self, members: &Map<String, Value>) -> Option<Result<Shape, String>> {
        for (key, is_open) in [("choice", false), ("open", true)] {
            if let Some(words) = members.get(key) {
                let words = words.as_array()?.iter().map(|word| word.as_str().map(str::to_owned));
                return Some(Ok(Shape::Choice { words: words.collect::<Option<_>>()?, is_open }));
            }
        }
        if let Some(alternatives) = members.get("either") {
            let alternatives = alternatives.as_array()?.iter().map(|shape| self.shape(shape));
            return Some(alternatives.collect::<Result<_, _>>().map(Shape::Either));
        }
        if let Some(by) = members.get("by") {
            let by = by.as_str()?.to_owned();
            let variants = members.get("variants")?.as_object()?.iter();
            let variants = variants.map(|(name, shape)| Ok((name.clone(), self.shape(shape)?)));
            return Some(variants.collect::<Result<_, _>>().map(|variants| Shape::Tagged { by, variants }));
        }
        if members.keys().any(|key| !matches!(key.as_str(), "fields" | "rest" | "closed")) {
            return None;
        }
        Some(self.object(members).map(Shape::Object))
    }

    /// Reads `fields`, `rest` and `closed`.
    fn object(&self, members: &Map<String, Value>) -> Result<Object, String> {
        let fields = members.get("fields").and_then(Value::as_object).into_iter().flatten();
        let fields = fields.map(|(name, shape)| {
            let (bare, is_required) = name.strip_suffix('!').map_or((name.as_str(), false), |bare| (bare, true));
            Ok::<_, String>(Field { name: bare.to_owned(), is_required, shape: self.shape(shape)? })
        });
        Ok(Object {
            fields: fields.collect::<Result<_, _>>()?,
            rest: members.get("rest").map(|rest| self.shape(rest)).transpose()?.map(Box::new),
            is_closed: members.get("closed") == Some(&Value::Bool(true)),
        })
    }
}
