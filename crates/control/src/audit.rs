//! Audit: what was done, by whom, as one JSON object per line.
//!
//! Not filtered by any log level, and never dropped: when the writer cannot keep up, requests wait in
//! [`AuditLog::ready`]. Knows no other room: actors are plain names here.

mod event;
mod sink;
mod table;

pub use event::{AttemptEvent, Event, InferenceEvent, LimitChange};
pub use sink::AuditLog;
pub use table::{
    AdminChange, AdminEvent, admin_changes, record_admin_change, rename_in_admin_changes, sweep_admin_changes,
};
