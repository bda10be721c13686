//! The fixtures keep their promises: when one of these fails, no other failure means anything.

mod database;
mod idp;
mod upstream;
