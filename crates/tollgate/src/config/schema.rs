//! The schema: the reference as JSON Schema, for editors that complete and check while one writes.
//!
//! Made of the same tables. Looser than the readers, which have the last word: any value may also be a `${...}` reference.

use serde_json::{Map, Value, json};

use super::reference::{Key, SECTIONS, Section};
use super::root;

/// `docs/config.schema.json`.
#[must_use]
pub fn schema() -> String {
    let Value::Object(mut schema) = object(&root::SECTION) else { return String::new() };
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "gateway.yaml of Tollgate".into());
    format!("{:#}\n", Value::Object(schema))
}

fn object(section: &Section) -> Value {
    let properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(section, key))).collect();
    let required: Vec<&str> = section.keys.iter().filter(|key| key.default == "required").map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": section.about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(section: &Section, key: &Key) -> Value {
    let mut value = value(section, key);
    if let Value::Object(value) = &mut value {
        value.insert("description".to_owned(), format!("{} ({})", key.meaning, key.form).into());
    }
    value
}

fn value(section: &Section, key: &Key) -> Value {
    // The first place will do: sections that stand in two places are alike.
    let place = section.path.split(", ").next().unwrap_or_default();
    let path = if place.is_empty() { key.name.to_owned() } else { format!("{place}.{}", key.name) };
    let at = |path: &str| SECTIONS.iter().find(|section| section.path.split(", ").any(|place| place == path));
    if let Some(below) = at(&path) {
        return object(below);
    }
    if let Some(item) = at(&format!("{path}[]")) {
        return json!({ "type": "array", "items": object(item) });
    }
    let text_or_texts = json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
    match key.form {
        form if form.contains("or a list of") => text_or_texts,
        form if form.starts_with("list") => json!({ "type": "array", "items": { "type": "string" } }),
        form if form.starts_with("mapping of") => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        form if form.starts_with("mapping") => json!({ "type": "object" }),
        form if form.starts_with("boolean") => json!({ "type": "boolean" }),
        form if form.starts_with("number") => json!({ "type": ["number", "string"] }),
        form if form.starts_with("whole number") => json!({ "type": ["integer", "string"] }),
        _ => json!({ "type": "string" }),
    }
}

#[cfg(test)]
mod tests {
    use super::schema;
    use crate::config::reference::is_current;

    #[test]
    fn the_schema_in_the_docs_is_the_one_the_tables_make() {
        assert!(is_current("config.schema.json", &schema()), "stale: run this test with UPDATE_DOCS=1");
    }

    #[test]
    fn numbers_booleans_lists_and_mappings_are_told_apart() {
        let schema: serde_json::Value = schema().parse().unwrap_or_default();
        for (pointer, expected) in [
            ("/required", r#"["listen","oidc","session","upstreams"]"#),
            ("/properties/listen/properties/port/type", r#"["integer","string"]"#),
            ("/properties/oidc/properties/use_pkce/type", r#""boolean""#),
            ("/properties/upstreams/items/properties/auth/properties/api_key/type", r#""string""#),
            ("/properties/admin/properties/read_keys/items/required", r#"["id","key"]"#),
            ("/properties/managed/properties/policies/items/properties/cli/type", r#""object""#),
            ("/properties/rate_limits/properties/device_verify/properties/max/type", r#"["integer","string"]"#),
            ("/properties/pricing/properties/overrides/items/properties/input/type", r#"["number","string"]"#),
            ("/properties/session/properties/jwt_secret/anyOf/1/type", r#""array""#),
        ] {
            assert_eq!(schema.pointer(pointer).map(ToString::to_string).as_deref(), Some(expected), "{pointer}");
        }
    }
}
