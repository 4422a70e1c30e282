//! Which rows of the expiry index are due: epoch by epoch of the time line, each up to the point
//! that is beyond doubt for it.

use super::progress::SweepPosition;
use crate::engine::MaintenanceHandle;
use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::{Deadline, Moment};
use crate::error::Result;
use crate::stores::expiry::{self, decode::decode_key};
use crate::tables::Table;
use std::ops::Bound;

/// How many epochs one look passes in which nothing is due.
const EPOCHS_AT_ONCE: usize = 64;

/// Rows of the index that are due.
pub(super) struct DueKeys {
    /// In order, all of one epoch.
    pub(super) keys: Vec<Vec<u8>>,
    /// Whether nothing is due behind them.
    pub(super) is_last: bool,
}

/// The first rows that are due `now` from `place` on, at most `most`. `place` moves to where they
/// are, past epochs of which nothing is due.
pub(super) fn due_keys(
    rows: &mut dyn Reader,
    now: &Moment,
    place: &mut SweepPosition,
    most: usize,
) -> Result<DueKeys> {
    for _ in 0..EPOCHS_AT_ONCE {
        let from = place.from.as_ref().map(Vec::as_slice);
        let mut first = RowCursor::range(Table::EXPIRY, from, Bound::Unbounded).up_to(1);
        let Some((key, _)) = first.next(rows)? else {
            return Ok(DueKeys { keys: Vec::new(), is_last: true });
        };
        let Some(epoch) = epoch_of(&key) else {
            // It is stepped over by who sweeps it.
            return Ok(DueKeys { keys: vec![key], is_last: false });
        };
        let end = behind_horizon(now, epoch);
        let to = Bound::Excluded(end.as_slice());
        let due = RowCursor::range(Table::EXPIRY, from, to).up_to(most).collect(rows)?;
        if !due.is_empty() {
            let is_last = due.len() < most && epoch >= now.epoch();
            let keys = due.into_iter().map(|(key, _)| key).collect();
            return Ok(DueKeys { keys, is_last });
        }
        let Some(next) = epoch.checked_add(1) else {
            return Ok(DueKeys { keys: Vec::new(), is_last: true });
        };
        *place = SweepPosition::at(Deadline { epoch: next, at_ms: 0 });
    }
    Ok(DueKeys { keys: Vec::new(), is_last: false })
}

/// How many milliseconds pass from `now` on before the first row is due that was not due when the
/// round `began`: none if that happened during the round.
pub(super) fn next_due(rows: &mut dyn Reader, began: &Moment, now: &Moment) -> Result<Option<u64>> {
    let (mut place, mut least_ms) = (Vec::new(), None::<u64>);
    for _ in 0..EPOCHS_AT_ONCE {
        let from = Bound::Included(place.as_slice());
        let mut first = RowCursor::range(Table::EXPIRY, from, Bound::Unbounded).up_to(1);
        let Some((key, _)) = first.next(rows)? else { break };
        let Some((at, ..)) = decode_key(&key) else {
            place = [&*key, &[0]].concat();
            continue;
        };
        if began.horizon(at.epoch).is_some_and(|horizon_ms| at.at_ms <= horizon_ms) {
            place = behind_horizon(began, at.epoch).to_vec();
            continue;
        }
        let left_ms = at.at_ms.saturating_sub(now.horizon(at.epoch).unwrap_or(0));
        least_ms = Some(least_ms.map_or(left_ms, |least_ms| least_ms.min(left_ms)));
        let Some(next) = at.epoch.checked_add(1) else { break };
        place = expiry::first_key(Deadline { epoch: next, at_ms: 0 }).to_vec();
    }
    Ok(least_ms)
}

/// How many index rows are due now, counted up to `most`.
pub(crate) fn backlog(maintenance: &MaintenanceHandle<'_>, most: u64) -> Result<u64> {
    due_from(maintenance, &SweepPosition::beginning(), most)
}

/// How many index rows from `place` on are due now, counted up to `most`. A round that takes long
/// leaves what has become due since it began to the next one, but it is backlog all the same.
pub(super) fn due_from(
    maintenance: &MaintenanceHandle<'_>,
    place: &SweepPosition,
    most: u64,
) -> Result<u64> {
    let (now, mut place) = (maintenance.moment(), place.clone());
    maintenance.read(|rows| {
        let mut count = 0_u64;
        while count < most {
            let left = usize::try_from(most - count).unwrap_or(usize::MAX).min(1_024);
            let due = due_keys(rows, &now, &mut place, left)?;
            count += due.keys.len() as u64;
            if due.is_last {
                break;
            }
            if let Some(last) = due.keys.into_iter().next_back() {
                place = SweepPosition::behind(last);
            }
        }
        Ok(count)
    })
}

/// The first key of `epoch` that is not due.
fn behind_horizon(now: &Moment, epoch: u32) -> [u8; 12] {
    let end_ms = now.horizon(epoch).map_or(0, |horizon_ms| horizon_ms + 1);
    expiry::first_key(Deadline { epoch, at_ms: end_ms })
}

fn epoch_of(key: &[u8]) -> Option<u32> {
    key.first_chunk().map(|epoch| u32::from_be_bytes(*epoch))
}
