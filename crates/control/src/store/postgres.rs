//! Postgres.
use super::{Param, Row, StoreError};

#[derive(Debug, Clone)]
pub(super) struct Postgres;
#[derive(Debug)]
pub(super) struct PostgresTx;

impl Postgres {
    pub(super) async fn execute(&self, _sql: &str, _params: &[Param<'_>]) -> Result<u64, StoreError> {
        Err(StoreError::timed_out())
    }
    pub(super) async fn fetch(&self, _sql: &str, _params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        Err(StoreError::timed_out())
    }
    pub(super) async fn begin(&self) -> Result<PostgresTx, StoreError> {
        Err(StoreError::timed_out())
    }
}
impl PostgresTx {
    pub(super) async fn execute(&mut self, _sql: &str, _params: &[Param<'_>]) -> Result<u64, StoreError> {
        Err(StoreError::timed_out())
    }
    pub(super) async fn fetch(&mut self, _sql: &str, _params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        Err(StoreError::timed_out())
    }
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        Err(StoreError::timed_out())
    }
}
impl Postgres {
    pub(super) async fn open(_c: &super::PostgresConfig) -> Result<Self, StoreError> {
        Err(StoreError::timed_out())
    }
}
