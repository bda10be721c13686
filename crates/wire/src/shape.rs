//! Shapes: what a document may look like, as data, and what is wrong with one that looks otherwise.
//!
//! Knows types and spelling; knows no key of any document. The tables are JSON files beside their loaders.

mod rule;
mod spelling;
mod table;

use serde_json::{Map, Value};

pub use spelling::{distance, nearest};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth telling the operator.
    Warning,
    /// The document must not be served.
    Error,
}

/// Something to say about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, in dots and brackets: `permissions.deny[2]`.
    pub path: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Finding {
    pub(crate) fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), severity: Severity::Error, message: message.into() }
    }

    pub(crate) fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), severity: Severity::Warning, message: message.into() }
    }
}

/// What a value may look like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Any value: several types, or one that no reference states.
    Anything,
    Bool,
    /// A boolean, also in words: what is stored in a preference store is text.
    Switch,
    Number,
    /// A whole number in these bounds, also in words where a preference store may hold it.
    Integer {
        low: i64,
        high: i64,
        or_text: bool,
    },
    Text,
    /// A permission rule of Claude Code.
    Rule,
    /// A host that may be reached: `*`, `host`, `*.host`, with a port where it is not `*`.
    Host,
    /// One of these words; where it is open, a newer client may know more.
    Choice {
        words: Vec<String>,
        is_open: bool,
    },
    List(Box<Shape>),
    /// One of these.
    Either(Vec<Shape>),
    /// An object whose member `by` says which of these it is.
    Tagged {
        by: String,
        variants: Vec<(String, Shape)>,
    },
    Object(Object),
}

/// An object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Object {
    pub(crate) fields: Vec<Field>,
    /// What members beside the fields hold; `None`: there should be none.
    pub(crate) rest: Option<Box<Shape>>,
    /// A member that is not known is an error, whatever it looks like.
    pub(crate) is_closed: bool,
}

/// A known member of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) is_required: bool,
    pub(crate) shape: Shape,
}

impl Shape {
    /// Adds what is wrong with the value at `path`.
    pub(crate) fn check(&self, path: &str, value: &Value, findings: &mut Vec<Finding>) {
        match self {
            Self::Rule if value.is_string() => rule::check(path, value.as_str().unwrap_or_default(), findings),
            Self::Choice { words, is_open } if value.is_string() => {
                check_choice(path, words, *is_open, value, findings)
            }
            Self::List(inner) => match value {
                Value::Array(items) => {
                    for (place, item) in items.iter().enumerate() {
                        inner.check(&format!("{path}[{place}]"), item, findings);
                    }
                }
                _ => self.refuse(path, findings),
            },
            Self::Either(alternatives) => self.check_either(alternatives, path, value, findings),
            Self::Tagged { by, variants } => match value {
                Value::Object(members) => check_tagged(by, variants, path, members, findings),
                _ => self.refuse(path, findings),
            },
            Self::Object(object) => match value {
                Value::Object(members) => object.check(path, members, findings),
                _ => self.refuse(path, findings),
            },
            simple if simple.accepts(value) => {}
            _ => self.refuse(path, findings),
        }
    }

    /// Whether a value has the type, as far as one can see without looking into it.
    fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Anything => true,
            Self::Bool => value.is_boolean(),
            Self::Switch => value.is_boolean() || matches!(value.as_str(), Some("true" | "false" | "1" | "0")),
            Self::Number => value.is_number(),
            Self::Integer { low, high, or_text } => {
                let written = value.as_str().filter(|_| *or_text).and_then(|text| text.parse().ok());
                value.as_i64().or(written).is_some_and(|number| (*low..=*high).contains(&number))
            }
            Self::Text | Self::Rule | Self::Choice { .. } => value.is_string(),
            Self::Host => value.as_str().is_some_and(rule::is_host),
            Self::List(_) => value.is_array(),
            Self::Tagged { .. } | Self::Object(_) => value.is_object(),
            Self::Either(alternatives) => alternatives.iter().any(|alternative| alternative.accepts(value)),
        }
    }

    fn refuse(&self, path: &str, findings: &mut Vec<Finding>) {
        findings.push(Finding::error(path, format!("must be {}", self.one())));
    }

    /// What is wrong with a value that fits none of the alternatives is what is wrong with it as the one it comes nearest to.
    fn check_either(&self, alternatives: &[Self], path: &str, value: &Value, findings: &mut Vec<Finding>) {
        let tried = alternatives.iter().filter(|alternative| alternative.accepts(value)).map(|alternative| {
            let mut found = Vec::new();
            alternative.check(path, value, &mut found);
            found
        });
        let errors = |found: &Vec<Finding>| found.iter().filter(|f| f.severity == Severity::Error).count();
        match tried.min_by_key(errors) {
            Some(found) => findings.extend(found),
            None => self.refuse(path, findings),
        }
    }

    /// The type in words, to follow "must be".
    fn one(&self) -> String {
        match self {
            Self::Anything => "any value".to_owned(),
            Self::Bool | Self::Switch => "true or false".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Integer { low: i64::MIN, high: i64::MAX, .. } => "a whole number".to_owned(),
            Self::Integer { low, high: i64::MAX, .. } => format!("a whole number from {low}"),
            Self::Integer { low, high, .. } => format!("a whole number from {low} to {high}"),
            Self::Text => "a string".to_owned(),
            Self::Rule => "a permission rule, such as Bash(npm run test:*)".to_owned(),
            Self::Host => {
                "a host, such as api.example.com, *.example.com:8443 or *, without scheme and path".to_owned()
            }
            Self::Choice { words, .. } => words.join(" or "),
            Self::List(inner) => format!("a list of {}", inner.many()),
            Self::Either(alternatives) => {
                let mut words: Vec<String> = alternatives.iter().map(Self::one).collect();
                words.dedup();
                words.join(" or ")
            }
            Self::Tagged { .. } | Self::Object(_) => "an object".to_owned(),
        }
    }

    fn many(&self) -> &'static str {
        match self {
            Self::Bool | Self::Switch => "booleans",
            Self::Number | Self::Integer { .. } => "numbers",
            Self::Text | Self::Choice { .. } => "strings",
            Self::Rule => "permission rules",
            Self::Host => "hosts",
            Self::Tagged { .. } | Self::Object(_) => "objects",
            Self::Anything | Self::List(_) | Self::Either(_) => "values",
        }
    }
}

impl Object {
    pub(crate) fn find(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    fn check(&self, path: &str, members: &Map<String, Value>, findings: &mut Vec<Finding>) {
        for field in self.fields.iter().filter(|field| field.is_required && !members.contains_key(&field.name)) {
            findings.push(Finding::error(path, format!("needs {}, {}", field.name, field.shape.one())));
        }
        for (key, value) in members {
            let below = format!("{path}.{key}");
            match (self.find(key), &self.rest) {
                (Some(field), _) => field.shape.check(&below, value, findings),
                (None, rest) => {
                    if let Some(finding) = self.unknown(&below, key, rest.is_some()) {
                        findings.push(finding);
                    } else if let Some(rest) = rest {
                        rest.check(&below, value, findings);
                    }
                }
            }
        }
    }

    /// A typo is refused, because what it was meant to say would silently not apply; a key of a newer client is not.
    fn unknown(&self, path: &str, key: &str, is_free: bool) -> Option<Finding> {
        if let Some(meant) = nearest(key, self.fields.iter().map(|field| field.name.as_str())) {
            return Some(Finding::error(path, format!("is not known here; did you mean {meant}?")));
        }
        if is_free {
            return None;
        }
        Some(if self.is_closed {
            Finding::error(path, "is not known here; leave it out")
        } else {
            Finding::warning(path, "is not a key this version knows; it is served as it is")
        })
    }
}

fn check_tagged(
    by: &str,
    variants: &[(String, Shape)],
    path: &str,
    members: &Map<String, Value>,
    findings: &mut Vec<Finding>,
) {
    let names: Vec<String> = variants.iter().map(|(name, _)| name.clone()).collect();
    let Some(tag) = members.get(by) else {
        findings.push(Finding::error(path, format!("needs {by}: {}", names.join(" or "))));
        return;
    };
    let below = format!("{path}.{by}");
    let Some((_, shape)) = variants.iter().find(|(name, _)| tag == name.as_str()) else {
        match tag {
            Value::String(_) => findings.push(Finding::error(below, format!("must be {}", names.join(" or ")))),
            _ => findings.push(Finding::error(below, "must be a string")),
        }
        return;
    };
    let mut rest = members.clone();
    rest.remove(by);
    shape.check(path, &Value::Object(rest), findings);
}

fn check_choice(path: &str, words: &[String], is_open: bool, value: &Value, findings: &mut Vec<Finding>) {
    let word = value.as_str().unwrap_or_default();
    if words.iter().any(|known| known == word) {
        return;
    }
    let shown: String = word.chars().take(80).collect();
    findings.push(match nearest(word, words.iter().map(String::as_str)) {
        Some(meant) => Finding::error(path, format!("{shown:?} is not known here; did you mean {meant}?")),
        None if is_open => {
            Finding::warning(path, format!("{shown:?} is not a word this version knows; it is served as it is"))
        }
        None => Finding::error(path, format!("must be {}", words.join(" or "))),
    });
}
