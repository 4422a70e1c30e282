//! What a store operation may do: read rows at one position, and stage writes.

use crate::error::Result;
use crate::tables::Table;
pub(crate) use crate::tables::{Row, Value};
use std::ops::Bound;

/// Reads of rows, all at the same position of the serial order (and, in a transaction, over what it
/// has staged).
pub(crate) trait Reader {
    /// The room's time when the operation began, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// The row at `key`.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>>;

    /// Up to `limit` rows of the range, in key order.
    fn scan(
        &mut self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>>;
}

/// A transaction: what it stages becomes one frame of the log when it ends well, and nothing when
/// it does not.
pub(crate) trait Writer: Reader {
    /// Stages a row.
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>);

    /// Stages the absence of a row.
    fn delete(&mut self, table: Table, key: &[u8]);
}
