//! What a sweeper does to the records and counted failures of the adapter for `codlet`.

use super::row::{FailuresRow, Record, RecordKind};
use crate::engine::access::{Reader, Writer};
use crate::error::Result;
use crate::stores::expiry;
use crate::tables::Table;

/// The record with this id, whether or not it is still kept.
pub(crate) fn load_record(
    rows: &mut dyn Reader,
    kind: RecordKind,
    id: &[u8],
) -> Result<Option<Record>> {
    let bytes = rows.get(kind.by_id(), id)?;
    bytes.map(|bytes| Record::decode(kind.by_id(), &bytes)).transpose()
}

/// Removes every row of a record.
pub(crate) fn remove_record(tx: &mut dyn Writer, kind: RecordKind, id: &[u8], record: &Record) {
    tx.delete(kind.by_id(), id);
    tx.delete(kind.by_key(), &record.lookup_key);
    expiry::delete(tx, record.keep_until, kind.by_id(), id);
}

/// Removes the record with this id when it is no longer kept. Answers whether it did; if not, an
/// index row that led to it is stale.
pub(crate) fn sweep_record(tx: &mut dyn Writer, kind: RecordKind, id: &[u8]) -> Result<bool> {
    let now = tx.moment();
    let ended =
        load_record(tx, kind, id)?.filter(|record| now.has_surely_passed(record.keep_until));
    let Some(record) = ended else { return Ok(false) };
    remove_record(tx, kind, id, &record);
    Ok(true)
}

/// The failures that are counted under a key.
pub(crate) fn load_failures(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<FailuresRow>> {
    rows.get(Table::CODLET_FAILURES, key)?.map(|bytes| FailuresRow::decode(&bytes)).transpose()
}

/// Removes every row of the failures of `key`.
pub(crate) fn remove_failures(tx: &mut dyn Writer, key: &[u8], row: &FailuresRow) {
    tx.delete(Table::CODLET_FAILURES, key);
    expiry::delete(tx, row.ends_at(), Table::CODLET_FAILURES, key);
}

/// Removes the failures of `key` when none counts any more. Answers whether it did; if not, an
/// index row that led to them is stale.
pub(crate) fn sweep_failures(tx: &mut dyn Writer, key: &[u8]) -> Result<bool> {
    let now = tx.moment();
    let ended = load_failures(tx, key)?.filter(|row| now.has_surely_passed(row.ends_at()));
    let Some(row) = ended else { return Ok(false) };
    remove_failures(tx, key, &row);
    Ok(true)
}
