//! How far a Messages request reaches beyond its own bytes: what an upper bound of its cost needs to know.
//!
//! Knows which parts of a request cost more than their bytes; knows no price. Whatever it does not know is taken for the worst.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a request may cost beyond a token for each of its bytes and `max_tokens` of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Tokens more than bytes: images inside the body, and the prompts of tools that the API knows by itself.
    pub extra_tokens: u64,
    /// Something is read that the body only points to, or holds compressed: up to a whole context window.
    pub whole_window: bool,
    /// Times that the API itself may search the web and read the conversation again.
    pub searches: u64,
}

/// Why the cost of a request cannot be bounded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unbounded(String);

impl Unbounded {
    /// For a reason that completes "the cost of this request cannot be bounded: ".
    #[must_use]
    pub fn because(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

/// Tokens of one image at the most; the largest that models read are below five thousand.
const IMAGE: u64 = 10_000;
/// Tokens of the prompt that the API adds for a tool of its own that the client runs.
const CLIENT_TOOL: u64 = 2_000;
/// Tools of the API that the client runs: they cost their prompt and nothing else.
const CLIENT_TOOLS: &[&str] = &["bash_", "text_editor_", "computer_", "memory_"];
/// Fields at the top that cost nothing beyond their bytes.
const PLAIN: &[&str] = &[
    "model",
    "max_tokens",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_p",
    "service_tier",
    "speed",
    "inference_geo",
    "output_config",
    "output_format",
    "tags",
    "cache_control",
    "anthropic_version",
    "anthropic_beta",
];
/// Blocks that cost no more tokens than they have bytes.
const PLAIN_BLOCKS: &[&str] = &["text", "thinking", "redacted_thinking", "tool_use", "tool_result", "content"];

/// Reads how far a request reaches; `body` is one that [`super::read_head`] has read.
///
/// # Errors
/// When something in it may cost without limit, or is not understood.
pub fn reach(body: &[u8]) -> Result<Reach, Unbounded> {
    let mut walk = Walk { reach: Reach::default(), unbounded: None };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Place::Request.walk(&mut walk).deserialize(&mut json);
    match (walk.unbounded, read) {
        (Some(why), _) => Err(Unbounded(why)),
        (None, Err(_)) => Err(Unbounded("the request is nested too deep".to_owned())),
        (None, Ok(())) => Ok(walk.reach),
    }
}

struct Walk {
    reach: Reach,
    unbounded: Option<String>,
}

/// Where in a request a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Request,
    /// `messages`: a list of messages; `message`: one.
    Messages,
    Message,
    /// `content` or `system`: text, or a list of blocks.
    Content,
    Block,
    /// `source` of an image or a document.
    Source,
    Tools,
    Tool,
    /// `context_management`, its list of edits, and one.
    Management,
    Edits,
    Edit,
    /// Costs its bytes.
    Plain,
}

struct At<'a> {
    place: Place,
    walk: &'a mut Walk,
}

/// What is gathered of one object before it can be judged.
#[derive(Debug, Default)]
struct Seen {
    /// Every `type` it names: which of two counts is the upstream's to say.
    types: Vec<String>,
    max_uses: Option<u64>,
}

impl Place {
    fn walk(self, walk: &mut Walk) -> At<'_> {
        At { place: self, walk }
    }

    /// Where the value of a member stands; an error names what cannot be bounded.
    fn member(self, key: &str) -> Result<Self, String> {
        Ok(match (self, key) {
            (Self::Request, "messages") => Self::Messages,
            (Self::Request, "system") | (Self::Message | Self::Block | Self::Source, "content") => Self::Content,
            (Self::Request, "tools") => Self::Tools,
            (Self::Request, "context_management") => Self::Management,
            (Self::Request, key) if !PLAIN.contains(&key) => return Err(format!("{key:?} is set")),
            (Self::Block, "source") => Self::Source,
            (Self::Management, "edits") => Self::Edits,
            (Self::Management, key) => return Err(format!("\"context_management.{key}\" is set")),
            _ => Self::Plain,
        })
    }

    const fn element(self) -> Self {
        match self {
            Self::Messages => Self::Message,
            Self::Content => Self::Block,
            Self::Tools => Self::Tool,
            Self::Edits => Self::Edit,
            _ => Self::Plain,
        }
    }
}

impl Walk {
    fn judge(&mut self, place: Place, seen: &Seen) {
        match place {
            Place::Block => seen.types.iter().for_each(|kind| self.judge_block(kind)),
            Place::Source => seen.types.iter().for_each(|kind| self.judge_source(kind)),
            Place::Tool => seen.types.iter().for_each(|kind| self.judge_tool(kind, seen.max_uses)),
            // To clear is to read less; whatever else edits a context may read it once more.
            Place::Edit if !seen.types.iter().all(|kind| kind.starts_with("clear_")) || seen.types.is_empty() => {
                self.refuse("\"context_management\" does more than clear".to_owned());
            }
            _ => {}
        }
    }

    fn judge_block(&mut self, kind: &str) {
        match kind {
            "image" => self.reach.extra_tokens = self.reach.extra_tokens.saturating_add(IMAGE),
            // Judged by its source.
            "document" => {}
            kind if PLAIN_BLOCKS.contains(&kind) => {}
            _ => self.reach.whole_window = true,
        }
    }

    fn judge_source(&mut self, kind: &str) {
        // Base64 is of an image, which is counted, or of a document, whose pages may be compressed: see `media_type`.
        if !matches!(kind, "text" | "content" | "image/base64") {
            self.reach.whole_window = true;
        }
    }

    fn judge_tool(&mut self, kind: &str, max_uses: Option<u64>) {
        if kind == "custom" {
        } else if CLIENT_TOOLS.iter().any(|known| kind.starts_with(known)) {
            self.reach.extra_tokens = self.reach.extra_tokens.saturating_add(CLIENT_TOOL);
        } else if kind.starts_with("web_search_") {
            match max_uses {
                Some(uses) => self.reach.searches = self.reach.searches.saturating_add(uses),
                None => self.refuse(format!("the tool {kind:?} has no \"max_uses\"")),
            }
        } else {
            self.refuse(format!("the tool {kind:?} runs at the API as often as it likes"));
        }
    }

    fn refuse(&mut self, why: String) {
        self.unbounded.get_or_insert(why);
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.place == Place::Plain {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Seen::default();
        let mut image = false;
        while let Some(key) = map.next_key::<String>()? {
            match (self.place, key.as_str()) {
                (Place::Block | Place::Source | Place::Tool | Place::Edit, "type") => {
                    match map.next_value::<Scalar>()? {
                        Scalar::Text(kind) => seen.types.push(kind),
                        _ => return Err(A::Error::custom("a type that is no text")),
                    }
                }
                (Place::Source, "media_type") => {
                    image = matches!(map.next_value::<Scalar>()?, Scalar::Text(kind) if kind.starts_with("image/"));
                }
                (Place::Tool, "max_uses") => {
                    // The largest of several.
                    let uses = if let Scalar::Whole(uses) = map.next_value::<Scalar>()? { uses } else { u64::MAX };
                    seen.max_uses = Some(seen.max_uses.unwrap_or_default().max(uses));
                }
                (place, key) => match place.member(key) {
                    Ok(place) => map.next_value_seed(place.walk(self.walk))?,
                    Err(why) => {
                        self.walk.refuse(why);
                        map.next_value::<IgnoredAny>()?;
                    }
                },
            }
        }
        if image {
            seen.types.iter_mut().filter(|kind| *kind == "base64").for_each(|kind| *kind = "image/base64".to_owned());
        }
        self.walk.judge(self.place, &seen);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let element = self.place.element();
        while list.next_element_seed(element.walk(self.walk))?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A value of which only a text or a whole number matters.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(u64),
    Other(IgnoredAny),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(fields: &str) -> Result<Reach, String> {
        reach(format!(r#"{{"model":"m",{fields}}}"#).as_bytes()).map_err(|unbounded| unbounded.to_string())
    }

    fn block(block: &str) -> Result<Reach, String> {
        of(&format!(r#""messages":[{{"role":"user","content":[{block}]}}]"#))
    }

    fn tool(tool: &str) -> Result<Reach, String> {
        of(&format!(r#""tools":[{tool}]"#))
    }

    const WINDOW: Reach = Reach { extra_tokens: 0, whole_window: true, searches: 0 };

    #[test]
    fn text_and_tools_of_the_client_cost_their_bytes() {
        let system = r#""system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral","ttl":"1h"}}]"#;
        let tools = r#""tools":[{"name":"t","input_schema":{"type":"object","properties":{"type":{"type":"image"}}}}]"#;
        assert_eq!(of(&format!("{system},{tools},\"messages\":[]")), Ok(Reach::default()));
        let result = r#"{"type":"tool_result","tool_use_id":"x","content":[{"type":"text","text":"image"}]}"#;
        assert_eq!(block(result), Ok(Reach::default()));
        assert_eq!(
            block(r#"{"type":"tool_use","id":"x","name":"t","input":{"type":"document"}}"#),
            Ok(Reach::default())
        );
        assert_eq!(of(r#""messages":[{"role":"user","content":"hi"}]"#), Ok(Reach::default()));
    }

    #[test]
    fn an_image_in_the_body_has_a_most_and_what_is_pointed_to_may_fill_the_window() {
        let image = r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aaaa"}}"#;
        assert_eq!(block(image), Ok(Reach { extra_tokens: IMAGE, ..Reach::default() }));
        let nested = format!(r#"{{"type":"tool_result","content":[{image},{image}]}}"#);
        assert_eq!(block(&nested), Ok(Reach { extra_tokens: 2 * IMAGE, ..Reach::default() }));
        for beyond in [
            r#"{"type":"document","source":{"type":"url","url":"https://x"}}"#,
            r#"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"aaaa"}}"#,
            r#"{"source":{"file_id":"f","type":"file"},"type":"document"}"#,
            r#"{"type":"web_search_tool_result","content":[]}"#,
            r#"{"type":"container_upload","file_id":"f"}"#,
            r#"{"type":"text","type":"\u0064ocument_of_tomorrow"}"#,
        ] {
            assert_eq!(block(beyond), Ok(WINDOW), "{beyond}");
        }
        let text = r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"aaaa"}}"#;
        assert_eq!(block(text), Ok(Reach::default()));
    }

    #[test]
    fn tools_that_run_at_the_api_need_a_limit() {
        let bash = tool(r#"{"type":"bash_20250124","name":"bash"}"#).unwrap();
        assert_eq!(bash.extra_tokens, CLIENT_TOOL);
        let search = tool(r#"{"name":"web_search","max_uses":3,"type":"web_search_20250305"}"#).unwrap();
        assert_eq!(search.searches, 3);
        let refused = |json: &str| tool(json).unwrap_err();
        insta::assert_snapshot!(refused(r#"{"type":"web_search_20250305"}"#), @r#"the tool "web_search_20250305" has no "max_uses""#);
        insta::assert_snapshot!(refused(r#"{"type":"code_execution_20250825"}"#), @r#"the tool "code_execution_20250825" runs at the API as often as it likes"#);
        insta::assert_snapshot!(of(r#""mcp_servers":[]"#).unwrap_err(), @r#""mcp_servers" is set"#);
    }

    #[test]
    fn a_context_may_be_cleared_and_nothing_else_done_to_it() {
        assert!(of(r#""context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]}"#).is_ok());
        let compact = of(r#""context_management":{"edits":[{"type":"compact_20260112"}]}"#).unwrap_err();
        insta::assert_snapshot!(compact, @r#""context_management" does more than clear"#);
    }
}
