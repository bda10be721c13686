//! Secrets: `${VAR}` and `${file:/path}` in the values of the tree.
//!
//! Runs after parsing, so that what a secret holds can never become syntax. Knows the environment and the file system;
//! knows no key. Never shows what it read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Environment;
use super::problem::Report;
use super::tree::{Entry, Kind, Node, Style, child, item};

/// Fills in every reference below `node`. One that cannot be is reported, and its value becomes unknown.
pub(super) fn expand(node: &mut Node, environment: &Environment, report: &Report) {
    expand_at(node, "", node.line, environment, report);
}

/// Longer than any key, certificate or token.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

fn expand_at(node: &mut Node, path: &str, line: usize, environment: &Environment, report: &Report) {
    match &mut node.kind {
        Kind::Scalar { text, style } => match expanded(text, environment) {
            Ok(None) => {}
            Ok(Some(value)) => (*text, *style) = (value, Style::Expanded),
            Err(message) => {
                report.problem(path, Some(line), message);
                node.kind = Kind::Unknown;
            }
        },
        Kind::List(items) => {
            for (index, value) in items.iter_mut().enumerate() {
                let line = value.line;
                expand_at(value, &item(path, index), line, environment, report);
            }
        }
        Kind::Map(entries) => {
            for Entry { key, line, value } in entries {
                expand_at(value, &child(path, key), *line, environment, report);
            }
        }
        Kind::Unknown => {}
    }
}

/// The text with its references filled in; `None` when there is none in it.
fn expanded(text: &str, environment: &Environment) -> Result<Option<String>, String> {
    if let Some(file) = text.strip_prefix("${file:").and_then(|rest| rest.strip_suffix('}'))
        && !file.contains('}')
    {
        return read(Path::new(file)).map(Some);
    }
    let mut filled = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let reference = match after.split_once('}') {
            Some((inside, tail)) => variable(inside)?.map(|name| (name, tail)),
            None => None,
        };
        let Some((name, tail)) = reference else {
            // Not a reference: `${` is text like any other.
            filled.push_str("${");
            rest = after;
            continue;
        };
        let value = environment.get(name).ok_or_else(|| {
            format!("the environment variable {name} is not set; set it for the gateway, or write the value here")
        })?;
        filled.push_str(value);
        found = true;
        rest = tail;
    }
    filled.push_str(rest);
    Ok(found.then_some(filled))
}

/// The name of the variable in `${inside}`; `None` when that is ordinary text.
fn variable(inside: &str) -> Result<Option<&str>, String> {
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    match rest.chars().next() {
        None => Ok(Some(name)),
        Some(':') if name == "file" => {
            Err("${file:...} must be the whole value; put the complete text into the file".to_owned())
        }
        Some(':' | '-' | '=' | '?' | '+') => {
            Err(format!("${{{name}...}} knows no default and no test; write ${{{name}}} and set the variable"))
        }
        Some(_) => Ok(None),
    }
}

fn read(file: &Path) -> Result<String, String> {
    if !file.is_absolute() {
        return Err("${file:...} needs an absolute path; write one such as ${file:/run/secrets/key}".to_owned());
    }
    let cannot = |error| format!("the file {} cannot be read: {error}", file.display());
    let mut content = String::new();
    File::open(file).and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut content)).map_err(cannot)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("the file {} is too large for a value", file.display()));
    }
    Ok(content.trim().to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::expanded;
    use crate::config::Environment;

    fn environment() -> Environment {
        Environment::from_pairs([("KEY", "s3cret"), ("lower", "x"), ("EMPTY", ""), ("TRAP", "a: ${KEY} # b")])
    }

    #[test]
    fn a_reference_is_filled_in_wherever_it_stands() {
        for (text, value) in [
            ("${KEY}", "s3cret"),
            ("Bearer ${KEY}", "Bearer s3cret"),
            ("${KEY}/${lower}.", "s3cret/x."),
            ("${EMPTY}", ""),
            ("a${b ${KEY}", "a${b s3cret"),
            ("$${KEY}", "$s3cret"),
        ] {
            assert_eq!(expanded(text, &environment()), Ok(Some(value.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_a_variable_holds_is_not_expanded_again() {
        assert_eq!(expanded("${TRAP}", &environment()), Ok(Some("a: ${KEY} # b".to_owned())));
    }

    #[test]
    fn text_that_is_no_reference_stays_as_it_is() {
        for text in ["a$b$$c", "a${", "${}", "${1}", "${a.b}", "$KEY", "${ KEY }", "}${"] {
            assert_eq!(expanded(text, &environment()), Ok(None), "{text}");
        }
    }

    #[test]
    fn a_reference_that_cannot_be_filled_in_says_why() {
        for (text, part) in [
            ("${NOPE}", "NOPE is not set"),
            ("x${KEY:-y}", "knows no default"),
            ("${KEY-y}", "knows no default"),
            ("x ${file:/etc/hostname}", "must be the whole value"),
            ("${file:relative}", "absolute path"),
            ("${file:/nonexistent/tollgate}", "cannot be read"),
            ("${file:/dev/zero}", "too large"),
        ] {
            let message = expanded(text, &environment()).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_file_is_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "\n s3cret \n").unwrap();
        let text = format!("${{file:{}}}", file.display());
        assert_eq!(expanded(&text, &environment()), Ok(Some("s3cret".to_owned())));
    }
}
