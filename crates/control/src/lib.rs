//! Control: who is calling, may they, can they afford it, and what was done.
//!
//! Knows no web framework and no provider's API; rooms own their tables and share transactions, not knowledge.

pub mod audit;
pub mod clock;
pub mod connect;
pub mod identity;
pub mod limit;
pub mod policy;
pub mod spend;
pub mod store;
