//! The admin API (contract B8): what an operator's automation sees.

mod caps;
mod effective;
mod pools;
