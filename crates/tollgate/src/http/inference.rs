//! Inference: what API clients call (surface: the Messages API).

pub mod models;
