//! Values on their way into and out of a statement.

use super::StoreError;

/// A bound parameter.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// NULL of whatever type the statement wants.
    Null,
    /// BIGINT.
    Int(i64),
    /// TEXT.
    Text(&'a str),
    /// BYTEA or BLOB.
    Blob(&'a [u8]),
}

impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a std::sync::Arc<str>> for Param<'a> {
    fn from(value: &'a std::sync::Arc<str>) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Param<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a, T> From<Option<T>> for Param<'a>
where
    T: Into<Param<'a>>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<Param<'_>> for Value {
    fn from(param: Param<'_>) -> Self {
        match param {
            Param::Null => Self::Null,
            Param::Int(value) => Self::Int(value),
            Param::Text(value) => Self::Text(value.to_owned()),
            Param::Blob(value) => Self::Blob(value.to_vec()),
        }
    }
}

/// One row of an answer, read by column number from 0.
#[derive(Debug, Clone)]
pub struct Row(pub(super) Vec<Value>);

impl Row {
    /// A BIGINT column that is not NULL.
    ///
    /// # Errors
    /// When the column is something else.
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        self.int_or_null(column)?.ok_or_else(|| self.wrong(column, "a number"))
    }

    /// A BIGINT column.
    ///
    /// # Errors
    /// When the column is something else.
    pub fn int_or_null(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            Some(Value::Int(value)) => Ok(Some(*value)),
            _ => Err(self.wrong(column, "a number")),
        }
    }

    /// A TEXT column that is not NULL.
    ///
    /// # Errors
    /// When the column is something else.
    pub fn text(&self, column: usize) -> Result<&str, StoreError> {
        self.text_or_null(column)?.ok_or_else(|| self.wrong(column, "text"))
    }

    /// A TEXT column.
    ///
    /// # Errors
    /// When the column is something else.
    pub fn text_or_null(&self, column: usize) -> Result<Option<&str>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            _ => Err(self.wrong(column, "text")),
        }
    }

    /// A BYTEA or BLOB column that is not NULL.
    ///
    /// # Errors
    /// When the column is something else.
    pub fn blob(&self, column: usize) -> Result<&[u8], StoreError> {
        match self.0.get(column) {
            Some(Value::Blob(value)) => Ok(value),
            _ => Err(self.wrong(column, "bytes")),
        }
    }

    fn wrong(&self, column: usize, wanted: &str) -> StoreError {
        // The value itself may be somebody's secret: only the place is told.
        StoreError::inconsistent(format!("column {column} of {} should be {wanted}", self.0.len()))
    }
}
