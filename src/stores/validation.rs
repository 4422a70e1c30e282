//! Whether a row is one that a store could have written: its key and its bytes, without a look at
//! any other row.

use super::registry;
use crate::engine::access::Reader;
use crate::error::Result;
use crate::tables::Table;

/// Refuses what no store writes: a key or bytes that do not decode, a part of a key over its limit,
/// an order or a value that the operations never leave behind.
pub(crate) fn row(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    registry::of(table)?.check_row(key, value)
}

/// Whether there is a row at `key` of `table` that a store could have written.
pub(crate) fn is_kept(rows: &mut dyn Reader, table: Table, key: &[u8]) -> Result<bool> {
    registry::of(table)?.is_kept(rows, key)
}
