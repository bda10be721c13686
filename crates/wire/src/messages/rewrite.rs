//! A request body with top-level members taken out, exchanged and added. Every other byte stays the client's.

use std::ops::Range;

use bytes::Bytes;

use super::{Edit, splice};
use crate::json::{self, Member};

/// Members beyond this many are not kept track of: a body of nothing but tiny members must not cost many times its size.
const MAX_MEMBERS: usize = 512;

/// Where the top-level members of a body stand, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    members: Vec<Placed>,
    /// There are more of them.
    is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    /// Between the quotes.
    key: Range<usize>,
    member: Member,
}

/// Changes to one body, collected and made at once by [`Rewrite::finish`].
#[derive(Debug)]
pub struct Rewrite<'a> {
    body: &'a Bytes,
    layout: &'a Layout,
    removed: Vec<bool>,
    edits: Vec<Edit>,
    added: Vec<u8>,
}

impl Layout {
    /// Room for the members of an ordinary request.
    pub(super) fn with_room() -> Self {
        Self { members: Vec::with_capacity(16), is_cut: false }
    }

    pub(super) fn push(&mut self, key_length: usize, member: &Member) {
        if self.members.len() == MAX_MEMBERS {
            self.is_cut = true;
            return;
        }
        let key = member.start + 1..member.start + 1 + key_length;
        self.members.push(Placed { key, member: member.clone() });
    }

    /// Whether every member is known; a body of which that is not true cannot be rewritten.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.is_cut
    }

    /// The value of that member in the body that this is the layout of; the last one where it is repeated.
    #[must_use]
    pub fn value<'b>(&self, body: &'b [u8], name: &str) -> Option<&'b [u8]> {
        let found = self.members.iter().rev().find(|placed| placed.is(body, name))?;
        body.get(found.member.value.clone())
    }
}

impl Placed {
    fn is(&self, body: &[u8], name: &str) -> bool {
        body.get(self.key.clone()).is_some_and(|key| json::key_is(key, name))
    }
}

impl<'a> Rewrite<'a> {
    /// No changes yet to a body and its own layout.
    #[must_use]
    pub fn new(body: &'a Bytes, layout: &'a Layout) -> Self {
        Self { body, layout, removed: vec![false; layout.members.len()], edits: Vec::new(), added: Vec::new() }
    }

    /// Takes out every member of that name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let mut found = false;
        for (placed, removed) in self.layout.members.iter().zip(&mut self.removed) {
            if placed.is(self.body, name) {
                *removed = true;
                found = true;
            }
        }
        found
    }

    /// Takes a member out of every object of the list that stands under `list` (`tools`); whether there was one.
    pub fn remove_in_each(&mut self, list: &str, name: &str) -> bool {
        let before = self.edits.len();
        let Some(placed) = self.layout.members.iter().rev().find(|placed| placed.is(self.body, list)) else {
            return false;
        };
        let value = placed.member.value.clone();
        for element in json::elements(&self.body[value.clone()]) {
            let offset = element.as_ptr().addr() - self.body.as_ptr().addr();
            let mut members = Vec::new();
            let _ = json::members(element, |key, member| members.push((json::key_is(key, name), member)));
            let removed: Vec<bool> = members.iter().map(|(is_it, _)| *is_it).collect();
            let spans = cuts(&removed, |at| &members[at].1);
            self.edits.extend(spans.map(|span| cut(span.start + offset..span.end + offset)));
        }
        self.edits.len() > before
    }

    /// Puts another value, which is JSON, in the place of that member's; adds it at the end where there is none.
    pub fn replace(&mut self, name: &str, value: impl Into<Bytes>) {
        match self.layout.members.iter().rev().find(|placed| placed.is(self.body, name)) {
            Some(placed) => {
                self.edits.push(Edit { span: placed.member.value.clone(), replacement: value.into() });
            }
            None => self.add(name, &value.into()),
        }
    }

    /// Adds a member at the end, instead of those of that name. The name needs no escapes; the value is JSON.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        if !self.added.is_empty() {
            self.added.push(b',');
        }
        self.added.push(b'"');
        self.added.extend_from_slice(name.as_bytes());
        self.added.extend_from_slice(b"\":");
        self.added.extend_from_slice(value);
    }

    /// The changed body in parts, in order; what is unchanged is not copied.
    #[must_use]
    pub fn finish(mut self) -> Vec<Bytes> {
        let placed = &self.layout.members;
        // A changed member may also be taken out.
        let gone: Vec<Range<usize>> = cuts(&self.removed, |at| &placed[at].member).collect();
        self.edits.retain(|edit| !gone.iter().any(|span| span.contains(&edit.span.start)));
        self.edits.extend(gone.into_iter().map(cut));
        if !self.added.is_empty()
            && let Some(last) = placed.last()
        {
            if self.removed.contains(&false) {
                self.added.insert(0, b',');
            }
            let end = last.member.value.end;
            self.edits.push(Edit { span: end..end, replacement: self.added.into() });
        }
        if self.edits.is_empty() { vec![self.body.clone()] } else { splice(self.body, &mut self.edits) }
    }
}

fn cut(span: Range<usize>) -> Edit {
    Edit { span, replacement: Bytes::new() }
}

/// The spans to cut so that the marked members are gone with exactly the commas that would be left over.
fn cuts<'m>(removed: &[bool], member: impl Fn(usize) -> &'m Member) -> impl Iterator<Item = Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while at < removed.len() {
        if !removed[at] {
            at += 1;
            continue;
        }
        let first = member(at);
        let is_leading = at == 0;
        while at < removed.len() && removed[at] {
            at += 1;
        }
        let last = member(at - 1);
        spans.push(match (is_leading, first.comma_before, last.comma_after) {
            (false, Some(before), _) => before..last.value.end,
            (_, _, Some(after)) => first.start..after + 1,
            _ => first.start..last.value.end,
        });
    }
    spans.into_iter()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::read_head;
    use super::*;

    fn rewritten(body: &str, change: impl FnOnce(&mut Rewrite<'_>)) -> String {
        let body = Bytes::from(body.to_owned());
        let head = read_head(&body).unwrap();
        let mut rewrite = Rewrite::new(&body, &head.layout);
        change(&mut rewrite);
        String::from_utf8(rewrite.finish().concat()).unwrap()
    }

    #[test]
    fn members_go_with_their_commas_wherever_they_stand() {
        let remove = |body: &str| {
            rewritten(body, |rewrite| {
                rewrite.remove("model");
                rewrite.remove("stream");
            })
        };
        assert_eq!(remove(r#"{"model":"m","a":1.0,"stream":true}"#), r#"{"a":1.0}"#);
        assert_eq!(remove(r#"{"model":"m","stream":true,"a":1}"#), r#"{"a":1}"#);
        assert_eq!(remove(r#"{ "a" : 1 , "model":"m","stream":true }"#), r#"{ "a" : 1  }"#);
        assert_eq!(remove(r#"{"a":1,"model":"m","b":2,"stream":false,"c":3}"#), r#"{"a":1,"b":2,"c":3}"#);
        assert_eq!(remove(r#"{"\u006dodel":"m"}"#), "{}");
    }

    #[test]
    fn what_is_added_comes_last_and_replaces_its_namesakes() {
        let add = |body: &str| {
            rewritten(body, |rewrite| {
                rewrite.remove("model");
                rewrite.add("anthropic_beta", br#"["a"]"#);
                rewrite.add("anthropic_version", b"\"v\"");
            })
        };
        let tail = r#""anthropic_beta":["a"],"anthropic_version":"v"}"#;
        assert_eq!(add(r#"{"model":"m","n":12345678901234567890}"#), format!("{{\"n\":12345678901234567890,{tail}"));
        assert_eq!(add(r#"{"n":1,"model":"m"}"#), format!("{{\"n\":1,{tail}"));
        assert_eq!(add(r#"{"model":"m"}"#), format!("{{{tail}"));
        assert_eq!(add(r#"{"anthropic_version":"x","model":"m","n":1}"#), format!("{{\"n\":1,{tail}"));
    }

    #[test]
    fn a_value_is_exchanged_in_its_place() {
        let replace = |body: &str| rewritten(body, |rewrite| rewrite.replace("model", "\"other\""));
        assert_eq!(replace(r#"{"a":1, "model" : "m" ,"b":2}"#), r#"{"a":1, "model" : "other" ,"b":2}"#);
        let gone = rewritten(r#"{"a":1,"model":"m"}"#, |rewrite| {
            rewrite.replace("model", "1");
            rewrite.remove("model");
        });
        assert_eq!(gone, r#"{"a":1}"#);
        assert_eq!(rewritten(r#"{"model":"m"}"#, |rewrite| rewrite.replace("x", "1")), r#"{"model":"m","x":1}"#);
    }

    #[test]
    fn a_member_is_taken_out_of_every_object_of_a_list() {
        let body = r#"{"model":"m","tools":[{"eager":true,"name":"a"}, {"name":"b","eager":false},"odd",{"eager":1}]}"#;
        let body = rewritten(body, |rewrite| assert!(rewrite.remove_in_each("tools", "eager")));
        assert_eq!(body, r#"{"model":"m","tools":[{"name":"a"}, {"name":"b"},"odd",{}]}"#);
        rewritten(&body, |rewrite| assert!(!rewrite.remove_in_each("tools", "eager")));
    }

    #[test]
    fn a_body_of_countless_members_is_not_followed_to_its_end() {
        let many = format!("{{\"model\":\"m\"{}}}", ",\"\":1".repeat(MAX_MEMBERS));
        assert!(!read_head(many.as_bytes()).unwrap().layout.is_whole());
        assert!(read_head(many.replacen(",\"\":1", "", 1).as_bytes()).unwrap().layout.is_whole());
    }

    proptest! {
        #[test]
        fn the_rest_of_any_body_is_what_it_was(
            order in Just(vec!["model", "stream", "a", "b", "tags"]).prop_shuffle(),
            count in 1_usize..5,
            space in prop::sample::select(vec!["", " ", "\n\t"])
        ) {
            let mut names: Vec<&str> = order.into_iter().filter(|name| *name != "model").take(count - 1).collect();
            names.insert(names.len() / 2, "model");
            let members: Vec<_> = names.iter().map(|name| format!("{space}\"{name}\"{space}:{space}\"1\"{space}")).collect();
            let body = format!("{{{}}}", members.join(","));
            let changed = rewritten(&body, |rewrite| {
                for name in ["model", "stream", "tags"] {
                    rewrite.remove(name);
                }
                rewrite.add("z", b"2");
            });
            let kept = names.into_iter().filter(|name| ["a", "b"].contains(name)).map(|name| (name.to_owned(), json!("1")));
            let expected: serde_json::Map<String, Value> = kept.chain([("z".to_owned(), json!(2))]).collect();
            prop_assert_eq!(serde_json::from_str::<Value>(&changed).unwrap(), Value::Object(expected), "{}", changed);
        }
    }
}
