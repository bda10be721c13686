//! The tables of spend. One text per statement; lists of rows travel as one JSON array of arrays, so that a statement's
//! text does not depend on how many there are.

mod account;
mod cap;
mod fold;
mod lease;
mod principal;
mod proof;
mod report;
mod reservation;
mod upkeep;
mod usage;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use uuid::Uuid;

pub(super) use self::account::*;
pub(super) use self::cap::*;
pub(super) use self::fold::{fold_hour, hours_apart, mark_late, rename_hours, sweep_hours};
pub(super) use self::lease::*;
pub(super) use self::principal::*;
pub(super) use self::proof::*;
pub(super) use self::report::*;
pub(super) use self::reservation::*;
pub(super) use self::upkeep::*;
pub(super) use self::usage::*;
use super::Period;
use super::ledger::Origin;
use super::period::Keys;
use crate::identity::Principal;
use crate::store::{Param, Row, StoreError};

/// The name of a period and the account of its payer: the key of an account's row.
pub(super) type AccountKey = (Arc<str>, Arc<str>);

/// Rows on their way into a statement, written as they are named.
#[derive(Debug)]
pub(super) struct Rows(String);

/// One row being written.
#[derive(Debug)]
pub(super) struct RowWriter<'a>(&'a mut String);

impl Rows {
    /// One row per item.
    pub(super) fn of<T>(items: impl Iterator<Item = T>, write: impl Fn(&mut RowWriter<'_>, T)) -> Self {
        let mut rows = String::from("[");
        for item in items {
            rows.push_str(if rows.len() > 1 { ",[" } else { "[" });
            write(&mut RowWriter(&mut rows), item);
            rows.push(']');
        }
        rows.push(']');
        Self(rows)
    }

    pub(super) fn none() -> Self {
        Self(String::from("[]"))
    }

    /// Rows of one text each.
    pub(super) fn of_texts<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> Self {
        Self::of(texts, |row, text| row.text(text.as_ref()))
    }

    /// Rows of one id each.
    pub(super) fn of_ids(ids: impl Iterator<Item = Uuid>) -> Self {
        Self::of(ids, |row, id| row.id(id))
    }

    fn param(&self) -> [Param<'_>; 1] {
        [Param::Text(&self.0)]
    }

    fn param_unless_empty(&self) -> Option<[Param<'_>; 1]> {
        (self.0 != "[]").then(|| self.param())
    }
}

impl RowWriter<'_> {
    fn separate(&mut self) {
        if !self.0.ends_with('[') {
            self.0.push(',');
        }
    }

    /// Text that a database takes: PostgreSQL has no NUL, and one in a client's header must not spoil a batch.
    pub(super) fn text(&mut self, value: &str) {
        self.separate();
        let clean =
            if value.contains('\0') { Cow::Owned(value.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(value) };
        self.json(&clean);
    }

    fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        // Text and lists of text always serialise.
        self.0.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()));
    }

    pub(super) fn text_or_null(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    fn null(&mut self) {
        self.separate();
        self.0.push_str("null");
    }

    pub(super) fn int(&mut self, value: i64) {
        self.separate();
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, "{value}");
    }

    fn int_or_null(&mut self, value: Option<i64>) {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    fn count(&mut self, value: u64) {
        self.int(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn id(&mut self, id: Uuid) {
        self.separate();
        let _ = write!(self.0, "\"{id}\"");
    }

    /// The groups as the text of a JSON list.
    fn groups(&mut self, principal: &Principal) {
        self.separate();
        let list = serde_json::to_string(&principal.groups).unwrap_or_else(|_| "[]".to_owned());
        // An escaped NUL in it would be one again in the column.
        self.json(&list.replace("\\u0000", "\u{fffd}"));
    }

    /// Session, agent, parent agent, billing group, model asked for.
    fn origin(&mut self, origin: &Origin) {
        self.text_or_null(origin.session_id.as_deref());
        self.text_or_null(origin.agent_id.as_deref());
        self.text_or_null(origin.parent_agent_id.as_deref());
        self.text_or_null(origin.billing_group.as_deref());
        self.text(&origin.model_asked);
    }

    /// Day, week, month.
    fn periods(&mut self, keys: &Keys) {
        for period in Period::ALL {
            self.text(keys.key(period));
        }
    }
}

fn ids(rows: &[Row]) -> Result<HashSet<Uuid>, StoreError> {
    rows.iter().map(|row| id(row.text(0)?)).collect()
}

fn id(text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|_| StoreError::inconsistent(format!("the id {text} is not a UUID")))
}
