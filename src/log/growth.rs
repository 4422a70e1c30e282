//! How much of each segment is used: little in a quiet room, more while the log fills quickly.
//!
//! A checkpoint writes every page of the B-tree that one of its rows lies on. The more rows a
//! segment holds, the more of them share a page, and the fewer bytes and instructions a row costs;
//! but the rows are in memory meanwhile, and a recovery replays them. So a segment is as large as
//! the load needs: it has its place in the file from the beginning, and gets space there.
//!
#![doc = include_str!("../../docs/tables/log-space.md")]

use super::segment::SEGMENTS;
use crate::limits::{BLOCK_SIZE, LEAST_LOG_SPACE};

/// The space of a segment in a quiet room, its headers included.
pub(crate) const LEAST_SPACE: u64 = LEAST_LOG_SPACE / SEGMENTS as u64;

/// A segment that was filled sooner than in so many milliseconds gets twice the space.
const FILLED_SOON_MS: u64 = 15_000;

/// A segment that took longer than so many milliseconds gets half of it.
const FILLED_LATE_MS: u64 = 10 * 60 * 1_000;

/// What a B-tree of a few pages does not make larger: then a segment gets no more than this.
const SPACE_BESIDE_SMALL_BTREE: u64 = 8 << 20;

/// How much of the segments may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpaceBounds {
    least: u64,
    most: u64,
}

impl SpaceBounds {
    /// Those of segments that take so many bytes in the file.
    pub(super) fn of(segment_size: u64) -> Self {
        Self { least: least_space().min(segment_size), most: segment_size }
    }

    pub(super) fn least(self) -> u64 {
        self.least
    }

    pub(super) fn most(self) -> u64 {
        self.most
    }

    /// The space of a segment that has frames up to `position`.
    pub(super) fn with_frames(self, position: u64) -> u64 {
        position.next_multiple_of(BLOCK_SIZE as u64).clamp(self.least, self.most)
    }

    /// The space for the next use of a segment that had `space` when it was used last, and was
    /// filled in that time, if it was.
    ///
    /// Where the B-tree is small, its pages are shared by many rows whatever the log holds.
    pub(super) fn next(self, space: u64, filled_in_ms: Option<u64>, btree_len: u64) -> u64 {
        let most = btree_len.max(SPACE_BESIDE_SMALL_BTREE).min(self.most);
        let next = match filled_in_ms {
            Some(took_ms) if took_ms < FILLED_SOON_MS => {
                space.saturating_mul(2).min(most).max(space)
            }
            Some(took_ms) if took_ms > FILLED_LATE_MS => space / 2,
            _ => space,
        };
        // A frame that is larger than the space may have had more.
        self.with_frames(next)
    }
}

#[cfg(not(any(test, feature = "testing")))]
fn least_space() -> u64 {
    LEAST_SPACE
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static LEAST: std::cell::Cell<u64> = const { std::cell::Cell::new(LEAST_SPACE) };
}

#[cfg(any(test, feature = "testing"))]
fn least_space() -> u64 {
    LEAST.get()
}

/// Has the logs that `open` opens on this thread begin with so many bytes for each segment, so that
/// a simulation sees them grow in a few steps.
#[cfg(any(test, feature = "testing"))]
pub fn with_least_log_space<R>(bytes: u64, open: impl FnOnce() -> R) -> R {
    let before = LEAST.replace(bytes);
    let opened = open();
    LEAST.set(before);
    opened
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SOON: Option<u64> = Some(FILLED_SOON_MS - 1);
    const LATE: Option<u64> = Some(FILLED_LATE_MS + 1);

    #[test]
    fn a_segment_that_is_filled_soon_gets_twice_the_space_up_to_its_size() {
        let bounds = SpaceBounds::of(20 * MIB);
        assert_eq!(bounds.least(), LEAST_SPACE);
        let mut spaces = vec![bounds.least()];
        for _ in 0..8 {
            spaces.push(bounds.next(*spaces.last().unwrap(), SOON, 64 * MIB));
        }
        let of = |halves: u64| halves * MIB / 2;
        let expected = [1, 2, 4, 8, 16, 32, 40, 40, 40].map(of);
        assert_eq!(spaces, expected);
    }

    #[test]
    fn one_that_is_filled_late_gets_half_and_one_that_is_not_filled_keeps_what_it_has() {
        let bounds = SpaceBounds::of(20 * MIB);
        assert_eq!(bounds.next(16 * MIB, LATE, 64 * MIB), 8 * MIB);
        assert_eq!(bounds.next(LEAST_SPACE, LATE, 64 * MIB), LEAST_SPACE);
        assert_eq!(bounds.next(16 * MIB, None, 64 * MIB), 16 * MIB);
        for between_ms in [FILLED_SOON_MS, FILLED_LATE_MS] {
            assert_eq!(bounds.next(4 * MIB, Some(between_ms), 64 * MIB), 4 * MIB);
        }
    }

    #[test]
    fn a_small_btree_makes_a_segment_no_larger_than_eight_mebibytes_or_itself() {
        let bounds = SpaceBounds::of(64 * MIB);
        assert_eq!(bounds.next(8 * MIB, SOON, 0), 8 * MIB);
        assert_eq!(bounds.next(8 * MIB, SOON, 12 * MIB), 12 * MIB);
        assert_eq!(bounds.next(8 * MIB, SOON, 17 * MIB), 16 * MIB);
        // One that has more already keeps it while it is needed.
        assert_eq!(bounds.next(32 * MIB, SOON, 0), 32 * MIB);
        assert_eq!(bounds.next(32 * MIB, LATE, 0), 16 * MIB);
    }

    #[test]
    fn the_space_is_whole_blocks_within_the_segment() {
        let bounds = SpaceBounds::of(MIB);
        assert_eq!(bounds.with_frames(0), LEAST_SPACE);
        assert_eq!(bounds.with_frames(LEAST_SPACE + 1), LEAST_SPACE + 4_096);
        assert_eq!(bounds.with_frames(MIB), MIB);
        assert_eq!(SpaceBounds::of(32 << 10).least(), 32 << 10);
        assert_eq!(bounds.next(LEAST_SPACE + 4_096, LATE, 0), LEAST_SPACE);
    }
}
