//! Slice after slice, by the maintenance thread or by hand.

use super::SweepReport;
use super::decide::sweep_rows;
use super::due::{DueKeys, due_from, due_keys, next_due};
use super::pace::{BacklogCount, MOST_ROWS, Pace, Pacer};
use super::progress::{Round, SweepPosition, Sweeper};
use super::verdict::Budget;
use crate::engine::time_line::{Moment, indexed_wall};
use crate::engine::{Cost, DryRun, LogShare, MaintenanceHandle, MaintenanceJob, Tick};
use crate::error::{Error, Result};
use crate::observe;
use crate::stores::StoreStates;
use crate::stores::time_line::sweep::begin_walk;
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
    /// Where they begin.
    from: SweepPosition,
    /// What their entries take, as far as it was read.
    read_bytes: usize,
    /// What is staged takes in a frame at the most.
    frame_bytes: usize,
    /// Whether these are the last index rows that are due.
    is_last: bool,
}

impl Sweeper {
    /// Sweeps everything that is due now.
    pub(crate) fn sweep(&self, maintenance: &MaintenanceHandle<'_>) -> Result<SweepReport> {
        // Another sweep waits, and then finds little to do.
        let mut round = self.round.lock();
        let walks = round.follow_wall(maintenance)?;
        let mut report = SweepReport::default();
        // What a walk indexes anew may stand before the row that led to the walk.
        for _ in 0..=u8::from(walks) {
            let now = maintenance.moment();
            let mut place = SweepPosition::beginning();
            let pacer = &mut round.pacer;
            while self.slice(maintenance, &now, (&mut place, pacer), &mut report)? {}
        }
        round.tombstones += report.total() + report.rescheduled;
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(report)
    }

    /// One slice of a round. What a round has met is not met again before the next one.
    fn step(&self, maintenance: &MaintenanceHandle<'_>, every: Duration) -> Result<Tick> {
        let mut round = self.round.lock();
        let (mut place, began) = match round.under_way.take() {
            Some(under_way) => under_way,
            None => {
                round.follow_wall(maintenance)?;
                (round.begin(maintenance.checkpoint_lsn(), every), maintenance.moment())
            }
        };
        let mut report = SweepReport::default();
        let pacer = &mut round.pacer;
        let more = self.slice(maintenance, &began, (&mut place, pacer), &mut report)?;
        round.tombstones += report.total() + report.rescheduled;
        if more {
            round.under_way = Some((place, began));
            return Ok(if round.pacer.is_behind() { Tick::Behind } else { Tick::Again });
        }
        round.looked_at_to = Some(began.deadline_in(1));
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        if round.pacer.is_behind() {
            // More has become due since this round began.
            return Ok(Tick::Behind);
        }
        let now = maintenance.moment();
        Ok(Tick::IdleFor(maintenance.read(|rows| next_due(rows, &began, &now))?))
    }

    /// One transaction. Answers whether there may be more of what was due `now`.
    fn slice(
        &self,
        maintenance: &MaintenanceHandle<'_>,
        now: &Moment,
        (place, pacer): (&mut SweepPosition, &mut Pacer),
        report: &mut SweepReport,
    ) -> Result<bool> {
        let (mut most_rows, mut has_headroom, mut waited) = (usize::MAX, true, false);
        loop {
            let count = || {
                let rows = due_from(maintenance, place, MOST_ROWS)?;
                Ok::<_, Error>(BacklogCount { rows, log_bytes: maintenance.log_bytes() })
            };
            let pace = pacer.decide(has_headroom, waited, count)?;
            if pace == Pace::Headroom && !has_headroom {
                maintenance.wait_for_headroom()?;
                (has_headroom, waited) = (true, true);
                continue;
            }
            let budget = Budget::of_frame(maintenance.max_frame_bytes(), pace.slice_size());
            let rows_of_slice = most_rows.min(SLICE_ROWS * pace.slice_size());
            let started = Instant::now();
            let turn = (pace == Pace::First).then(|| maintenance.take_turn()).transpose()?;
            let (SlicePlan { mut keys, from, read_bytes, frame_bytes, is_last }, prefetched) =
                maintenance.dry_run(|rows| plan(rows, now, place, budget, rows_of_slice))?;
            if keys.is_empty() {
                *place = from;
                if is_last {
                    pacer.nothing_is_due();
                }
                return Ok(!is_last);
            }
            let turn = turn.map_or_else(|| maintenance.take_turn(), Ok)?;
            let share = match pace {
                Pace::Headroom => LogShare::Headroom,
                Pace::InTurn | Pace::First => LogShare::LikeCallers,
            };
            let done = maintenance.transact(turn, share, &prefetched, |tx| {
                let (next, swept) = sweep_rows(tx, &keys, from.clone(), budget)?;
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
                    pacer.slice_done(keys.len(), read_bytes, frame_bytes);
                    // An entry that goes in parts is there still.
                    return Ok(!is_last || !matches!(place.from, Bound::Excluded(_)));
                }
                Ok(None) => has_headroom = false,
                // Neither is there space in the queue. It waits without the lock.
                Err(Error::LogFull { .. }) => maintenance.wait_for_headroom()?,
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

impl Round {
    /// Before a round: has it lead to what ends by the wall clock if another one is trusted than
    /// that by which the index has it. Answers whether it will.
    fn follow_wall(&mut self, maintenance: &MaintenanceHandle<'_>) -> Result<bool> {
        let number = maintenance.moment().wall_number();
        if self.indexed_by == Some(number) {
            return Ok(false);
        }
        let walks = maintenance.read(|rows| indexed_wall(rows))? != number;
        if walks {
            let ((), prefetched) = maintenance.dry_run(|rows| {
                begin_walk(rows);
                Ok(())
            })?;
            loop {
                let turn = maintenance.take_turn()?;
                let begun = maintenance.transact(turn, LogShare::LikeCallers, &prefetched, |tx| {
                    begin_walk(tx);
                    Ok(())
                });
                match begun {
                    Ok(_) => break,
                    Err(Error::LogFull { .. }) => maintenance.wait_for_headroom()?,
                    Err(error) => return Err(error),
                }
            }
            // It may be behind where the rounds of the thread begin.
            self.looked_at_to = None;
        }
        self.indexed_by = Some(number);
        Ok(walks)
    }
}

/// Runs what is due from `place` on dry, and takes as much of it as a slice may do, at least one
/// index row.
fn plan(
    rows: &mut DryRun,
    now: &Moment,
    place: &SweepPosition,
    budget: Budget,
    most_rows: usize,
) -> Result<SlicePlan> {
    let mut place = place.clone();
    let DueKeys { mut keys, mut is_last } = due_keys(rows, now, &mut place, most_rows)?;
    let (from, before) = (place.clone(), rows.cost());
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
    let read_bytes = rows.cost().read_bytes - before.read_bytes;
    let frame_bytes = rows.cost().frame_bytes - before.frame_bytes;
    Ok(SlicePlan { keys, from, read_bytes, frame_bytes, is_last })
}

fn exceeds(cost: Cost, before: Cost, budget: Budget) -> bool {
    cost.changes - before.changes > budget.changes
        || cost.frame_bytes - before.frame_bytes > budget.frame_bytes
        || cost.read_bytes - before.read_bytes > SLICE_READ_BYTES
}

/// What the maintenance thread does for the sweeper of `states`: it looks at least `every` so
/// often.
pub(crate) fn sweep_job(states: Arc<StoreStates>, every: Duration) -> MaintenanceJob {
    let step = move |maintenance: &MaintenanceHandle<'_>| states.sweeper.step(maintenance, every);
    MaintenanceJob { every, step: Arc::new(step) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_may_do_what_its_budget_says_and_no_more() {
        let budget = Budget { changes: 10, frame_bytes: 100 };
        let before = Cost { changes: 5, frame_bytes: 50, read_bytes: 7 };
        let most = Cost { changes: 15, frame_bytes: 150, read_bytes: 7 + SLICE_READ_BYTES };
        assert!(!exceeds(before, before, budget) && !exceeds(most, before, budget));
        assert!(exceeds(Cost { changes: most.changes + 1, ..before }, before, budget));
        assert!(exceeds(Cost { frame_bytes: most.frame_bytes + 1, ..before }, before, budget));
        assert!(exceeds(Cost { read_bytes: most.read_bytes + 1, ..before }, before, budget));
    }

    #[test]
    fn a_large_slice_is_so_many_small_ones_within_a_quarter_of_a_frame() {
        let of = |max_frame_bytes, times| {
            let Budget { changes, frame_bytes } = Budget::of_frame(max_frame_bytes, times);
            (changes, frame_bytes)
        };
        assert_eq!(of(1 << 30, 1), (256, 64 << 10));
        assert_eq!(of(1 << 30, 8), (8 * 256, 512 << 10));
        assert_eq!(of(1 << 20, 8), (8 * 256, 256 << 10));
        assert_eq!([Pace::Headroom, Pace::InTurn, Pace::First].map(Pace::slice_size), [1, 1, 8]);
    }
}
