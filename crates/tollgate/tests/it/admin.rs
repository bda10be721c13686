//! The admin API (contract B8): what an operator's automation sees.

mod audit;
mod caps;
mod effective;
mod openapi;
mod pools;
mod reports;
