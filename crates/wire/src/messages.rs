//! The fields of a Messages request that we act on, found in one pass over the bytes without re-serialising them.
//!
//! Knows JSON and spans; knows nothing of which model exists or who may use it.

use std::ops::Range;

use bytes::Bytes;

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

/// Reads the head of a Messages request.
pub fn read_head(_body: &[u8]) -> Result<RequestHead, BodyError> {
    todo!()
}

/// The string value of one named member of `tags`, where `tags` is an object.
#[must_use]
pub fn tag_named(_body: &[u8], _tags_value: &Range<usize>, _name: &str) -> Option<String> {
    todo!()
}

/// A change to a body: these bytes become those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What goes.
    pub span: Range<usize>,
    /// What comes; empty to cut.
    pub replacement: Bytes,
}

/// The edited body in parts, in order: slices of the original between the replacements. Spans must not overlap; what lies
/// beyond the end is ignored.
#[must_use]
pub fn splice(_body: &Bytes, _edits: &mut [Edit]) -> Vec<Bytes> {
    todo!()
}
