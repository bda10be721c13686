//! HTTP: every path and every layer of every surface, on one page.

pub mod admin;
pub mod caller;
pub mod error;
pub mod health;
pub mod inference;
pub mod layers;
pub mod managed;
pub mod otlp;
