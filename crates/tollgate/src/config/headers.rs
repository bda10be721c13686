//! Headers that the operator adds to requests of ours.

use http::{HeaderName, HeaderValue};

use super::read::{Field, all};

/// A mapping of header names to values. `reserved` says which names, in lower case, are not the operator's to set.
pub(super) fn read(field: &Field<'_>, reserved: fn(&str) -> bool) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let headers: Vec<(HeaderName, HeaderValue)> = all(field.entries()?.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok();
        let text = value.text();
        match &name {
            None => value.refuse("the name must be an HTTP token: letters, digits and hyphens"),
            Some(name) if reserved(name.as_str()) => value.refuse("the gateway sets this header itself; leave it out"),
            Some(_) => {}
        }
        let name = name.filter(|name| !reserved(name.as_str()));
        Some((name?, read_value(value, text?)?))
    }))?;
    for (index, (name, _)) in headers.iter().enumerate() {
        if headers[..index].iter().any(|(earlier, _)| earlier == name) {
            field.refuse(format!("{name} is written twice in different letter case; keep one"));
            return None;
        }
    }
    Some(headers)
}

fn read_value(field: &Field<'_>, text: &str) -> Option<HeaderValue> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
    match HeaderValue::from_str(text) {
        Ok(mut value) if printable => {
            // Kept out of logs: such headers often carry tokens.
            value.set_sensitive(true);
            Some(value)
        }
        _ => {
            field.refuse("must be printable ASCII without spaces at its ends");
            None
        }
    }
}
