//! Tollgate: edges and composition. Reads the configuration, builds the rooms, serves their surfaces; holds no rules.

pub mod boot;
pub mod cli;
pub mod config;
pub mod demo;
pub mod http;
pub mod observe;
pub mod serve;
