//! The tree: what the file says, and on which line.
//!
//! Knows YAML (1.2, core schema, with merge keys) and its bombs; knows no key of the configuration. Scalars keep their
//! text, so that a price never passes through a float.

use std::collections::{HashMap, hash_map};

use serde_saphyr::granit_parser::{self as yaml, Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::problem::Report;

/// A value.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it begins, from 1.
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar {
        text: String,
        style: Style,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A reference that could not be filled in, which has been reported: nothing more is to be said of it.
    Unknown,
}

/// How a scalar is written, which decides what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Bare: a string, a number, a boolean or null, by its looks.
    Plain,
    /// Quoted, a block, or tagged: a string.
    Quoted,
    /// Filled in from the environment or a file: a string, and never shown.
    Expanded,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Node,
}

/// More than any configuration needs, and little enough to read at once.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 100_000;
/// Of text after aliases are filled in.
const MAX_TEXT: usize = 8 * MAX_BYTES;

impl Node {
    /// Whether it is null: `~`, `null`, or nothing at all.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, style: Style::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Nodes, bytes of text and levels, for the limits.
    fn size(&self) -> Size {
        let mut size = Size { nodes: 1, text: 0, levels: 0 };
        match &self.kind {
            Kind::Unknown => {}
            Kind::Scalar { text, .. } => size.text = text.len(),
            Kind::List(items) => items.iter().for_each(|item| size.hold(item.size())),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                size.text += entry.key.len();
                size.hold(entry.value.size());
            }),
        }
        size
    }
}

struct Size {
    nodes: usize,
    text: usize,
    levels: usize,
}

impl Size {
    fn hold(&mut self, child: Size) {
        self.nodes += child.nodes;
        self.text += child.text;
        self.levels = self.levels.max(child.levels + 1);
    }
}

/// Reads the one document of `text`. What cannot be read as YAML is reported and gives `None`; keys written twice, tags
/// and merges that mean nothing are reported, and the rest of the tree is returned.
pub(super) fn parse(text: &str, report: &Report) -> Option<Node> {
    let mut options = yaml::Options::default();
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { events, report, anchors: HashMap::new(), nodes: 0, text: 0, path: Vec::new() };
    match builder.document() {
        Ok(root) => root,
        Err(Stop { line, message }) => {
            report.problem("", line, message);
            None
        }
    }
}

/// Why reading cannot go on.
struct Stop {
    line: Option<usize>,
    message: String,
}

struct Builder<'t, 'r> {
    events: Parser<'t, StrInput<'t>>,
    report: &'r Report,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    text: usize,
    path: Vec<String>,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(stop(line, "a second YAML document begins here; keep one"));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, line, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, usize), Stop> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, line_of(&span))),
            Some(Err(error)) => Err(stop(error.marker().line(), format!("not valid YAML: {}", error.kind()))),
            None => Err(Stop { line: None, message: "not valid YAML: it ends too early".to_owned() }),
        }
    }

    fn node(&mut self, event: Event<'t>, line: usize, depth: usize) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            return Err(stop(line, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.grow(1, text.len(), line)?;
                let style = self.style(style, tag.as_deref(), line);
                (Kind::Scalar { text: text.into_owned(), style }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.grow(1, 0, line)?;
                self.check_collection_tag(tag.as_deref(), "seq", line);
                (Kind::List(self.items(depth)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.grow(1, 0, line)?;
                self.check_collection_tag(tag.as_deref(), "map", line);
                (Kind::Map(self.entries(depth)?), anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, line, depth),
            _ => return Err(stop(line, "not valid YAML: a value is expected here")),
        };
        let node = Node { line, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, line: usize, depth: usize) -> Result<Node, Stop> {
        // An anchor is known once its value is complete: inside of it, its alias would never end.
        let Some(size) = self.anchors.get(&anchor).map(Node::size) else {
            return Err(stop(line, "this alias stands inside the value that it repeats"));
        };
        // Before it is copied: copies of copies would fill the memory.
        self.grow(size.nodes, size.text, line)?;
        if depth + size.levels > MAX_DEPTH {
            return Err(stop(line, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.anchors.get(&anchor).cloned().ok_or_else(|| stop(line, "an alias of nothing"))
    }

    fn grow(&mut self, nodes: usize, text: usize, line: usize) -> Result<(), Stop> {
        self.nodes += nodes;
        self.text += text;
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            return Err(stop(line, "the file holds too much, counting what aliases repeat; make it smaller"));
        }
        Ok(())
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            self.path.push(format!("[{}]", items.len()));
            items.push(self.node(event, line, depth + 1)?);
            self.path.pop();
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries = Vec::new();
        let mut merges = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, line) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let Kind::Scalar { text: key, style } = self.node(event, line, depth + 1)?.kind else {
                return Err(stop(line, "a list or a mapping cannot be a key"));
            };
            self.path.push(key.clone());
            let (event, value_line) = self.next()?;
            let value = self.node(event, value_line, depth + 1)?;
            if key == "<<" && style == Style::Plain {
                self.collect_merge(value, line, &mut merges);
            } else if let Some(first) = lines.get(&key) {
                let message = format!("written twice, first on line {first}; keep one");
                self.report.problem(&join(&self.path), Some(line), message);
            } else {
                lines.insert(key.clone(), line);
                entries.push(Entry { key, line, value });
            }
            self.path.pop();
        }
        // What the mapping says itself wins, and an earlier merge over a later one.
        for merged in merges {
            if let hash_map::Entry::Vacant(vacant) = lines.entry(merged.key.clone()) {
                vacant.insert(merged.line);
                entries.push(merged);
            }
        }
        Ok(entries)
    }

    fn collect_merge(&self, value: Node, line: usize, merges: &mut Vec<Entry>) {
        match value.kind {
            Kind::Map(entries) => merges.extend(entries),
            Kind::List(items) if items.iter().all(|item| matches!(item.kind, Kind::Map(_))) => {
                for item in items {
                    self.collect_merge(item, line, merges);
                }
            }
            _ => self.report.problem(&join(&self.path), Some(line), "only a mapping can be merged, or a list of them"),
        }
    }

    fn style(&self, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Style {
        let by_looks = if style == ScalarStyle::Plain { Style::Plain } else { Style::Quoted };
        match tag {
            None => by_looks,
            Some(tag) => match tag.core_suffix() {
                Some("str") => Style::Quoted,
                Some("int" | "float" | "bool" | "null") => Style::Plain,
                _ if tag.original() == "!" => Style::Quoted,
                _ => {
                    self.refuse_tag(tag, line);
                    by_looks
                }
            },
        }
    }

    fn check_collection_tag(&self, tag: Option<&Tag>, wanted: &str, line: usize) {
        if let Some(tag) = tag
            && tag.core_suffix() != Some(wanted)
            && tag.original() != "!"
        {
            self.refuse_tag(tag, line);
        }
    }

    fn refuse_tag(&self, tag: &Tag, line: usize) {
        let message = format!("the tag {} means nothing here; leave it out", tag.original());
        self.report.problem(&join(&self.path), Some(line), message);
    }
}

/// The path of a key.
pub(super) fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The path of an entry of a list.
pub(super) fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

fn line_of(span: &Span) -> usize {
    span.start.line()
}

fn stop(line: usize, message: impl Into<String>) -> Stop {
    Stop { line: Some(line), message: message.into() }
}

fn join(path: &[String]) -> String {
    path.iter().fold(String::new(), |mut joined, part| {
        if !joined.is_empty() && !part.starts_with('[') {
            joined.push('.');
        }
        joined.push_str(part);
        joined
    })
}
