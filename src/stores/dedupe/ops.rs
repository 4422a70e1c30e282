//! The operations on jobs, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. A job id is in at most one row, and a row that has left `Pending` never returns to it with
//!    the same job id. So a waiter that knows the job id can tell from any later row that the job
//!    has ended.
//! 2. A row with an end has exactly one row in the expiry index, at that end. A row without an end
//!    has none.

use super::row::{JobRow, Progress, prefix_of};
use super::{DedupeEntry, DedupeStats, JobId, JobState, Registration};
use crate::engine::access::{Reader, Value, Writer};
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::{Deadline, Moment};
use crate::engine::{Found, Judge};
use crate::error::{Error, Result};
use crate::limits::MAX_KEY_LEN;
use crate::stores::cache::content::{EncodedValue, ValueContent};
use crate::stores::expiry;
use crate::stores::frame::{FrameBudget, StepRange, row_cost};
use crate::stores::page::{Cursor, Page, check_limit, page_of};
use crate::stores::span::span_ms;
use crate::tables::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use ulid::Ulid;

const TABLE: Table = Table::DEDUPE_JOB;

/// The error of a job whose owner belonged to an earlier opening of the file.
const LEFT_PENDING: &str = "left pending by an earlier opening of the file";

/// A job timeout in milliseconds, rounded up; `None` for never, which is written as zero.
pub(crate) fn timeout_ms(timeout: Duration) -> Option<u64> {
    Some(span_ms(timeout)).filter(|ms| *ms > 0)
}

/// What is stored of `value`, unless it has more than `max_bytes`. Apart from [`end`], so that it
/// is not done under the engine's lock.
pub(crate) fn encode_value<T: Serialize + DeserializeOwned + 'static>(
    value: &T,
    max_bytes: usize,
) -> Result<EncodedValue<'_>> {
    let encoded = EncodedValue::of(value)?;
    let len = encoded.content().len();
    if len > max_bytes {
        let (size, limit) = (len as u64, max_bytes as u64);
        return Err(Error::TooLarge { what: "the encoded value", size, limit });
    }
    Ok(encoded)
}

/// The part of an error's text that is kept.
pub(crate) fn kept_of(error: &str) -> &str {
    // `str::floor_char_boundary` is newer than the oldest toolchain.
    let end = (0..=MAX_KEY_LEN).rev().find(|end| error.is_char_boundary(*end));
    end.and_then(|end| error.get(..end)).unwrap_or(error)
}

/// The opening of the file and the timeout that the operations of a handle use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) opening_id: u64,
    pub(crate) timeout_ms: Option<u64>,
}

impl Terms {
    /// When a job that begins `now` ends.
    fn ends_at(&self, now: &Moment) -> Option<Deadline> {
        self.timeout_ms.map(|timeout_ms| now.deadline_in(timeout_ms))
    }
}

/// Writes `new` over `old`, in the expiry index too.
fn write(
    tx: &mut dyn Writer,
    key: &[u8],
    old: Option<&JobRow<'_>>,
    new: &JobRow<'_>,
) -> Result<()> {
    let value = new.encode()?;
    tx.put(TABLE, key, value);
    let indexed_at = old.and_then(|old| old.ends_at);
    match (indexed_at, new.ends_at) {
        (_, Some(to)) => expiry::move_to(tx, indexed_at, to, TABLE, key),
        (Some(from), None) => expiry::delete(tx, from, TABLE, key),
        (None, None) => (),
    }
    Ok(())
}

/// The pending job at `key`, or else a new one. `random` makes its id its own.
pub(crate) fn register_or_join(
    tx: &mut dyn Writer,
    key: &[u8],
    terms: Terms,
    random: u128,
) -> Result<Registration> {
    let now = tx.moment();
    let bytes = tx.get(TABLE, key)?;
    let old = bytes.as_deref().map(JobRow::decode).transpose()?;
    if let Some(old) = &old
        && old.is_pending(&now, terms.opening_id)
    {
        return Ok(Registration { job_id: JobId::from_bytes(old.job), is_owner: false });
    }
    let job_id = JobId::new(Ulid::from_parts(now.wall_ms(), random).into());
    let new = JobRow {
        job: job_id.to_bytes(),
        opening_id: terms.opening_id,
        ends_at: terms.ends_at(&now),
        progress: Progress::Pending,
    };
    write(tx, key, old.as_ref(), &new)?;
    Ok(Registration { job_id, is_owner: true })
}

/// Ends the pending job at `key`, if it is `job_id` or any will do. Whether it did.
pub(crate) fn end(
    tx: &mut dyn Writer,
    key: &[u8],
    terms: Terms,
    job_id: Option<&JobId>,
    progress: Progress<'_>,
) -> Result<bool> {
    let now = tx.moment();
    let Some(bytes) = tx.get(TABLE, key)? else { return Ok(false) };
    let old = JobRow::decode(&bytes)?;
    let is_it = job_id.is_none_or(|job_id| job_id.to_bytes() == old.job);
    if !is_it || !old.is_pending(&now, terms.opening_id) {
        return Ok(false);
    }
    let new = JobRow { ends_at: terms.ends_at(&now), progress, ..old };
    write(tx, key, Some(&old), &new)?;
    Ok(true)
}

/// Whether the job at `key` is pending.
pub(crate) fn is_in_progress(rows: &mut dyn Reader, key: &[u8], opening_id: u64) -> Result<bool> {
    let now = rows.moment();
    let Some(bytes) = rows.get(TABLE, key)? else { return Ok(false) };
    Ok(JobRow::decode(&bytes)?.is_pending(&now, opening_id))
}

/// The value that a row gives to the callers that wait for its job: `None` when it is not a `T`.
pub(crate) fn value_of<T: DeserializeOwned + 'static>(row: Option<Value>) -> Result<Option<T>> {
    let Some(bytes) = row else { return Ok(None) };
    match JobRow::decode(&bytes)?.progress {
        Progress::Completed(json) => Ok(ValueContent::Json(json).value()),
        Progress::CompletedBytes(bytes) => Ok(ValueContent::Bytes(bytes).value()),
        Progress::Pending | Progress::Failed(_) => Ok(None),
    }
}

/// The value of the job at `key` if it has ended, or else how to wait for it.
pub(crate) fn look<T: DeserializeOwned + 'static>(
    rows: &mut dyn Reader,
    key: &[u8],
    opening_id: u64,
) -> Result<Found<Option<T>>> {
    let now = rows.moment();
    let Some(bytes) = rows.get(TABLE, key)? else { return Ok(Found::Now(None)) };
    let row = JobRow::decode(&bytes)?;
    if row.is_pending(&now, opening_id) {
        return Ok(Found::Later(judge_of(row.job), row.ends_at));
    }
    if !row.is_live(&now) {
        return Ok(Found::Now(None));
    }
    value_of(Some(bytes)).map(Found::Now)
}

/// Decides whether `job` has ended: its row is gone, belongs to another job, or is no longer
/// pending.
fn judge_of(job: [u8; 16]) -> Judge {
    Arc::new(move |row| {
        let Some(bytes) = row else { return Some(None) };
        match JobRow::decode(bytes) {
            Ok(row) if row.job == job => match row.progress {
                Progress::Pending => None,
                Progress::Completed(_) | Progress::CompletedBytes(_) => {
                    Some(Some(Arc::clone(bytes)))
                }
                Progress::Failed(_) => Some(None),
            },
            Ok(_) | Err(_) => Some(None),
        }
    })
}

/// Removes the jobs of `range` whose keys begin with `prefix`, as many as the budget allows.
/// Whether none is left. An error changes nothing.
pub(crate) fn clear(
    tx: &mut dyn Writer,
    prefix: &[u8],
    range: &mut StepRange,
    mut budget: FrameBudget,
) -> Result<bool> {
    let mut jobs = range.cursor(TABLE, prefix);
    let (mut removed, mut is_all) = (Vec::new(), true);
    while let Some((key, value)) = jobs.next(tx)? {
        let ends_at = JobRow::decode(&value)?.ends_at;
        // The job and its row in the expiry index.
        if !budget.take(row_cost(key.len()) + row_cost(expiry::KEY_OVERHEAD + key.len())) {
            is_all = false;
            break;
        }
        removed.push((key, ends_at));
    }
    for (key, ends_at) in &removed {
        if let Some(ends_at) = *ends_at {
            expiry::delete(tx, ends_at, TABLE, key);
        }
        tx.delete(TABLE, key);
    }
    range.after = removed.pop().map(|(key, _)| key).or(range.after.take());
    Ok(is_all)
}

/// A page of the jobs of the store called `name` behind `cursor`.
pub(crate) fn list(
    rows: &mut dyn Reader,
    name: &str,
    opening_id: u64,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<DedupeEntry>> {
    check_limit(limit)?;
    let prefix = prefix_of(name)?;
    let after = Cursor::position(cursor, TABLE, &prefix)?;
    let now = rows.moment();
    let mut jobs = RowCursor::prefix(TABLE, &prefix).after(after);
    page_of(TABLE, limit, || {
        while let Some((key, value)) = jobs.next(rows)? {
            let row = JobRow::decode(&value)?;
            if row.is_live(&now) {
                let hash = key.strip_prefix(prefix.as_slice()).unwrap_or_default();
                let entry = entry(hash, &row, opening_id, &now)?;
                return Ok(Some((key, entry)));
            }
        }
        Ok(None)
    })
}

fn entry(hash: &[u8], row: &JobRow<'_>, opening_id: u64, now: &Moment) -> Result<DedupeEntry> {
    let hash = std::str::from_utf8(hash).map_err(|_| {
        Error::corrupted(format!("a key of table {}", TABLE.name()), "a hash that is not UTF-8")
    })?;
    let state = match row.progress {
        Progress::Pending if row.opening_id == opening_id => JobState::Pending,
        Progress::Pending => JobState::Failed { error: LEFT_PENDING.into() },
        Progress::Completed(stored) | Progress::CompletedBytes(stored) => {
            JobState::Completed { bytes: stored.len() as u64 }
        }
        Progress::Failed(error) => JobState::Failed { error: error.into() },
    };
    let job_id = JobId::from_bytes(row.job);
    let ends_at_ms = row.ends_at.map(|ends_at| now.wall_of(ends_at));
    let created_at_ms = Ulid::from_bytes(row.job).timestamp_ms();
    Ok(DedupeEntry { hash: hash.into(), job_id, state, created_at_ms, ends_at_ms })
}

/// Counts every job of the store called `name`; its waiters are counted elsewhere.
pub(crate) fn stats(rows: &mut dyn Reader, name: &str, opening_id: u64) -> Result<DedupeStats> {
    let prefix = prefix_of(name)?;
    let now = rows.moment();
    let mut stats = DedupeStats::default();
    let mut jobs = RowCursor::prefix(TABLE, &prefix);
    while let Some((key, value)) = jobs.next(rows)? {
        let row = JobRow::decode(&value)?;
        stats.bytes += (key.len() + value.len()) as u64;
        let count = match row.progress {
            _ if !row.is_live(&now) => &mut stats.expired,
            Progress::Pending if row.opening_id == opening_id => &mut stats.pending,
            Progress::Pending | Progress::Failed(_) => &mut stats.failed,
            Progress::Completed(_) | Progress::CompletedBytes(_) => &mut stats.completed,
        };
        *count += 1;
    }
    Ok(stats)
}

#[cfg(test)]
mod tests;
