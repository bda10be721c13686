//! Whether an answer is what an OpenAPI document says: as much of JSON Schema as ours uses, and stricter, because an
//! object may hold nothing that the document does not name.

use serde_json::{Value, json};

use crate::support::http::Reply;

pub(crate) struct Document(pub(crate) Value);

impl Document {
    /// Whether the document knows this answer of an operation: its status, its kind and its body.
    pub(crate) fn holds(&self, method: &str, path: &str, reply: &Reply) -> Result<(), String> {
        let responses = &self.0["paths"][path][method]["responses"];
        let response = self.followed(&responses[reply.status.as_str()]);
        let kind = reply.header("content-type").and_then(|kind| kind.split(';').next()).unwrap_or_default();
        let content = response["content"].get(kind);
        let content = content.ok_or_else(|| format!("{} with {kind:?} is not in the document", reply.status))?;
        if kind == "text/csv" { Ok(()) } else { self.fits(&content["schema"], &reply.json()) }
    }

    /// The first thing that is wrong with a value.
    pub(crate) fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.followed(schema);
        let fault = |what: &str| Err(format!("{value} is not {what}"));
        if let Some(choices) = schema["oneOf"].as_array() {
            let fitting = choices.iter().filter(|choice| self.fits(choice, value).is_ok()).count();
            return if fitting == 1 { Ok(()) } else { fault(&format!("one of {choices:?}, but {fitting}")) };
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return fault(&schema["const"].to_string());
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            return fault(&schema["enum"].to_string());
        }
        let types = match &schema["type"] {
            Value::Array(types) => types.clone(),
            Value::Null => vec![],
            one => vec![one.clone()],
        };
        if !types.is_empty() && !types.contains(&json!(type_of(value))) {
            return fault(&schema["type"].to_string());
        }
        for field in schema["required"].as_array().into_iter().flatten() {
            if value.get(field.as_str().unwrap()).is_none() {
                return fault(&format!("complete without {field}"));
            }
        }
        for (name, field) in value.as_object().into_iter().flatten() {
            match (&schema["properties"], schema["properties"].get(name)) {
                (_, Some(property)) => self.fits(property, field)?,
                (Value::Null, None) => {}
                (_, None) => return fault(&format!("known to have {name}")),
            }
        }
        value.as_array().into_iter().flatten().try_for_each(|item| self.fits(&schema["items"], item))
    }

    fn followed<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
