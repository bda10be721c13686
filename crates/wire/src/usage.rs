//! Token usage, read beside an answer that is relayed untouched.

/// Tokens of one request by price class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Uncached input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Tokens read from the prompt cache.
    pub cache_read_input_tokens: u64,
    /// Tokens written to the prompt cache for five minutes.
    pub cache_creation_5m_tokens: u64,
    /// Tokens written to the prompt cache for one hour.
    pub cache_creation_1h_tokens: u64,
    /// `server_tool_use.web_search_requests`.
    pub web_search_requests: u64,
    /// `usage.speed` was `"fast"`.
    pub fast: bool,
}
