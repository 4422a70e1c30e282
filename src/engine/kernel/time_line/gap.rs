//! The time between two openings of a room.

use super::moment::Correction;

/// The time that passed between two openings, where it is not what the line has of it, or may not
/// be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct ClosedGap {
    /// The epoch that begins behind it, and the point of the line at which it begins.
    pub(crate) epoch: u32,
    pub(crate) begin_ms: u64,
    /// As the line has it.
    pub(crate) in_line_ms: u64,
    /// As it is believed to be.
    pub(crate) believed_ms: u64,
    /// Whether that is in doubt.
    pub(crate) certainty: Certainty,
    /// For how long the wall clock had held when it ended.
    pub(crate) held_ms: u64,
}

impl ClosedGap {
    /// What readers must know of it.
    pub(super) fn correction(&self) -> Correction {
        let shift = |ms: u64| {
            let shift = i128::from(ms) - i128::from(self.in_line_ms);
            i64::try_from(shift).unwrap_or(if shift < 0 { i64::MIN } else { i64::MAX })
        };
        Correction {
            epoch: self.epoch,
            begin_ms: self.begin_ms,
            shift_ms: shift(self.believed_ms),
            safe_shift_ms: shift(if self.is_doubtful() { 0 } else { self.believed_ms }),
        }
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.certainty != Certainty::Settled
    }

    pub(super) fn follows_wall(&self) -> bool {
        matches!(self.certainty, Certainty::FollowsWall { .. })
    }

    /// By how much more is believed to have passed than the line has.
    pub(super) fn unseen(&self) -> i128 {
        i128::from(self.believed_ms) - i128::from(self.in_line_ms)
    }

    /// What the wall clock says that its length was, when it shows `now_ms` at `line_ms`, and by
    /// which so much more has passed in later gaps than the line has.
    pub(super) fn length(&self, now_ms: u64, line_ms: u64, later: i128) -> Option<i128> {
        let Certainty::FollowsWall { wall_ms, .. } = self.certainty else { return None };
        let since_ms = i128::from(line_ms) - i128::from(self.begin_ms);
        Some(i128::from(now_ms) - i128::from(wall_ms) - since_ms - later)
    }

    /// Follows the wall clock, which says that it was so long.
    pub(super) fn believe(&mut self, length: i128, is_first: bool, tolerance_ms: i128) {
        let Certainty::FollowsWall { most_ms, .. } = &mut self.certainty else { return };
        if length >= 0 {
            most_ms.get_or_insert(clamped(length));
        }
        let most_ms = most_ms.unwrap_or(0);
        let believed_ms = match length {
            // The clock was wrong before the gap: what it said at its end is the best there is.
            ..0 if !is_first => most_ms,
            _ => clamped(length).min(most_ms),
        };
        let moved = i128::from(self.believed_ms) - i128::from(believed_ms);
        if moved.abs() > tolerance_ms {
            self.believed_ms = believed_ms;
        }
    }
}

/// How certain the length of a gap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Certainty {
    Settled,
    /// In doubt, and not revised.
    Doubtful,
    /// In doubt, and revised by what the wall clock shows.
    FollowsWall {
        /// What it showed before the gap.
        wall_ms: u64,
        /// The most that the gap is believed to be: the first length that could be true. `None`
        /// before there was one.
        most_ms: Option<u64>,
    },
}

/// As many milliseconds, and never less than none.
pub(super) fn clamped(ms: i128) -> u64 {
    u64::try_from(ms.max(0)).unwrap_or(u64::MAX)
}

/// As many milliseconds, or the most that a number has room for.
pub(super) fn narrowed(ms: i128) -> i64 {
    i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(certainty: Certainty) -> ClosedGap {
        ClosedGap {
            epoch: 1,
            begin_ms: 100,
            in_line_ms: 10,
            believed_ms: 50,
            certainty,
            held_ms: 0,
        }
    }

    fn follows(most_ms: Option<u64>) -> ClosedGap {
        gap(Certainty::FollowsWall { wall_ms: 1_000, most_ms })
    }

    #[test]
    fn only_a_gap_that_follows_the_wall_clock_has_a_length_by_it() {
        for (gap, has_length) in [
            (gap(Certainty::Settled), false),
            (gap(Certainty::Doubtful), false),
            (follows(None), true),
        ] {
            assert_eq!(gap.follows_wall(), has_length);
            assert_eq!(gap.length(1_075, 105, 20), has_length.then_some(50));
        }
    }

    #[test]
    fn a_gap_is_believed_to_be_as_long_as_the_clock_says_and_never_longer_than_at_first() {
        let believed = |mut gap: ClosedGap, length, is_first, tolerance_ms| {
            gap.believe(length, is_first, tolerance_ms);
            gap.believed_ms
        };
        assert_eq!(believed(follows(None), 70, false, 0), 70);
        assert_eq!(believed(follows(Some(60)), 70, false, 0), 60);
        assert_eq!(believed(follows(Some(60)), 40, false, 0), 40);
        // A clock that is behind its beginning says nothing of the first gap but that it is short.
        assert_eq!(believed(follows(Some(60)), -1, true, 0), 0);
        assert_eq!(believed(follows(Some(60)), -1, false, 0), 60);
        for (length, tolerance_ms, expected) in [(55, 5, 50), (45, 5, 50), (56, 5, 56), (44, 5, 44)]
        {
            assert_eq!(believed(follows(Some(60)), length, true, tolerance_ms), expected);
        }
        assert_eq!(believed(gap(Certainty::Doubtful), 70, true, 0), 50);
    }
}
