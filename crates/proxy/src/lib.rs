//! Proxy: the data plane. Admitted requests go out, bytes come back.
//!
//! Knows upstreams and how to relay them; knows no SQL, no web framework and no credentials of callers.

pub mod inference;
pub mod otlp;
pub mod upstream;

/// The client's own text is one word; the reason is further down.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[cfg(test)]
mod scripted;
