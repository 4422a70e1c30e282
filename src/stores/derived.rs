//! Which rows of derived tables belong to a row: what a file must hold beside it, and what is
//! written beside it when rows are copied into another file.
//!
//! A row of a derived table says nothing that its primary row does not say. Where the expiry index
//! may have a row at more than one time, there is one canonical time, which [`rows`] answers, and
//! [`may_be_indexed_at`](super::schema::TableSchema::may_be_indexed_at) tells which others a
//! sound file may have.

use super::expiry;
use super::registry;
use super::schema::{Derived, EmitDerived};
use crate::error::Result;
use crate::tables::Table;

/// Shows `emit` every row of a derived table that belongs to the row at `key` of `table`: table,
/// key, value. A derived row has none.
///
/// An entry that may be indexed at more than one time is shown at the canonical one. What stands in
/// the index at times of which its row says nothing is not shown.
pub(crate) fn rows(
    table: Table,
    key: &[u8],
    value: &[u8],
    emit: &mut EmitDerived<'_>,
) -> Result<()> {
    let schema = registry::of(table)?;
    if let Some(at) = schema.indexed_at(value)? {
        emit(Table::EXPIRY, expiry::encode_key(at, table, key), Vec::new());
    }
    match schema.derived {
        Derived::Rows(rows) => rows(key, value, emit),
        Derived::None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
