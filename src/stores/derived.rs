//! Which rows of derived tables belong to a row: what a file must hold beside it, and what is
//! written beside it when rows are copied into another file.
//!
//! A row of a derived table says nothing that its primary row does not say. Where the expiry index
//! may have a row at more than one time, there is one canonical time, which [`rows`] answers, and
//! [`may_be_indexed_at_ms`] tells which others a sound file may have.

use super::expiry;
use super::schema::{self, Derived, EmitDerived, Ends};
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
    let schema = schema::of(table)?;
    if let Some(time_ms) = schema.indexed_at_ms(value)? {
        emit(Table::EXPIRY, expiry::encode_key(time_ms, table, key), Vec::new());
    }
    match schema.derived {
        Derived::Rows(rows) => rows(key, value, emit),
        Derived::None => Ok(()),
    }
}

/// Every time at which a sound file may have a row of `table` in the expiry index; it has it at
/// exactly one of them. The first is the canonical one. `satellite` is the row beside it.
pub(crate) fn may_be_indexed_at_ms(
    table: Table,
    value: &[u8],
    satellite: Option<&[u8]>,
) -> Result<Vec<u64>> {
    let schema = schema::of(table)?;
    let mut times: Vec<u64> = schema.indexed_at_ms(value)?.into_iter().collect();
    if let (Ends::AtOrLater { later_ms, .. }, Some(satellite)) = (schema.ends, satellite) {
        let later_ms = later_ms(value, satellite)?;
        if times.first().is_some_and(|at_ms| *at_ms != later_ms) {
            times.push(later_ms);
        }
    }
    Ok(times)
}

#[cfg(test)]
pub(crate) mod tests;
