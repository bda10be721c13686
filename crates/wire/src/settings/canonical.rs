//! The text a checksum is taken of.

use serde_json::{Number, Value};

/// The text whose SHA-256 is the checksum: keys sorted at every level, no white space, non-ASCII raw, the same bytes as
/// Python's `json.dumps(value, sort_keys=True, separators=(',', ':'), ensure_ascii=False)`.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) => write_number(text, number),
        Value::Array(elements) => write_list(text, ['[', ']'], elements, write_value),
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            write_list(text, ['{', '}'], &sorted, |text, (key, value)| {
                write_string(text, key);
                text.push(':');
                write_value(text, value);
            });
        }
        Value::String(string) => write_string(text, string),
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
    }
}

fn write_list<T>(text: &mut String, [open, close]: [char; 2], items: &[T], mut write: impl FnMut(&mut String, &T)) {
    text.push(open);
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        write(text, item);
    }
    text.push(close);
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\0'..='\u{1f}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => text.push(other),
        }
    }
    text.push('"');
}

/// Whole numbers as they are; others as Python's `repr`: the shortest digits that read back the same, with an exponent of
/// at least two digits below 0.0001 and from 1e16 on.
fn write_number(text: &mut String, number: &Number) {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return text.push_str(&number.to_string());
    };
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        text.push_str(&format!("{float:?}"));
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        text.push_str(&format!("{mantissa}e{sign}{:02}", exponent.abs()));
    }
}
