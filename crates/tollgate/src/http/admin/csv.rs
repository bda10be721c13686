//! Tables as CSV (RFC 4180): one header line, then one line per row.

use serde_json::{Map, Value};

/// An object without objects in it: their members stand in their place, named with a dot.
pub(super) fn flat(object: Map<String, Value>) -> Map<String, Value> {
    let mut flat = Map::new();
    for (name, value) in object {
        match value {
            Value::Object(inner) => flat.extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value))),
            value => drop(flat.insert(name, value)),
        }
    }
    flat
}

/// The rows, whose columns are those of the first; nothing at all without rows.
pub(super) fn table(rows: impl Iterator<Item = Map<String, Value>>) -> String {
    let mut text = String::new();
    for (index, row) in rows.enumerate() {
        if index == 0 {
            line(&mut text, row.keys().map(|name| Value::String(name.clone())));
        }
        line(&mut text, row.into_iter().map(|(_, value)| value));
    }
    text
}

fn line(text: &mut String, cells: impl Iterator<Item = Value>) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push(',');
        }
        match cell {
            Value::Null => {}
            Value::String(word) => text.push_str(&quoted(word)),
            other => text.push_str(&other.to_string()),
        }
    }
    text.push_str("\r\n");
}

/// What a name from outside begins with must not make a spreadsheet take it for a formula.
fn quoted(word: String) -> String {
    let word = if word.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{word}") } else { word };
    if word.contains([',', '"', '\r', '\n']) { format!("\"{}\"", word.replace('"', "\"\"")) } else { word }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_a_header_and_quotes_what_would_break_it() {
        let row = |name: &str| match json!({"name": name, "none": null, "of": {"a": 1, "b": 2}}) {
            Value::Object(row) => flat(row),
            _ => Map::new(),
        };
        let rows = [row("plain"), row("a,\"b\""), row("=1+1"), row("-x")];
        let expected = "name,none,of.a,of.b\r\nplain,,1,2\r\n\"a,\"\"b\"\"\",,1,2\r\n'=1+1,,1,2\r\n'-x,,1,2\r\n";
        assert_eq!(table(rows.into_iter()), expected);
        assert_eq!(table(std::iter::empty()), "");
    }
}
