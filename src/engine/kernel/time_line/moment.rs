//! A reading of the room's time, and the points of the time line that rows hold.
//!
//! A span ends at a [`Deadline`]: a point of the line, and the epoch in which it was written down.
//! What is corrected about the line afterwards moves the deadlines of older epochs and leaves those
//! of its own alone. An event, such as a request that a limiter counts, is a point of the line
//! alone: the line never goes back, so the point says in which epoch the event was.

use super::reading::ClockReading;
use crate::fault::DeliberateFault;
use std::sync::Arc;

/// When a span of time ends.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode,
)]
pub(crate) struct Deadline {
    /// The epoch of the line in which it was written.
    pub(crate) epoch: u32,
    /// In milliseconds of the line. The greatest number never comes.
    pub(crate) at_ms: u64,
}

impl Deadline {
    /// It never passes.
    pub(crate) const NEVER: Self = Self { epoch: 0, at_ms: u64::MAX };

    /// The same epoch, `span_ms` later.
    pub(crate) fn later(self, span_ms: u64) -> Self {
        Self { at_ms: self.at_ms.saturating_add(span_ms), ..self }
    }

    /// The deadline of the first epoch at this time, as [`Moment::manual`] counts it.
    #[cfg(test)]
    pub(crate) const fn at(at_ms: u64) -> Self {
        Self { epoch: 0, at_ms }
    }
}

/// What is known today about the time that passed before the beginning of an epoch, where that
/// differs from what the line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Correction {
    /// The epoch before whose beginning the time passed.
    pub(crate) epoch: u32,
    /// The point of the line at which it begins.
    pub(crate) begin_ms: u64,
    /// By how much more time passed than the line says, as answers count it.
    pub(crate) shift_ms: i64,
    /// The same, as far as it is beyond doubt: what is removed for good is removed by it.
    pub(crate) safe_shift_ms: i64,
}

/// A point of the line at which the wall clock was read: one that had held, or that of a new room.
/// What ends by the wall clock is removed when this one has come there, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct TrustedWall {
    pub(super) epoch: u32,
    pub(super) line_ms: u64,
    pub(super) wall_ms: u64,
    /// How often another one was trusted before.
    pub(crate) number: u32,
}

impl TrustedWall {
    pub(super) fn at(epoch: u32, line_ms: u64, wall_ms: u64, number: u32) -> Self {
        Self { epoch, line_ms, wall_ms, number }
    }
}

/// Which of the two readings of a correction counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Answers,
    Safe,
}

impl Correction {
    fn shift(&self, trust: Trust) -> i128 {
        match trust {
            Trust::Answers => self.shift_ms.into(),
            Trust::Safe => self.safe_shift_ms.into(),
        }
    }
}

/// The room's time at one moment: what an operation decides by.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    reading: ClockReading,
    line_ms: u64,
    epoch: u32,
    /// What the wall clock shows less what the line does, when both are read at leisure: it does
    /// not change with the milliseconds between two readings, so that a deadline is always shown as
    /// the same point in time.
    wall_offset_ms: i64,
    trusted: TrustedWall,
    /// The trusted wall clock less the line.
    trusted_offset_ms: i64,
    /// By epoch. `None` when there are none, which is the rule.
    corrections: Option<Arc<[Correction]>>,
    /// How often a correction changed since the room was opened.
    generation: u64,
}

impl Moment {
    pub(in crate::engine) fn new(
        reading: ClockReading,
        (epoch, line_ms): (u32, u64),
        wall_offset_ms: i64,
        (trusted, trusted_offset_ms): (TrustedWall, i64),
        corrections: Option<Arc<[Correction]>>,
        generation: u64,
    ) -> Self {
        Self {
            reading,
            line_ms,
            epoch,
            wall_offset_ms,
            trusted,
            trusted_offset_ms,
            corrections,
            generation,
        }
    }

    /// A moment of a line that shows what the wall clock does: in a room that was created at the
    /// beginning of time, and never closed.
    pub(crate) const fn manual(now_ms: u64) -> Self {
        Self {
            reading: ClockReading { wall_ms: now_ms, elapsed_ms: now_ms },
            line_ms: now_ms,
            epoch: 0,
            wall_offset_ms: 0,
            trusted: TrustedWall { epoch: 0, line_ms: 0, wall_ms: 0, number: 0 },
            trusted_offset_ms: 0,
            corrections: None,
            generation: 0,
        }
    }

    /// A moment at the beginning of the second epoch, before which so much time passed that the
    /// line does not have.
    #[cfg(test)]
    pub(crate) fn behind_gap(now_ms: u64, gap_ms: u64, generation: u64) -> Self {
        let shift_ms = i64::try_from(gap_ms).unwrap();
        let safe_shift_ms = shift_ms;
        let gap = Correction { epoch: 1, begin_ms: now_ms, shift_ms, safe_shift_ms };
        Self { epoch: 1, corrections: Some(Arc::new([gap])), generation, ..Self::manual(now_ms) }
    }

    /// What the wall clock shows, in milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.reading.wall_ms
    }

    /// Both readings of the clock.
    pub(in crate::engine) fn reading(&self) -> ClockReading {
        self.reading
    }

    /// The point of the line, in milliseconds. It never falls.
    pub(crate) fn line_ms(&self) -> u64 {
        self.line_ms
    }

    /// The epoch of the line.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Changes with the corrections: what was ordered by deadlines of several epochs is to be
    /// ordered anew.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// When a span that begins now ends.
    pub(crate) fn deadline_in(&self, span_ms: u64) -> Deadline {
        let epoch = if DeliberateFault::ForgetEpoch.is_on() { 0 } else { self.epoch };
        Deadline { epoch, at_ms: self.line_ms.saturating_add(span_ms) }
    }

    /// When a span ends that began with the event at `event_ms` of the line.
    pub(crate) fn deadline_of(&self, event_ms: u64, span_ms: u64) -> Deadline {
        let after = self.corrections().iter().find(|correction| event_ms < correction.begin_ms);
        let epoch = after.map_or(self.epoch, |after| after.epoch.saturating_sub(1));
        Deadline { epoch, at_ms: event_ms.saturating_add(span_ms) }
    }

    /// When the wall clock will show `wall_ms`, unless it is set.
    pub(crate) fn deadline_at_wall(&self, wall_ms: u64) -> Deadline {
        Deadline { epoch: self.epoch, at_ms: self.event_at_wall(wall_ms) }
    }

    /// When the trusted wall clock will show `wall_ms`.
    pub(crate) fn deadline_at_trusted_wall(&self, wall_ms: u64) -> Deadline {
        let TrustedWall { epoch, line_ms, wall_ms: trusted_ms, .. } = self.trusted;
        if wall_ms == u64::MAX {
            return Deadline::NEVER;
        }
        let at_ms = clamped(i128::from(line_ms) + i128::from(wall_ms) - i128::from(trusted_ms));
        Deadline { epoch, at_ms }
    }

    /// What the wall clock shows, or the trusted one if that shows less: what is removed for good
    /// because its end by the wall clock has come is removed by it.
    pub(crate) fn sure_wall_ms(&self) -> u64 {
        let trusted = i128::from(self.line_ms) + i128::from(self.trusted_offset_ms);
        clamped(trusted).min(self.wall_ms())
    }

    /// How often another wall clock was trusted: what ends by the wall clock is to be indexed
    /// anew.
    pub(crate) fn wall_number(&self) -> u32 {
        self.trusted.number
    }

    /// Whether a deadline has passed.
    pub(crate) fn has_passed(&self, deadline: Deadline) -> bool {
        deadline.at_ms != u64::MAX
            && self.now_in(deadline.epoch, Trust::Answers) >= deadline.at_ms.into()
    }

    /// Whether it has passed beyond doubt.
    pub(crate) fn has_surely_passed(&self, deadline: Deadline) -> bool {
        self.has_passed(deadline)
            && self.now_in(deadline.epoch, Trust::Safe) >= deadline.at_ms.into()
    }

    /// How long until it passes; nothing once it has.
    pub(crate) fn left_until(&self, deadline: Deadline) -> u64 {
        let left = i128::from(deadline.at_ms) - self.now_in(deadline.epoch, Trust::Answers);
        clamped(left)
    }

    /// What the wall clock shows when it passes, in milliseconds since the Unix epoch, unless
    /// it is set.
    pub(crate) fn wall_of(&self, deadline: Deadline) -> u64 {
        if deadline.at_ms == u64::MAX {
            return u64::MAX;
        }
        let shift = self.shift_behind(deadline.epoch, Trust::Answers);
        clamped(i128::from(deadline.at_ms) - shift + i128::from(self.wall_offset_ms))
    }

    /// What the wall clock showed at the event at `event_ms` of the line, as it is set now.
    pub(crate) fn wall_of_event(&self, event_ms: u64) -> u64 {
        self.wall_of(self.deadline_of(event_ms, 0))
    }

    /// The point of the line at which the wall clock shows `wall_ms`, as it is set now.
    pub(crate) fn event_at_wall(&self, wall_ms: u64) -> u64 {
        if wall_ms == u64::MAX {
            return u64::MAX;
        }
        clamped(i128::from(wall_ms) - i128::from(self.wall_offset_ms))
    }

    /// How long ago the event at `event_ms` of the line was.
    pub(crate) fn since(&self, event_ms: u64) -> u64 {
        let deadline = self.deadline_of(event_ms, 0);
        clamped(self.now_in(deadline.epoch, Trust::Answers) - i128::from(event_ms))
    }

    /// The last point of the line at which an event is at least `span_ms` ago. `None` when no
    /// event is.
    pub(crate) fn ago(&self, span_ms: u64) -> Option<u64> {
        self.ago_by(span_ms, Trust::Answers)
    }

    /// The same beyond doubt.
    pub(crate) fn surely_ago(&self, span_ms: u64) -> Option<u64> {
        self.ago(span_ms).min(self.ago_by(span_ms, Trust::Safe))
    }

    /// The last point of the line at which a deadline of `epoch` has passed beyond doubt. `None`
    /// when none has.
    pub(crate) fn horizon(&self, epoch: u32) -> Option<u64> {
        let now = self.now_in(epoch, Trust::Answers).min(self.now_in(epoch, Trust::Safe));
        // The greatest time never comes.
        u64::try_from(now.min(i128::from(u64::MAX) - 1)).ok()
    }

    fn corrections(&self) -> &[Correction] {
        self.corrections.as_deref().unwrap_or_default()
    }

    /// By how much the line falls short of the time that passed since `epoch`.
    fn shift_behind(&self, epoch: u32, trust: Trust) -> i128 {
        let behind = self.corrections().iter().rev().take_while(|later| later.epoch > epoch);
        behind.map(|later| later.shift(trust)).sum()
    }

    /// What the line would show had it been right since `epoch`.
    fn now_in(&self, epoch: u32, trust: Trust) -> i128 {
        i128::from(self.line_ms) + self.shift_behind(epoch, trust)
    }

    fn ago_by(&self, span_ms: u64, trust: Trust) -> Option<u64> {
        let mut gone = i128::from(self.line_ms) - i128::from(span_ms);
        // Events of this epoch are exact; those of each one before follow what is known of the
        // time between.
        for correction in self.corrections().iter().rev() {
            let begin = i128::from(correction.begin_ms);
            if gone >= begin {
                break;
            }
            gone = (gone + correction.shift(trust)).min(begin - 1);
        }
        u64::try_from(gone).ok()
    }
}

fn clamped(ms: i128) -> u64 {
    u64::try_from(ms.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(line_ms: u64, corrections: &[(u32, u64, i64, i64)]) -> Moment {
        let corrections: Arc<[Correction]> = corrections
            .iter()
            .map(|&(epoch, begin_ms, shift_ms, safe_shift_ms)| Correction {
                epoch,
                begin_ms,
                shift_ms,
                safe_shift_ms,
            })
            .collect();
        let reading = ClockReading { wall_ms: line_ms + 1_000, elapsed_ms: line_ms };
        let trusted = TrustedWall::at(9, line_ms, line_ms + 1_000, 0);
        Moment::new(reading, (9, line_ms), 1_000, (trusted, 1_000), Some(corrections), 0)
    }

    #[test]
    fn a_span_of_this_epoch_is_exact_whatever_is_corrected() {
        for shift in [-50, 0, 70] {
            let now = moment(500, &[(9, 400, shift, shift)]);
            let deadline = now.deadline_in(30);
            assert_eq!((now.left_until(deadline), now.wall_of(deadline)), (30, 1_530));
            assert!(!now.has_passed(deadline));
            assert!(moment(530, &[(9, 400, shift, shift)]).has_surely_passed(deadline));
        }
    }

    #[test]
    fn a_span_of_an_earlier_epoch_follows_every_later_correction() {
        let now = moment(500, &[(3, 100, 40, 40), (9, 400, -20, -20)]);
        for (epoch, shift) in [(1, 20), (2, 20), (3, -20), (8, -20), (9, 0)] {
            let due = Deadline { epoch, at_ms: 500_u64.saturating_add_signed(shift) };
            assert!(now.has_passed(due), "{epoch}");
            assert!(!now.has_passed(due.later(1)), "{epoch}");
            assert_eq!(now.left_until(due.later(7)), 7, "{epoch}");
            assert_eq!(now.horizon(epoch), Some(due.at_ms), "{epoch}");
        }
    }

    #[test]
    fn what_is_in_doubt_has_passed_for_answers_alone() {
        let now = moment(500, &[(9, 400, 0, -300)]);
        let due = Deadline { epoch: 8, at_ms: 450 };
        assert!(now.has_passed(due) && !now.has_surely_passed(due));
        assert_eq!((now.horizon(8), now.horizon(9)), (Some(200), Some(500)));
        assert_eq!((now.ago(120), now.surely_ago(120)), (Some(380), Some(80)));
        assert_eq!((now.ago(100), now.surely_ago(100)), (Some(400), Some(400)));
    }

    #[test]
    fn the_greatest_time_never_comes() {
        let now = Moment::manual(u64::MAX);
        assert!(!now.has_passed(Deadline::NEVER) && !now.has_passed(now.deadline_in(1)));
        assert!(now.has_passed(Deadline::at(u64::MAX - 1)));
        assert_eq!((now.horizon(0), now.wall_of(Deadline::NEVER)), (Some(u64::MAX - 1), u64::MAX));
    }

    proptest! {
        /// An event is as long ago by its age as by the cut of a window.
        #[test]
        fn ages_and_windows_agree(
            gaps in prop::collection::vec((1u64..100, 0u64..50, -49i64..100), 0..4),
            open in 0u64..100,
            span in 0u64..400,
        ) {
            let (mut line, mut corrections) = (0, Vec::new());
            for (index, (length, gap, shift)) in gaps.iter().enumerate() {
                line += length + gap;
                let shift = (*shift).max(-i64::try_from(*gap).unwrap());
                corrections.push((u32::try_from(index).unwrap() + 1, line, shift, shift));
            }
            let now = moment(line + open, &corrections);
            for event in 0..=now.line_ms() {
                // No event is in a gap.
                let mut begin = 0;
                let mut in_gap = false;
                for (length, gap, _) in &gaps {
                    in_gap |= event >= begin + length && event < begin + length + gap;
                    begin += length + gap;
                }
                if !in_gap {
                    let gone = now.ago(span).is_some_and(|gone| event <= gone);
                    prop_assert_eq!(now.since(event) >= span, gone, "event {}", event);
                    prop_assert_eq!(now.has_passed(now.deadline_of(event, span)), gone);
                }
            }
        }
    }

    #[test]
    fn a_reading_of_the_wall_clock_is_found_on_the_line() {
        let moment = Moment { wall_offset_ms: 500, ..Moment::manual(10_000) };
        assert_eq!(moment.wall_of_event(7_000), 7_500);
        assert_eq!(moment.event_at_wall(7_500), 7_000);
        assert_eq!(moment.event_at_wall(100), 0, "before the line began");
        assert_eq!(moment.event_at_wall(u64::MAX), u64::MAX);
    }
}
