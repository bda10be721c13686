//! The fields of a Messages request that we act on, found in one pass over the bytes without re-serialising them.
//!
//! Knows JSON and spans; knows nothing of which model exists or who may use it.

mod reach;
mod rewrite;

use std::ops::Range;

use bytes::Bytes;

use crate::json::{self, Member};

pub use reach::{Reach, Unbounded, reach};
pub use rewrite::{Layout, Rewrite};

/// What one pass over a request body finds. Spans are byte offsets into that body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The model as the client named it, escapes decoded; never empty.
    pub model: String,
    /// Where the value of `model` stands, quotes included.
    pub model_span: Range<usize>,
    /// `stream` is the literal `true`.
    pub stream: bool,
    /// `max_tokens`, `None` when it is absent or not a plain whole number: a caller who must bound output treats `None` as
    /// unbounded.
    pub max_tokens: Option<u64>,
    /// The whole `tags` member with one neighbouring comma, ready to cut.
    pub tags: Option<Range<usize>>,
    /// The value of `tags` alone.
    pub tags_value: Option<Range<usize>>,
    /// The first string in `tags`: itself, or its first string element or member value.
    pub tags_billing: Option<String>,
    /// `session_id` inside the JSON text of `metadata.user_id`, at most 256 bytes long.
    pub session_id: Option<String>,
    /// Bytes of the values of `messages`, `system` and `tools`: what an estimate of the input starts from.
    pub message_bytes: usize,
    /// Where every top-level member stands, for a [`Rewrite`].
    pub layout: Layout,
}

/// What is wrong with a request body. The texts are shown to the client as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not one JSON value, or nested deeper than we follow.
    #[error("invalid JSON")]
    InvalidJson,
    /// JSON, but no object.
    #[error("request body must be a JSON object")]
    NotAnObject,
    /// No `model`, or an empty one.
    #[error("model is required")]
    ModelMissing,
    /// `model` is of another type.
    #[error("model must be a string")]
    ModelNotAString,
    /// A field that we read stands there twice: an upstream that takes the other one would serve what was not checked.
    #[error("request body has more than one \"{0}\" field; send it once")]
    DuplicateKey(&'static str),
}

/// Reads the head of a Messages request. Any bytes may be given; the time is linear in their number.
///
/// # Errors
/// The first that applies, in the order of [`BodyError`] but for a repeated field, which comes before `model`.
pub fn read_head(body: &[u8]) -> Result<RequestHead, BodyError> {
    let mut fields: [Option<Member>; READ_ONCE.len()] = [const { None }; READ_ONCE.len()];
    let mut repeated = None;
    let mut message_bytes = 0;
    let mut unreadable = false;
    let mut layout = Layout::with_room();
    let object = json::members(body, |key, member| {
        layout.push(key.len(), &member);
        if let Some(at) = READ_ONCE.iter().position(|name| json::key_is(key, name)) {
            if fields[at].replace(member).is_some() {
                repeated = repeated.or(Some(READ_ONCE[at]));
            }
        } else if ["messages", "system", "tools"].iter().any(|name| json::key_is(key, name)) {
            message_bytes += member.value.len();
        } else if std::str::from_utf8(key).is_err() {
            // An upstream that drops the bytes it cannot read might find a second `model` in this key.
            unreadable = true;
        }
    });
    if unreadable {
        return Err(BodyError::InvalidJson);
    }
    if !object.map_err(|json::Invalid| BodyError::InvalidJson)? {
        return Err(BodyError::NotAnObject);
    }
    if let Some(name) = repeated {
        return Err(BodyError::DuplicateKey(name));
    }
    let [model, stream, max_tokens, tags, metadata, ..] = fields;
    let value = |member: &Option<Member>| member.as_ref().map(|member| &body[member.value.clone()]);
    Ok(RequestHead {
        model: read_model(value(&model))?,
        model_span: model.map(|member| member.value).unwrap_or_default(),
        stream: value(&stream) == Some(b"true"),
        max_tokens: value(&max_tokens).and_then(whole_number),
        tags_billing: value(&tags).and_then(first_string),
        tags_value: tags.as_ref().map(|member| member.value.clone()),
        tags: tags.map(cut),
        session_id: value(&metadata).and_then(session_id),
        message_bytes,
        layout,
    })
}

impl RequestHead {
    /// `thinking.budget_tokens` in the body that this is the head of.
    #[must_use]
    pub fn thinking_budget(&self, body: &[u8]) -> Option<u64> {
        whole_number(json::get(self.layout.value(body, "thinking")?, "budget_tokens")?)
    }
}

/// The fields that may stand only once (R15). Those that [`read_head`] reads come first, in the order it takes them.
const READ_ONCE: [&str; 7] = ["model", "stream", "max_tokens", "tags", "metadata", "speed", "service_tier"];

fn read_model(value: Option<&[u8]>) -> Result<String, BodyError> {
    let model = json::text(value.ok_or(BodyError::ModelMissing)?).ok_or(BodyError::ModelNotAString)?;
    if model.is_empty() { Err(BodyError::ModelMissing) } else { Ok(model) }
}

fn whole_number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The member and the comma that would be left over without it.
fn cut(tags: Member) -> Range<usize> {
    match (tags.comma_before, tags.comma_after) {
        (_, Some(after)) => tags.start..after + 1,
        (Some(before), None) => before..tags.value.end,
        (None, None) => tags.start..tags.value.end,
    }
}

fn first_string(tags: &[u8]) -> Option<String> {
    let mut first = json::text(tags).or_else(|| json::elements(tags).into_iter().find_map(json::text));
    json::members(tags, |_, member| {
        if first.is_none() {
            first = json::text(&tags[member.value]);
        }
    })
    .ok()?;
    first
}

fn session_id(metadata: &[u8]) -> Option<String> {
    let user_id = json::text(json::get(metadata, "user_id")?)?;
    let session_id = json::text(json::get(user_id.as_bytes(), "session_id")?)?;
    Some(session_id).filter(|id| !id.is_empty() && id.len() <= 256)
}

/// The string value of one named member of `tags`, where `tags` is an object; `None` for another type of either.
#[must_use]
pub fn tag_named(body: &[u8], tags_value: &Range<usize>, name: &str) -> Option<String> {
    json::text(json::get(body.get(tags_value.clone())?, name)?)
}

/// A change to a body: these bytes become those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What goes.
    pub span: Range<usize>,
    /// What comes; empty to cut.
    pub replacement: Bytes,
}

/// The edited body in parts, in order: slices of the original between the replacements, nothing copied. Spans must not
/// overlap; what lies beyond the end is ignored.
#[must_use]
pub fn splice(body: &Bytes, edits: &mut [Edit]) -> Vec<Bytes> {
    edits.sort_unstable_by_key(|edit| edit.span.start);
    let mut parts = Vec::with_capacity(2 * edits.len() + 1);
    let mut at = 0;
    for edit in edits {
        let start = edit.span.start.clamp(at, body.len());
        parts.push(body.slice(at..start));
        parts.push(edit.replacement.clone());
        at = edit.span.end.clamp(start, body.len());
    }
    parts.push(body.slice(at..));
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests;
