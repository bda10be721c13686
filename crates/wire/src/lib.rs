//! Wire: the bodies and codecs of the protocols that Tollgate speaks.
//!
//! Does no I/O and knows no policy, money or storage: bytes in, facts out. Typed only where we act; the rest passes
//! through.

pub mod capability;
pub mod catalog;
pub mod cloud;
pub mod desktop;
pub mod error;
pub mod event_stream;
mod json;
pub mod messages;
pub mod oauth;
pub mod oidc;
pub mod settings;
pub mod shape;
pub mod sse;
pub mod usage;
