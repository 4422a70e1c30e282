//! A walk over a table and the table beside it.

use crate::engine::access::{Reader, Value};
use crate::engine::cursor::RowJoin;
use crate::error::Result;
use crate::tables::Table;

/// Shows `each` every row of `primary` behind the key `after`, in key order, with the row of
/// `beside` under the same key, until it answers `false`. Being replaced by [`RowJoin`].
pub(crate) fn visit(
    rows: &mut dyn Reader,
    (primary, beside): (Table, Table),
    _slice: usize,
    after: Option<Vec<u8>>,
    mut each: impl FnMut(&[u8], &Value, Option<&Value>) -> Result<bool>,
) -> Result<()> {
    let mut join = RowJoin::all(primary, beside, after.as_deref());
    while let Some(((key, value), companion)) = join.next(rows)? {
        if !each(&key, &value, companion.as_ref())? {
            break;
        }
    }
    Ok(())
}
