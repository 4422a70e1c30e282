//! How far the sweeper has come, and what it did.

use super::SweepReport;
use super::pace::Pacer;
use crate::engine::time_line::{Deadline, Moment};
use crate::stores::expiry;
use crate::sync::plain::Mutex;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// From so many tombstones on, rounds that follow each other closely do not begin at the beginning.
const MANY_TOMBSTONES: u64 = 10_000;

/// Where a sweep goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SweepPosition {
    pub(super) from: Bound<Vec<u8>>,
    /// How far the first entry has been walked through, if it is a limiter that was cleared.
    pub(super) walked: Option<Vec<u8>>,
}

impl SweepPosition {
    /// Before the first index row.
    pub(super) fn beginning() -> Self {
        Self { from: Bound::Unbounded, walked: None }
    }

    /// The first index row of a time.
    pub(super) fn at(at: Deadline) -> Self {
        Self { from: Bound::Included(expiry::first_key(at).to_vec()), walked: None }
    }

    /// Behind an index row.
    pub(super) fn behind(key: Vec<u8>) -> Self {
        Self { from: Bound::Excluded(key), walked: None }
    }
}

/// The one sweeper of a room. Sweeps by hand and those of the thread take turns.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    pub(super) round: Mutex<Round>,
    pub(super) counters: SweepCounters,
}

/// What the sweeper did since the room was opened.
#[derive(Debug, Default)]
pub(super) struct SweepCounters {
    swept: AtomicU64,
    rescheduled: AtomicU64,
    pub(super) rounds: AtomicU64,
    slices: AtomicU64,
    /// The most index rows, and the most changes, that one slice had.
    most_rows: AtomicU64,
    most_changes: AtomicU64,
}

/// A picture of the sweeper's work since the room was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SweepCounts {
    /// Entries removed, over all stores.
    pub(crate) swept: u64,
    /// Entries that were indexed under another time.
    pub(crate) rescheduled: u64,
    /// How often it went through everything that was due.
    pub(crate) rounds: u64,
    /// Transactions, each of which held the serial lock once.
    pub(crate) slices: u64,
    /// The most index rows of one slice.
    pub(crate) most_rows: u64,
    /// The most rows that one slice staged, absences too.
    pub(crate) most_changes: u64,
}

/// How far the thread has come.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) under_way: Option<(SweepPosition, Moment)>,
    pub(super) pacer: Pacer,
    /// When the last one began that began at the beginning.
    last_whole: Option<Instant>,
    /// Everything before this time of the epoch has been looked at since then.
    pub(super) looked_at_to: Option<Deadline>,
    /// Index rows removed since the B-tree has been at this position.
    pub(super) tombstones: u64,
    checkpoint_lsn: u64,
    /// By which wall clock the index has what ends by the wall clock, or will when the rows that
    /// are due are swept.
    pub(super) indexed_by: Option<u32>,
}

impl Sweeper {
    /// What was done since the room was opened.
    pub(crate) fn counts(&self) -> SweepCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let SweepCounters { swept, rescheduled, rounds, slices, most_rows, most_changes } =
            &self.counters;
        SweepCounts {
            swept: load(swept),
            rescheduled: load(rescheduled),
            rounds: load(rounds),
            slices: load(slices),
            most_rows: load(most_rows),
            most_changes: load(most_changes),
        }
    }
}

impl SweepCounters {
    pub(super) fn count(&self, swept: &SweepReport, rows: usize, changes: usize) {
        self.swept.fetch_add(swept.total(), Ordering::Relaxed);
        self.rescheduled.fetch_add(swept.rescheduled, Ordering::Relaxed);
        self.slices.fetch_add(1, Ordering::Relaxed);
        self.most_rows.fetch_max(rows as u64, Ordering::Relaxed);
        self.most_changes.fetch_max(changes as u64, Ordering::Relaxed);
    }
}

impl Round {
    /// Where the next round begins. At the beginning, as a rule, because a row may be indexed under
    /// a time that has passed. After many removals the beginning is full of tombstones until the
    /// next checkpoint, and is looked at only now and then.
    pub(super) fn begin(&mut self, checkpoint_lsn: u64, every: Duration) -> SweepPosition {
        if self.checkpoint_lsn != checkpoint_lsn {
            (self.checkpoint_lsn, self.tombstones) = (checkpoint_lsn, 0);
        }
        let is_fresh = self.last_whole.is_some_and(|last| last.elapsed() < every);
        if is_fresh && self.tombstones >= MANY_TOMBSTONES {
            return self.looked_at_to.map_or_else(SweepPosition::beginning, SweepPosition::at);
        }
        self.last_whole = Some(Instant::now());
        SweepPosition::beginning()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_begins_behind_many_tombstones_until_it_is_time_or_a_checkpoint_has_removed_them() {
        let (hour, beginning) = (Duration::from_secs(3_600), SweepPosition::beginning());
        let to = Deadline { epoch: 0, at_ms: 5 };
        let mut round = Round { looked_at_to: Some(to), ..Round::default() };
        round.tombstones = MANY_TOMBSTONES;
        assert_eq!(round.begin(0, hour), beginning, "the first one");
        assert_eq!(round.begin(0, hour), SweepPosition::at(to));
        round.tombstones = MANY_TOMBSTONES - 1;
        assert_eq!(round.begin(0, hour), beginning);
        round.tombstones = MANY_TOMBSTONES;
        assert_eq!(round.begin(0, Duration::ZERO), beginning, "the last one is too long ago");
        assert_eq!(round.begin(0, hour), SweepPosition::at(to));
        assert_eq!(round.begin(7, hour), beginning, "a checkpoint");
        assert_eq!((round.checkpoint_lsn, round.tombstones), (7, 0));
        round.tombstones = MANY_TOMBSTONES;
        round.looked_at_to = None;
        assert_eq!(round.begin(7, hour), beginning, "nothing was looked at");
    }
}
