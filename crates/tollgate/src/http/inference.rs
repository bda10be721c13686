//! Inference: what API clients call (surface: the Messages API).

mod error;
pub mod messages;
pub mod models;
mod unified;
pub mod usage;
