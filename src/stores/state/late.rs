//! Events that were replaced, remembered for a while, so that one that is delivered again is known.
//!
//! A row is written by a handle with a late window when it replaces or removes a state, under the
//! event id of that state. A row may stand beside a state that has its event id again: a handle
//! without a late window saves it as a new one. Then the state decides.

use super::StateError;
use super::record::StateRecord;
use super::row::StateRow;
use crate::codec;
use crate::engine::access::{Reader, Writer};
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::stores::expiry::{self, KEY_OVERHEAD};
use crate::stores::frame::row_cost;
use crate::stores::sweep::{Due, Verdict};
use crate::tables::Table;

/// What a row adds to the key of its slot: five integers of at most nine bytes each.
const LATE_ROW_OVERHEAD: usize = 45;

/// A row of [`Table::STATE_LATE`], by event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) struct LateRow<'a> {
    /// Until when it is remembered.
    pub(crate) ends_at: Deadline,
    /// The key of the slot that the event was saved in.
    pub(crate) slot: &'a [u8],
    pub(crate) version: i64,
    /// How many bytes the state had, and their CRC-32: enough to tell the same event from an id
    /// that is used twice.
    pub(crate) bytes_len: u64,
    pub(crate) bytes_crc: u32,
}

impl<'a> LateRow<'a> {
    fn of(ends_at: Deadline, slot: &'a [u8], version: i64, bytes: &[u8]) -> Self {
        let (bytes_len, bytes_crc) = (bytes.len() as u64, crc32fast::hash(bytes));
        Self { ends_at, slot, version, bytes_len, bytes_crc }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        codec::decode_row(Table::STATE_LATE.name(), bytes)
    }
}

/// How long a handle remembers events that it replaces, in milliseconds; `None` for not at all.
pub(crate) type LateWindowMs = Option<u64>;

/// Whether the event of `record` was replaced within the window, as exactly this record.
pub(super) fn is_late(
    rows: &mut dyn Reader,
    window_ms: LateWindowMs,
    slot: &[u8],
    record: &StateRecord,
) -> Result<bool, StateError> {
    if window_ms.is_none() {
        return Ok(false);
    }
    let Some(row) = rows.get(Table::STATE_LATE, record.id.as_str().as_bytes())? else {
        return Ok(false);
    };
    let row = LateRow::decode(&row)?;
    if rows.moment().has_passed(row.ends_at) {
        return Ok(false);
    }
    match row == LateRow::of(row.ends_at, slot, record.version, &record.bytes) {
        true => Ok(true),
        false => Err(StateError::IdempotencyConflict),
    }
}

/// Remembers the event of a state that is replaced or removed.
pub(super) fn remember(
    tx: &mut dyn Writer,
    window_ms: LateWindowMs,
    slot: &[u8],
    old: &StateRow<'_>,
) -> Result<()> {
    let Some(window_ms) = window_ms else { return Ok(()) };
    let key = old.event_id.as_bytes();
    let known = tx.get(Table::STATE_LATE, key)?;
    let indexed_at = known.as_deref().map(LateRow::decode).transpose()?.map(|known| known.ends_at);
    let ends_at = tx.moment().deadline_in(window_ms);
    let row = LateRow::of(ends_at, slot, old.version, old.bytes);
    tx.put(Table::STATE_LATE, key, row.encode()?);
    expiry::move_to(tx, indexed_at, ends_at, Table::STATE_LATE, key);
    Ok(())
}

/// What remembering an event takes in a frame.
pub(super) fn cost(window_ms: LateWindowMs, slot: &[u8], event_id: &[u8]) -> usize {
    match window_ms {
        None => 0,
        Some(_) => {
            row_cost(event_id.len() + LATE_ROW_OVERHEAD + slot.len())
                + 2 * row_cost(KEY_OVERHEAD + event_id.len())
        }
    }
}

/// Removes the row that is due when its window is over.
pub(super) fn sweep(tx: &mut dyn Writer, due: &Due<'_>) -> Result<Verdict> {
    let Some(row) = tx.get(Table::STATE_LATE, due.key)? else { return Ok(Verdict::Stale) };
    let ends_at = LateRow::decode(&row)?.ends_at;
    if !tx.moment().has_surely_passed(ends_at) {
        return Ok(Verdict::Keep { until: ends_at });
    }
    tx.delete(Table::STATE_LATE, due.key);
    due.unindex(tx, ends_at);
    Ok(Verdict::Removed)
}
