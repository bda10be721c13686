//! Reading: typed access to the tree. Whatever is wrong is reported, and the reading goes on.
//!
//! Knows how values are written; knows no key. A reader that returns `None` has reported why, or found the value unknown.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use url::Url;

use super::number;
use super::problem::{Report, did_you_mean};
use super::reference::Section;
use super::tree::{Entry, Kind, Node, Style, child, item};

/// A mapping whose keys are known.
#[derive(Debug, Clone)]
pub(super) struct Mapping<'a> {
    path: String,
    line: Option<usize>,
    entries: &'a [Entry],
    report: &'a Report,
}

/// A value that is there, with its place.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) node: &'a Node,
    report: &'a Report,
}

impl<'a> Mapping<'a> {
    /// The file as a whole.
    pub(super) fn root(node: &'a Node, section: &Section, report: &'a Report) -> Option<Self> {
        let root = Field { path: String::new(), line: node.line, node, report };
        let Kind::Map(entries) = &node.kind else {
            root.refuse("the file must be a mapping of sections, such as listen, oidc and upstreams");
            return None;
        };
        let mapping = Mapping { path: String::new(), line: None, entries, report };
        mapping.check_keys(section);
        Some(mapping)
    }

    /// The value of an optional key.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Field { path: child(&self.path, key), line: entry.line, node: &entry.value, report: self.report })
    }

    /// The value of a key that must be there.
    pub(super) fn required<T>(
        &self,
        key: &str,
        purpose: &str,
        read: impl FnOnce(&Field<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(field) => read(&field),
            None => {
                self.missing(key, purpose);
                None
            }
        }
    }

    /// The value of a key, or the default when it is left out.
    pub(super) fn or<T>(&self, key: &str, default: T, read: impl FnOnce(&Field<'a>) -> Option<T>) -> Option<T> {
        self.get(key).map_or(Some(default), |field| read(&field))
    }

    /// The value of a key that may be left out: `Some(None)` when it is, `None` when it could not be read.
    pub(super) fn maybe<T>(&self, key: &str, read: impl FnOnce(&Field<'a>) -> Option<T>) -> Option<Option<T>> {
        self.or(key, None, |field| read(field).map(Some))
    }

    /// Reports that a key is not there.
    pub(super) fn missing(&self, key: &str, purpose: &str) {
        self.report.problem(&child(&self.path, key), self.line, format!("missing; {purpose}"));
    }

    /// Reports something about the mapping as a whole.
    pub(super) fn refuse(&self, message: &str) {
        self.report.problem(&self.path, self.line, message);
    }

    fn check_keys(&self, section: &Section) {
        for Entry { key, line, .. } in self.entries {
            let say = |message: String| self.report.problem(&child(&self.path, key), Some(*line), message);
            if section.keys.iter().any(|known| known.name == key) {
                continue;
            }
            if let Some(later) = section.later.iter().find(|later| later.name == key) {
                say(format!("{}; leave it out", later.refusal()));
                continue;
            }
            let names = || section.keys.iter().map(|known| known.name);
            match did_you_mean(key, names().chain(section.later.iter().map(|later| later.name))) {
                Some(meant) => say(format!("unknown key; did you mean {meant}?")),
                None => say(format!("unknown key; the keys here are {}", names().collect::<Vec<_>>().join(", "))),
            }
        }
    }
}

impl<'a> Field<'a> {
    /// Reports what is wrong with the value, in one sentence that says what to write.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.report.problem(&self.path, Some(self.line), message);
    }

    /// Reports what the operator should know of the value.
    pub(super) fn warn(&self, message: impl Into<String>) {
        self.report.warning(&self.path, Some(self.line), message);
    }

    /// The whole of another file.
    pub(super) fn of_file(node: &'a Node, report: &'a Report) -> Self {
        Self { path: String::new(), line: node.line, node, report }
    }

    /// A mapping with the keys of `section`.
    pub(super) fn mapping(&self, section: &Section) -> Option<Mapping<'a>> {
        let Kind::Map(entries) = &self.node.kind else {
            return self.wrong_type("a mapping");
        };
        let mapping = Mapping { path: self.path.clone(), line: Some(self.line), entries, report: self.report };
        mapping.check_keys(section);
        Some(mapping)
    }

    /// A key below, when this is a mapping that has it; for a look before it is read.
    pub(super) fn below(&self, key: &str) -> Option<Field<'a>> {
        let Kind::Map(entries) = &self.node.kind else { return None };
        let Entry { line, value, .. } = entries.iter().find(|entry| entry.key == key)?;
        Some(Field { path: child(&self.path, key), line: *line, node: value, report: self.report })
    }

    /// A mapping with keys of the operator's choice.
    pub(super) fn entries(&self) -> Option<Vec<(&'a str, Field<'a>)>> {
        let Kind::Map(entries) = &self.node.kind else {
            return self.wrong_type("a mapping");
        };
        let field = |entry: &'a Entry| Field {
            path: child(&self.path, &entry.key),
            line: entry.line,
            node: &entry.value,
            report: self.report,
        };
        Some(entries.iter().map(|entry| (entry.key.as_str(), field(entry))).collect())
    }

    /// Whether it is a list, for keys that may be one.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    pub(super) fn items(&self) -> Option<Vec<Field<'a>>> {
        let Kind::List(items) = &self.node.kind else {
            return self.wrong_type("a list");
        };
        let field = |(index, node): (usize, &'a Node)| Field {
            path: item(&self.path, index),
            line: node.line,
            node,
            report: self.report,
        };
        Some(items.iter().enumerate().map(field).collect())
    }

    /// A list with something in it.
    pub(super) fn some_items(&self, of_what: &str) -> Option<Vec<Field<'a>>> {
        let items = self.items()?;
        if items.is_empty() {
            self.refuse(format!("an empty list; name at least one {of_what}, or leave the key out"));
            return None;
        }
        Some(items)
    }

    /// A list of texts with something in it.
    pub(super) fn some_texts(&self, of_what: &str) -> Option<Vec<String>> {
        all(self.some_items(of_what)?.iter().map(Self::string))
    }

    /// Text that says something.
    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.any_text()?;
        if text.trim().is_empty() {
            self.refuse("blank; write a value, or leave the key out");
            return None;
        }
        Some(text)
    }

    /// A list of texts, each of which says something.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        all(self.items()?.iter().map(Self::string))
    }

    /// Text that says something, as its own.
    pub(super) fn string(&self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    /// Text that says something, whatever it looks like: `3600` and `true` are texts too.
    pub(super) fn any_string(&self) -> Option<String> {
        let text = self.scalar("text")?;
        if text.trim().is_empty() {
            self.refuse("blank; write a value, or leave the key out");
            return None;
        }
        Some(text.to_owned())
    }

    /// A text that is never shown.
    pub(super) fn secret(&self) -> Option<SecretString> {
        self.text().map(SecretString::from)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match &self.node.kind {
            Kind::Scalar { text, style: Style::Plain } if matches!(text.as_str(), "true" | "True" | "TRUE") => {
                Some(true)
            }
            Kind::Scalar { text, style: Style::Plain } if matches!(text.as_str(), "false" | "False" | "FALSE") => {
                Some(false)
            }
            Kind::Scalar { .. } if !self.node.is_null() => {
                self.refuse("must be true or false, without quotes");
                None
            }
            _ => self.wrong_type("true or false"),
        }
    }

    /// A whole number, as such or in quotes.
    pub(super) fn whole(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.scalar("a whole number").and_then(|text| number::whole(text.trim()));
        if self.is_scalar() && !number.is_some_and(|number| range.contains(&number)) {
            let (low, high) = (range.start(), range.end());
            let bounds = if *high == u64::MAX { format!("from {low}") } else { format!("from {low} to {high}") };
            self.refuse(format!("must be a whole number {bounds}{}", self.shown()));
            return None;
        }
        number
    }

    /// A decimal number above zero in thousand-millionths, as such or in quotes.
    pub(super) fn nano(&self) -> Option<i64> {
        let text = self.scalar("a number")?;
        let nano = number::nano(text.trim()).filter(|nano| *nano > 0);
        if nano.is_none() {
            self.refuse(format!("must be a number above 0 with at most nine decimals{}", self.shown()));
        }
        nano
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.refuse(format!("must be {}{}", names.join(" or "), self.shown()));
        }
        found
    }

    /// The path of a file that exists.
    pub(super) fn existing_file(&self) -> Option<PathBuf> {
        let path = Path::new(self.text()?);
        match std::fs::File::open(path).and_then(|file| file.metadata()) {
            Ok(file) if file.is_dir() => {
                self.refuse("is a folder; write the path of a file");
                None
            }
            Ok(_) => Some(path.to_owned()),
            Err(error) => {
                self.refuse(format!("the file cannot be read: {error}; write the path of a file that can be"));
                None
            }
        }
    }

    /// An http or https URL with a host, without credentials.
    pub(super) fn url(&self) -> Option<Url> {
        // The text is not shown: people put tokens into URLs.
        let Some(url) = Url::parse(self.text()?.trim()).ok().filter(Url::has_host) else {
            self.refuse("must be a URL, such as https://host.example.com");
            return None;
        };
        if !matches!(url.scheme(), "http" | "https") {
            self.refuse("must be an http or https URL, such as https://host.example.com");
            return None;
        }
        if !url.username().is_empty() || url.password().is_some() {
            self.refuse("must not carry a user name or password");
            return None;
        }
        Some(url)
    }

    /// A URL to which we connect: its host is not one that the address guard refuses.
    pub(super) fn target_url(&self, allow_loopback: bool) -> Option<Url> {
        let url = self.url()?;
        if let Err(blocked) = control::connect::check_literal_host(url.host_str().unwrap_or_default(), allow_loopback) {
            self.refuse(format!("{blocked}; write a host that the gateway may connect to"));
            return None;
        }
        Some(url)
    }

    fn any_text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, style: Style::Plain } if number::is_number(text) || is_boolean(text) => {
                self.refuse("must be text; put quotes around it");
                None
            }
            _ => self.scalar("text"),
        }
    }

    fn is_scalar(&self) -> bool {
        matches!(self.node.kind, Kind::Scalar { .. }) && !self.node.is_null()
    }

    fn scalar(&self, wanted: &str) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_null() => Some(text),
            _ => self.wrong_type(wanted),
        }
    }

    pub(super) fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        match &self.node.kind {
            Kind::Unknown => {}
            Kind::Scalar { .. } if self.node.is_null() => self.refuse("empty; write a value, or leave the key out"),
            Kind::Scalar { .. } => self.refuse(format!("must be {wanted} and is a single value")),
            Kind::List(_) => self.refuse(format!("must be {wanted} and is a list")),
            Kind::Map(_) => self.refuse(format!("must be {wanted} and is a mapping")),
        }
        None
    }

    /// The value as a remark shows it: not when it came out of a reference.
    fn shown(&self) -> String {
        match &self.node.kind {
            Kind::Scalar { text, style: Style::Plain | Style::Quoted } => {
                let short: String = text.chars().take(40).collect();
                let dots = if short.len() < text.len() { "..." } else { "" };
                format!(", not {}{dots}", short.escape_debug())
            }
            _ => String::new(),
        }
    }
}

/// All of them, after every one was read; `None` when one of them could not be.
pub(super) fn all<T, C: FromIterator<T>>(read: impl Iterator<Item = Option<T>>) -> Option<C> {
    // Collecting into an `Option` would stop at the first problem.
    let read: Vec<Option<T>> = read.collect();
    read.into_iter().collect()
}

fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}
