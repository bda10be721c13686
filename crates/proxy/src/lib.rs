//! Proxy: the data plane. Admitted requests go out, bytes come back.
//!
//! Knows upstreams and how to relay them; knows no SQL, no web framework and no credentials of callers.

pub mod inference;
pub mod otlp;
pub mod upstream;
