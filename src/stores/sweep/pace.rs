//! When a slice waits for headroom in the log, when it takes its turn like a caller, and when it
//! goes before callers.
//!
//! Callers come first while little is due: a slice then waits until the other segment of the log is
//! free, so that the sweeper never makes a caller wait for a checkpoint. In a room whose log is
//! full all the time that moment never comes. So the backlog is bounded in three ways:
//!
//! 1. While more is due than [`BACKLOG_ROWS`] or [`BACKLOG_BYTES`], a slice takes its turn at the
//!    serial lock and its place in the log like any caller, and the thread does not pause between
//!    slices.
//! 2. While more is due than [`MOST_ROWS`] or [`MOST_BYTES`], and callers write more than the
//!    sweeper does, a slice is larger and reads under the lock, too, what it otherwise reads
//!    before. So callers get the lock for a moment after each slice, and write no more than is
//!    swept. They notice it as throughput. A large backlog beside few calls never comes to that.
//! 3. Below these bounds a slice waits for one checkpoint at the most.
//!
//! Nothing here reads a clock, a lock or a row: the decision is a function of what was counted.

/// From so many due index rows on the sweeper takes its turn like a caller. It is 64 slices: little
/// enough that the file stays small, and enough that a burst does not disturb callers.
const BACKLOG_ROWS: u64 = 8_192;

/// The same for the bytes of the entries that are due, which may be large.
const BACKLOG_BYTES: u64 = 16 << 20;

/// From so many due index rows on the sweeper goes before callers.
pub(super) const MOST_ROWS: u64 = 4 * BACKLOG_ROWS;

/// The same for the bytes of the entries that are due.
const MOST_BYTES: u64 = 4 * BACKLOG_BYTES;

/// How many slices go by between two counts of the backlog. Half of the slices of
/// [`BACKLOG_ROWS`], so that a backlog over the bound is not used up before it is counted again.
const SLICES_PER_COUNT: u32 = 32;

/// What a count found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BacklogCount {
    /// Index rows that are due, counted up to [`MOST_ROWS`].
    pub(super) rows: u64,
    /// Bytes that the log has taken since the room was opened.
    pub(super) log_bytes: u64,
}

/// What the pace is decided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Backlog {
    /// Index rows that are due.
    rows: u64,
    /// What their entries take.
    bytes: u64,
    /// Whether callers have written more than the sweeper since the last count.
    grows: bool,
}

/// What a slice does about the log and the serial lock, the most patient first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Pace {
    /// It waits for headroom.
    #[default]
    Headroom,
    /// It takes its turn like a caller.
    InTurn,
    /// It holds the lock while it reads, too.
    First,
}

impl Pace {
    /// How many times as large as the smallest slice one is. While it goes before callers it is
    /// large, because they write for about a millisecond between two of them.
    pub(super) fn slice_size(self) -> usize {
        match self {
            Self::Headroom | Self::InTurn => 1,
            Self::First => 8,
        }
    }

    /// What is right for so much.
    fn of(backlog: Backlog) -> Self {
        let reaches = |rows, bytes| backlog.rows >= rows || backlog.bytes >= bytes;
        if backlog.grows && reaches(MOST_ROWS, MOST_BYTES) {
            Self::First
        } else if reaches(BACKLOG_ROWS, BACKLOG_BYTES) {
            Self::InTurn
        } else {
            Self::Headroom
        }
    }
}

/// Decides for slice after slice.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// The pace that the last count asked for.
    pace: Pace,
    /// For how many more slices it holds, unless it is [`Pace::Headroom`].
    left: u32,
    /// Slices since the backlog was counted.
    since_count: u32,
    /// What an entry of the last slice took.
    entry_bytes: u64,
    /// What the log had taken at the last count.
    log_bytes: Option<u64>,
    /// What slices have written to it since.
    slice_bytes: u64,
}

impl Pacer {
    /// The pace of the next slice, which found headroom or not. `waited` says whether it has waited
    /// for a checkpoint already. `count` counts what is due; it is called rarely.
    pub(super) fn decide<E>(
        &mut self,
        has_headroom: bool,
        waited: bool,
        count: impl FnOnce() -> Result<BacklogCount, E>,
    ) -> Result<Pace, E> {
        let is_time_to_count = self.left == 0
            && if has_headroom { self.since_count >= SLICES_PER_COUNT } else { !waited };
        if is_time_to_count {
            let BacklogCount { rows, log_bytes } = count()?;
            let written = self.log_bytes.map(|before| log_bytes.saturating_sub(before));
            let others = written.unwrap_or_default().saturating_sub(self.slice_bytes);
            let (bytes, grows) = (rows.saturating_mul(self.entry_bytes), others > self.slice_bytes);
            self.pace = Pace::of(Backlog { rows, bytes, grows });
            (self.since_count, self.left) = (0, SLICES_PER_COUNT);
            (self.log_bytes, self.slice_bytes) = (Some(log_bytes), 0);
        }
        if self.left == 0 || self.pace == Pace::Headroom {
            (self.pace, self.left) = (Pace::Headroom, 0);
        }
        Ok(if waited { self.pace.max(Pace::InTurn) } else { self.pace })
    }

    /// A slice was done, which looked at so many index rows, read so many bytes of their entries,
    /// and wrote so many to the log.
    pub(super) fn slice_done(&mut self, rows: usize, read_bytes: usize, written: usize) {
        self.entry_bytes = (read_bytes / rows.max(1)) as u64;
        self.slice_bytes += written as u64;
        self.left = self.left.saturating_sub(1);
        self.since_count = self.since_count.saturating_add(1);
    }

    /// A slice found nothing to do.
    pub(super) fn nothing_is_due(&mut self) {
        self.left = 0;
    }

    /// Whether the thread goes from slice to slice without a pause.
    pub(super) fn is_behind(&self) -> bool {
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Decides where so many rows are due and the log has taken so many bytes.
    fn decide(pacer: &mut Pacer, (has_headroom, waited): (bool, bool), count: (u64, u64)) -> Pace {
        let (rows, log_bytes) = count;
        let count = || Ok::<_, Infallible>(BacklogCount { rows, log_bytes });
        pacer.decide(has_headroom, waited, count).unwrap()
    }

    fn slice_done(pacer: &mut Pacer) {
        pacer.slice_done(128, 128 * 100, 10_000);
    }

    #[test]
    fn a_slice_waits_for_headroom_unless_too_much_is_due_or_it_has_waited() {
        let (callers, sweeper) = (1_000, 2_000);
        for (has_headroom, waited, rows, entry_bytes, more_by, expected) in [
            (true, false, 0, 100, callers, Pace::Headroom),
            // Not counted before some slices were done.
            (true, false, MOST_ROWS, 100, callers, Pace::Headroom),
            (false, false, BACKLOG_ROWS - 1, 100, callers, Pace::Headroom),
            (false, false, BACKLOG_ROWS, 100, callers, Pace::InTurn),
            (false, false, MOST_ROWS - 1, 100, callers, Pace::InTurn),
            (false, false, MOST_ROWS, 100, callers, Pace::First),
            (false, false, MOST_ROWS, 100, sweeper, Pace::InTurn),
            // Few entries, but large ones.
            (false, false, 15, 1 << 20, callers, Pace::Headroom),
            (false, false, 16, 1 << 20, callers, Pace::InTurn),
            (false, false, 63, 1 << 20, callers, Pace::InTurn),
            (false, false, 64, 1 << 20, callers, Pace::First),
            (false, false, 64, 1 << 20, sweeper, Pace::InTurn),
            // One checkpoint is enough, however little is due.
            (false, true, 0, 100, callers, Pace::InTurn),
            (true, true, 0, 100, callers, Pace::InTurn),
        ] {
            let mut pacer = Pacer { entry_bytes, log_bytes: Some(5), ..Pacer::default() };
            pacer.slice_bytes = more_by;
            let pace = decide(&mut pacer, (has_headroom, waited), (rows, 5 + more_by + 1_500));
            assert_eq!(pace, expected, "{has_headroom} {waited} {rows} {entry_bytes} {more_by}");
        }
    }

    #[test]
    fn the_first_count_does_not_know_yet_what_callers_write() {
        let mut pacer = Pacer::default();
        assert_eq!(decide(&mut pacer, (false, false), (MOST_ROWS, 1 << 30)), Pace::InTurn);
        (0..SLICES_PER_COUNT).for_each(|_| slice_done(&mut pacer));
        assert_eq!(decide(&mut pacer, (false, false), (MOST_ROWS, 2 << 30)), Pace::First);
        (0..SLICES_PER_COUNT).for_each(|_| slice_done(&mut pacer));
        assert_eq!(decide(&mut pacer, (false, false), (MOST_ROWS, 2 << 30)), Pace::InTurn);
    }

    #[test]
    fn the_backlog_is_counted_once_for_many_slices_whether_or_not_there_is_headroom() {
        for has_headroom in [true, false] {
            let (mut pacer, mut counted) = (Pacer::default(), 0);
            for _ in 0..10 * SLICES_PER_COUNT {
                let count = || {
                    counted += 1;
                    Ok::<_, Infallible>(BacklogCount { rows: MOST_ROWS, log_bytes: 0 })
                };
                pacer.decide(has_headroom, false, count).unwrap();
                slice_done(&mut pacer);
            }
            assert!((9..=10).contains(&counted), "{counted}");
        }
    }

    #[test]
    fn it_is_behind_until_a_count_finds_little() {
        let mut pacer = Pacer::default();
        assert!(!pacer.is_behind());
        assert_eq!(decide(&mut pacer, (false, false), (BACKLOG_ROWS, 0)), Pace::InTurn);
        for _ in 0..SLICES_PER_COUNT {
            assert!(pacer.is_behind());
            assert_eq!(decide(&mut pacer, (false, false), (0, 0)), Pace::InTurn);
            slice_done(&mut pacer);
        }
        assert!(!pacer.is_behind());
        assert_eq!(decide(&mut pacer, (false, false), (0, 0)), Pace::Headroom);
        assert!(!pacer.is_behind());
        assert_eq!(decide(&mut pacer, (false, false), (BACKLOG_ROWS, 0)), Pace::InTurn);
        pacer.nothing_is_due();
        assert!(!pacer.is_behind());
    }

    #[test]
    fn what_the_last_entries_took_and_what_slices_wrote_is_counted() {
        let mut pacer = Pacer::default();
        slice_done(&mut pacer);
        slice_done(&mut pacer);
        assert_eq!((pacer.entry_bytes, pacer.slice_bytes), (100, 20_000));
    }
}
