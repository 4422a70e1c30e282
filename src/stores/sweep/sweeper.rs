//! Slice after slice, by the maintenance thread or by hand.

use super::SweepReport;
use super::decide::sweep_rows;
use super::progress::{SweepPosition, Sweeper};
use super::verdict::Budget;
use crate::engine::cursor::RowCursor;
use crate::engine::{Cost, DryRun, MaintenanceHandle, MaintenanceJob, Tick};
use crate::error::{Error, Result};
use crate::observe;
use crate::stores::expiry::decode::decode_key;
use crate::stores::{StoreStates, expiry};
use crate::tables::Table;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How many index rows one slice looks at.
pub(super) const SLICE_ROWS: usize = 128;

/// How many bytes of rows one slice reads at the most, beside its first entry: what was read before
/// the lock is held in memory until the slice is over.
const SLICE_READ_BYTES: usize = 1 << 20;

/// What a slice is going to do.
struct SlicePlan {
    keys: Vec<Vec<u8>>,
    /// Whether these are the last index rows that are due.
    is_last: bool,
}

impl Sweeper {
    /// Sweeps everything that is due now.
    pub(crate) fn sweep(&self, maintenance: &MaintenanceHandle<'_>) -> Result<SweepReport> {
        // Another sweep waits, and then finds little to do.
        let mut round = self.round.lock();
        let horizon_ms = maintenance.now_ms();
        let (mut place, mut report) = (SweepPosition::at(0), SweepReport::default());
        while self.slice(maintenance, horizon_ms, &mut place, &mut report)? {}
        round.tombstones += report.total() + report.rescheduled;
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(report)
    }

    /// One slice of a round. What a round has met is not met again before the next one.
    fn step(&self, maintenance: &MaintenanceHandle<'_>, every: Duration) -> Result<Tick> {
        let mut round = self.round.lock();
        let (mut place, horizon_ms) = match round.under_way.take() {
            Some(under_way) => under_way,
            None => (round.begin(maintenance.checkpoint_lsn(), every), maintenance.now_ms()),
        };
        let mut report = SweepReport::default();
        let more = self.slice(maintenance, horizon_ms, &mut place, &mut report)?;
        round.tombstones += report.total() + report.rescheduled;
        if more {
            round.under_way = Some((place, horizon_ms));
            return Ok(Tick::Again);
        }
        round.looked_at_to_ms = horizon_ms.saturating_add(1);
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(Tick::IdleUntil(first_due_from(maintenance, horizon_ms.saturating_add(1))?))
    }

    /// One transaction. Answers whether there may be more to do up to `horizon_ms`.
    fn slice(
        &self,
        maintenance: &MaintenanceHandle<'_>,
        horizon_ms: u64,
        place: &mut SweepPosition,
        report: &mut SweepReport,
    ) -> Result<bool> {
        let budget = Budget::of_frame(maintenance.max_frame_bytes());
        let mut most_rows = SLICE_ROWS;
        loop {
            let (SlicePlan { mut keys, is_last }, prefetched) =
                maintenance.dry_run(|rows| plan(rows, horizon_ms, place, budget, most_rows))?;
            if keys.is_empty() {
                return Ok(false);
            }
            let started = Instant::now();
            let done = maintenance.transact(&prefetched, |tx| {
                let (next, swept) = sweep_rows(tx, &keys, place.clone(), budget)?;
                Ok((next, swept, tx.staged_rows()))
            });
            match done {
                Ok(Some((next, swept, changes))) => {
                    self.counters.count(&swept, keys.len(), changes);
                    observe::swept(
                        swept.total(),
                        swept.rescheduled,
                        changes as u64,
                        started.elapsed(),
                    );
                    report.add(&swept);
                    *place = next;
                    // An entry that goes in parts is there still.
                    return Ok(!is_last || !matches!(place.from, Bound::Excluded(_)));
                }
                Ok(None) => maintenance.wait_for_headroom()?,
                Err(Error::TooLarge { .. }) if keys.len() > 1 => most_rows = 1,
                Err(Error::TooLarge { .. }) => {
                    report.stepped_over += 1;
                    *place = SweepPosition::behind(keys.swap_remove(0));
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs what is due from `place` on dry, and takes as much of it as a slice may do, at least one
/// index row.
fn plan(
    rows: &mut DryRun,
    horizon_ms: u64,
    place: &SweepPosition,
    budget: Budget,
    most_rows: usize,
) -> Result<SlicePlan> {
    let end = horizon_ms.checked_add(1).map(expiry::first_key);
    let to = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
    let from = place.from.as_ref().map(Vec::as_slice);
    let found = RowCursor::range(Table::EXPIRY, from, to).up_to(most_rows).collect(rows)?;
    let mut is_last = found.len() < most_rows;
    let mut keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
    let before = rows.cost();
    let mut place = place.clone();
    for taken in 0..keys.len() {
        let Some(key) = keys.get(taken..=taken) else { break };
        let (next, _) = sweep_rows(rows, key, place, budget)?;
        let is_over = matches!(next.from, Bound::Excluded(_));
        let too_much = exceeds(rows.cost(), before, budget);
        if too_much || !is_over {
            is_last &= taken + 1 == keys.len() && !too_much;
            // One that is too much by itself is the first of its slice, and its only one.
            keys.truncate(if taken > 0 && too_much { taken } else { taken + 1 });
            break;
        }
        place = next;
    }
    Ok(SlicePlan { keys, is_last })
}

fn exceeds(cost: Cost, before: Cost, budget: Budget) -> bool {
    cost.changes - before.changes > budget.changes
        || cost.frame_bytes - before.frame_bytes > budget.frame_bytes
        || cost.read_bytes - before.read_bytes > SLICE_READ_BYTES
}

/// When the first row is due that is due at `from_ms` or later.
fn first_due_from(maintenance: &MaintenanceHandle<'_>, from_ms: u64) -> Result<Option<u64>> {
    let from = expiry::first_key(from_ms);
    let mut due =
        RowCursor::range(Table::EXPIRY, Bound::Included(&from), Bound::Unbounded).up_to(1);
    let first = maintenance.read(|rows| due.next(rows))?;
    Ok(first.and_then(|(key, _)| decode_key(&key).map(|(at_ms, ..)| at_ms)))
}

/// How many index rows are due now, counted up to `most`.
pub(crate) fn backlog(maintenance: &MaintenanceHandle<'_>, most: u64) -> Result<u64> {
    let end = maintenance.now_ms().checked_add(1).map(expiry::first_key);
    let to = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
    let mut due = RowCursor::range(Table::EXPIRY, Bound::Unbounded, to);
    maintenance.read(|rows| {
        let mut count = 0;
        while count < most && due.next(rows)?.is_some() {
            count += 1;
        }
        Ok(count)
    })
}

/// What the maintenance thread does for the sweeper of `states`: it looks at least `every` so
/// often.
pub(crate) fn sweep_job(states: Arc<StoreStates>, every: Duration) -> MaintenanceJob {
    let step = move |maintenance: &MaintenanceHandle<'_>| states.sweeper.step(maintenance, every);
    MaintenanceJob { every, step: Arc::new(step) }
}
