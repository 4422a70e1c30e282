//! When the requests of a window were made, so that they can be counted exactly at a cost that does
//! not grow with their number.
//!
//! Requests are numbered from 0. For each millisecond in which there was a request, one row tells
//! the number of the first one in it; it never changes. How many requests were made after some time
//! is then the number of the next request minus that of the first row behind that time: one seek,
//! however many there are.
//!
//! Invariants:
//!
//! 1. Times are those of the room's time line, which never falls. So the rows of a history are in
//!    the order of their numbers, and a window never opens twice.
//! 2. What counts is in the current epoch, at or behind `first`. Everything before is garbage, and
//!    a record removes more of it than it can add.
//! 3. Rows before `swept_to` are gone. Removal begins there, so that it does not read the
//!    tombstones of earlier removals.

mod logical;

pub(crate) use logical::Requests;

use crate::codec::{self, key};
use crate::engine::access::{Reader, Writer};
use crate::engine::cursor::RowCursor;
use crate::error::{Error, Result};
use crate::tables::Table;
use std::ops::Bound;

/// How many rows one record removes. It adds at most one, so garbage shrinks.
const REMOVED_PER_RECORD: usize = 3;

/// Where the rows of a history are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryId {
    /// The number of the window.
    pub(crate) id: u64,
    /// Tells the histories of one window apart.
    pub(crate) lane: u8,
}

/// A history without its rows. A part of the row of its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub(crate) struct History {
    /// Tells what was before a reset from what was after.
    epoch: u64,
    /// The number of the next request.
    next: u64,
    /// The time of the last request.
    last_ms: u64,
    /// The first request that may still count. `None` when none does.
    first: Option<Mark>,
    /// The epoch and time before which no rows are left.
    swept_to: (u64, u64),
}

/// The first request of a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Mark {
    ms: u64,
    number: u64,
}

/// The earliest time after which fewer than `limit` requests were made, over all `histories`
/// together. `limit` is not zero. It takes so many seeks as the time of the first request has
/// binary digits, at the most, however many requests there are.
pub(crate) fn fewer_after(
    rows: &mut dyn Reader,
    histories: &[(HistoryId, &History)],
    limit: u64,
) -> Result<u64> {
    let counted = || histories.iter().filter(|(_, history)| history.first.is_some());
    let first_ms = counted().filter_map(|(_, history)| history.first).map(|first| first.ms).min();
    let Some(first_ms) = first_ms else { return Ok(0) };
    // After `high` there are fewer, as there are none. At every time before `low` there are not.
    let (mut low, mut high) =
        (first_ms, counted().map(|(_, history)| history.last_ms).max().unwrap_or(first_ms));
    while low < high {
        let middle = low + (high - low) / 2;
        let mut count = 0_u64;
        for (place, history) in histories {
            count = count.saturating_add(history.count_after(rows, *place, middle)?);
        }
        if count < limit {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

fn row_key(place: HistoryId, epoch: u64, ms: u64) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(25);
    key::push_u64(&mut encoded, place.id);
    encoded.push(place.lane);
    key::push_u64(&mut encoded, epoch);
    key::push_u64(&mut encoded, ms);
    encoded
}

/// The epoch and time of a row.
fn decode_row_key(mut encoded: &[u8]) -> Result<(u64, u64)> {
    fn parts(encoded: &mut &[u8]) -> Option<(u64, u64)> {
        key::take_u64(encoded)?;
        let (_, rest) = encoded.split_first()?;
        *encoded = rest;
        Some((key::take_u64(encoded)?, key::take_u64(encoded)?))
    }
    parts(&mut encoded).ok_or_else(|| damaged("a key that is too short"))
}

/// The number of the window that a request row belongs to, and its lane.
pub(crate) fn place_of(mut encoded: &[u8]) -> Result<HistoryId> {
    let id = key::take_u64(&mut encoded).ok_or_else(|| damaged("a key that is too short"))?;
    let lane = *encoded.first().ok_or_else(|| damaged("a key that is too short"))?;
    Ok(HistoryId { id, lane })
}

/// Refuses a damaged row of requests.
pub(crate) fn check_row(encoded: &[u8], value: &[u8]) -> Result<()> {
    let place = place_of(encoded)?;
    let (epoch, ms) = decode_row_key(encoded)?;
    if row_key(place, epoch, ms) != encoded {
        return Err(damaged("a key that is too long"));
    }
    codec::decode_row::<u64>(Table::RATE_LIMIT_REQUEST.name(), value).map(drop)
}

fn damaged(detail: &str) -> Error {
    Error::corrupted(format!("a row of table {}", Table::RATE_LIMIT_REQUEST.name()), detail)
}

impl History {
    /// The time of the last request, or `None` when there has been none since the last reset.
    pub(crate) fn last_ms(&self) -> Option<u64> {
        (self.next > 0).then_some(self.last_ms)
    }

    /// Whether no request may still count.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The key of a row that the history needs and that is missing or says something else.
    pub(crate) fn lost(&self, rows: &mut dyn Reader, place: HistoryId) -> Result<Option<Vec<u8>>> {
        let Some(first) = self.first else { return Ok(None) };
        let key = row_key(place, self.epoch, first.ms);
        let number = rows.get(Table::RATE_LIMIT_REQUEST, &key)?;
        let number = number
            .map(|number| codec::decode_row::<u64>(Table::RATE_LIMIT_REQUEST.name(), &number));
        if number.transpose()? != Some(first.number) {
            return Ok(Some(key));
        }
        let key = row_key(place, self.epoch, self.last_ms);
        Ok(rows.get(Table::RATE_LIMIT_REQUEST, &key)?.is_none().then_some(key))
    }

    /// Forgets every request.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            epoch: self.epoch.saturating_add(1),
            swept_to: self.swept_to,
            ..Self::default()
        };
    }

    /// How many requests were made less than `window_ms` ago.
    pub(crate) fn count(
        &self,
        rows: &mut dyn Reader,
        place: HistoryId,
        window_ms: u64,
    ) -> Result<u64> {
        let gone_ms = rows.moment().ago(window_ms);
        let first = self.first_within(rows, place, gone_ms)?;
        Ok(first.map_or(0, |first| self.next.saturating_sub(first.number)))
    }

    /// How many requests have a time after `gone_ms`.
    fn count_after(&self, rows: &mut dyn Reader, place: HistoryId, gone_ms: u64) -> Result<u64> {
        let first = self.first_after(rows, place, gone_ms)?;
        Ok(first.map_or(0, |first| self.next.saturating_sub(first.number)))
    }

    /// Forgets the requests that were made `keep_ms` ago or earlier, beyond doubt.
    pub(crate) fn forget(
        &mut self,
        rows: &mut dyn Reader,
        place: HistoryId,
        keep_ms: u64,
    ) -> Result<()> {
        let gone_ms = rows.moment().surely_ago(keep_ms);
        self.first = self.first_within(rows, place, gone_ms)?;
        Ok(())
    }

    /// Adds a request, and removes some of what was forgotten.
    pub(crate) fn record(&mut self, tx: &mut dyn Writer, place: HistoryId) -> Result<()> {
        let now_ms = tx.moment().line_ms();
        let value = codec::encode(&self.next)?;
        self.remove_garbage(tx, place, REMOVED_PER_RECORD)?;
        // A row before `swept_to` would never be removed.
        let swept_ms = if self.swept_to.0 == self.epoch { self.swept_to.1 } else { 0 };
        let ms = now_ms.max(self.last_ms).max(swept_ms);
        if self.first.is_none() || ms > self.last_ms {
            tx.put(Table::RATE_LIMIT_REQUEST, &row_key(place, self.epoch, ms), value);
        }
        self.first.get_or_insert(Mark { ms, number: self.next });
        self.next = self.next.saturating_add(1);
        self.last_ms = ms;
        Ok(())
    }

    /// Whether there may be rows that count no longer.
    pub(crate) fn has_garbage(&self) -> bool {
        self.swept_to < self.garbage_end()
    }

    /// Removes up to `limit` rows that count no longer, and answers how many there were. `limit` is
    /// not zero.
    pub(crate) fn remove_garbage(
        &mut self,
        tx: &mut dyn Writer,
        place: HistoryId,
        limit: usize,
    ) -> Result<usize> {
        if !self.has_garbage() {
            return Ok(0);
        }
        let end = self.garbage_end();
        let from = row_key(place, self.swept_to.0, self.swept_to.1);
        let to = row_key(place, end.0, end.1);
        let (from, to) = (Bound::Included(from.as_slice()), Bound::Excluded(to.as_slice()));
        let found =
            RowCursor::range(Table::RATE_LIMIT_REQUEST, from, to).up_to(limit).collect(tx)?;
        self.swept_to = match found.last() {
            Some((key, _)) if found.len() == limit => {
                let (epoch, ms) = decode_row_key(key)?;
                ms.checked_add(1).map_or((epoch.saturating_add(1), 0), |ms| (epoch, ms))
            }
            _ => end,
        };
        for (key, _) in &found {
            tx.delete(Table::RATE_LIMIT_REQUEST, key);
        }
        Ok(found.len())
    }

    /// The epoch and time from which on rows count.
    fn garbage_end(&self) -> (u64, u64) {
        match (self.first, self.next) {
            (Some(first), _) => (self.epoch, first.ms),
            (None, 0) => (self.epoch, 0),
            (None, _) => (self.epoch, self.last_ms.saturating_add(1)),
        }
    }

    /// The first request with a time after `now_ms - window_ms`.
    fn first_within(
        &self,
        rows: &mut dyn Reader,
        place: HistoryId,
        gone_ms: Option<u64>,
    ) -> Result<Option<Mark>> {
        match gone_ms {
            Some(gone_ms) => self.first_after(rows, place, gone_ms),
            None => Ok(self.first),
        }
    }

    /// The first request with a time after `gone_ms`.
    fn first_after(
        &self,
        rows: &mut dyn Reader,
        place: HistoryId,
        gone_ms: u64,
    ) -> Result<Option<Mark>> {
        let Some(first) = self.first else { return Ok(None) };
        if gone_ms < first.ms {
            return Ok(Some(first));
        }
        if gone_ms >= self.last_ms {
            return Ok(None);
        }
        let from = row_key(place, self.epoch, gone_ms);
        let to = row_key(place, self.epoch, self.last_ms);
        let (from, to) = (Bound::Excluded(from.as_slice()), Bound::Included(to.as_slice()));
        let mut cursor = RowCursor::range(Table::RATE_LIMIT_REQUEST, from, to).up_to(1);
        let Some((key, value)) = cursor.next(rows)? else {
            return Err(damaged("the row of a window's last request is missing"));
        };
        let number = codec::decode_row(Table::RATE_LIMIT_REQUEST.name(), &value)?;
        Ok(Some(Mark { ms: decode_row_key(&key)?.1, number }))
    }
}
