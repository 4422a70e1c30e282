//! What the readings of a clock say about the room's time line: decided purely, without a clock, a
//! lock or a row.
//!
//! # The line
//! While a room is open its line advances with the elapsed time. At an opening it advances by the
//! gap: what the wall clock says has passed since it was last written down. A gap is *settled* at
//! once when nothing speaks against it, and otherwise *in doubt*: answers believe what the wall
//! clock says, whatever it says next, and nothing irreversible is done by it before the wall clock
//! has gone on for a while ([`DEFAULT_LEAP_HOLD`]) without a step.
//!
//! # Decisions
#![doc = include_str!("../../../../docs/tables/time.md")]
//!
//! # Openings within a doubt
//! A doubt outlives the opening that it began with. Each gap in it keeps what the wall clock showed
//! before it, and the time that the room was open in between is known. So one look at a clock that
//! was set right tells how long each of them was, from the last to the first.

use super::gap::{Certainty, ClosedGap, clamped, narrowed};
use super::moment::TrustedWall;
use super::reading::ClockReading;
use std::time::Duration;

/// How long a leap of the wall clock must hold, by default, before what it ended is removed.
pub(crate) const DEFAULT_LEAP_HOLD: Duration = Duration::from_secs(600);

/// By how much the two readings of a clock may differ without a step.
const TOLERANCE_MS: u64 = 1_000;

/// The same as a part of what passed: one thousandth.
const TOLERANCE_DIVISOR: u64 = 1_000;

/// By how much the wall clock may be behind what was written without being taken for one that was
/// not set yet.
const BEHIND_MS: i128 = 24 * 60 * 60 * 1_000;

/// How much time of the line at most passes before a transaction writes it down.
pub(super) const WRITE_EVERY_MS: u64 = 10_000;

/// How many gaps are remembered that the line has other than they were. When there are more, the
/// oldest is forgotten: entries that are older still live longer.
const MAX_GAPS: usize = 4_096;

/// Since when the wall clock has gone on without a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct WallHold {
    /// What it was ahead of the elapsed time since its last step.
    pub(crate) offset_ms: i64,
    /// For how long that has held before this opening.
    pub(crate) held_ms: u64,
    /// And since which elapsed time of this opening.
    pub(crate) since_ms: u64,
}

impl WallHold {
    fn begin(now: ClockReading) -> Self {
        Self { offset_ms: narrowed(now.offset_ms()), held_ms: 0, since_ms: now.elapsed_ms }
    }

    /// For how long it has gone on in this opening, and whether it was set now.
    fn at(&self, now: ClockReading) -> (u64, bool) {
        let held_ms = now.elapsed_ms.saturating_sub(self.since_ms);
        let step = (now.offset_ms() - i128::from(self.offset_ms)).abs();
        (held_ms, step > tolerance_ms(held_ms))
    }
}

/// What is written down of a line.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct WrittenLine {
    pub(crate) epoch: u32,
    pub(crate) line_ms: u64,
    /// The readings of the clock at this point of the line.
    pub(crate) wall_ms: u64,
    pub(crate) elapsed_ms: u64,
    /// What the elapsed time is counted from, if that is known.
    pub(crate) origin: Option<[u8; 16]>,
    /// What deadlines are shown by.
    pub(crate) wall_offset_ms: i64,
    /// Whether nothing was written after it.
    pub(crate) is_closed: bool,
    pub(crate) hold: WallHold,
    pub(crate) trusted: TrustedWall,
}

/// The line of a room that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenLine {
    pub(super) epoch: u32,
    /// The elapsed time and the point of the line when the room was opened.
    began_elapsed_ms: u64,
    began_line_ms: u64,
    /// The wall clock less the line.
    pub(super) wall_offset_ms: i64,
    /// By epoch.
    pub(super) gaps: Vec<ClosedGap>,
    hold: WallHold,
    pub(super) trusted: TrustedWall,
    /// What the trusted wall clock is ahead of the line, as far as that is beyond doubt.
    pub(super) trusted_offset_ms: i64,
}

fn tolerance_ms(passed_ms: u64) -> i128 {
    i128::from(TOLERANCE_MS.saturating_add(passed_ms / TOLERANCE_DIVISOR))
}

/// What a trusted wall clock is ahead of the line behind these gaps, as far as their lengths are
/// beyond doubt.
fn ahead_of_line(trusted: &TrustedWall, gaps: &[ClosedGap]) -> i64 {
    let behind = gaps.iter().rev().take_while(|gap| gap.epoch > trusted.epoch);
    let shift: i128 = behind.map(|gap| i128::from(gap.correction().safe_shift_ms)).sum();
    narrowed(i128::from(trusted.wall_ms) - i128::from(trusted.line_ms) + shift)
}

fn is_far_behind(length: Option<i128>) -> bool {
    length.is_some_and(|length| length < -BEHIND_MS)
}

/// The length of a gap of which only the wall clock says something.
fn by_wall_alone(written: &WrittenLine, by_wall: i128) -> (u64, Certainty) {
    let most_ms = (by_wall >= 0).then(|| clamped(by_wall));
    let certainty = if most_ms.is_some() || by_wall < -BEHIND_MS {
        Certainty::FollowsWall { wall_ms: written.wall_ms, most_ms }
    } else {
        Certainty::Settled
    };
    (clamped(by_wall), certainty)
}

impl OpenLine {
    /// The line of a room that has none yet: it begins as the wall clock shows.
    pub(super) fn new(now: ClockReading) -> Self {
        Self {
            epoch: 0,
            began_elapsed_ms: now.elapsed_ms,
            began_line_ms: now.wall_ms,
            wall_offset_ms: 0,
            gaps: Vec::new(),
            hold: WallHold::begin(now),
            trusted: TrustedWall::at(0, now.wall_ms, now.wall_ms, 0),
            trusted_offset_ms: 0,
        }
    }

    /// The line of a room that may have lost its own: it begins as the wall clock shows, behind
    /// everything that is left of it, and behind every epoch that a row names. What no one knows
    /// any more is how the lost line and the wall clock stood to one another.
    pub(super) fn begin_anew(
        now: ClockReading,
        mut gaps: Vec<ClosedGap>,
        newest_epoch: Option<u32>,
    ) -> Self {
        for gap in &mut gaps {
            gap.certainty = Certainty::Settled;
        }
        let last = gaps.last().map(|gap| (gap.epoch, gap.begin_ms));
        let newest_epoch = newest_epoch.max(last.map(|(epoch, _)| epoch));
        let began_line_ms = last.map_or(0, |(_, begin_ms)| begin_ms).max(now.wall_ms);
        let epoch = newest_epoch.map_or(0, |epoch| epoch.saturating_add(1));
        let offset = narrowed(i128::from(now.wall_ms) - i128::from(began_line_ms));
        Self {
            epoch,
            began_line_ms,
            wall_offset_ms: offset,
            gaps,
            trusted: TrustedWall::at(epoch, began_line_ms, now.wall_ms, 0),
            trusted_offset_ms: offset,
            ..Self::new(now)
        }
    }

    /// The line of a room that is opened, from what was written of it.
    pub(super) fn open(
        written: &WrittenLine,
        gaps: Vec<ClosedGap>,
        now: ClockReading,
        origin: Option<[u8; 16]>,
    ) -> Self {
        // How much passed by each of the two readings.
        let by_wall = i128::from(now.wall_ms) - i128::from(written.wall_ms);
        let by_elapsed = (origin.is_some() && origin == written.origin)
            .then(|| now.elapsed_ms.checked_sub(written.elapsed_ms))
            .flatten();
        let agreed_ms =
            by_elapsed.filter(|ms| (by_wall - i128::from(*ms)).abs() <= tolerance_ms(*ms));
        let mut line = Self {
            epoch: written.epoch,
            began_elapsed_ms: now.elapsed_ms,
            began_line_ms: written.line_ms,
            wall_offset_ms: written.wall_offset_ms,
            gaps,
            hold: written.hold,
            trusted: written.trusted,
            trusted_offset_ms: 0,
        };
        if let Some(gap_ms) = agreed_ms {
            // It is as if the room had not been closed.
            line.go_on(gap_ms, now);
        } else {
            let (believed_ms, certainty) = match line.is_in_doubt() {
                false => by_wall_alone(written, by_wall),
                true => line.within_doubt(written, by_wall, by_elapsed),
            };
            // A clock that goes on goes on holding, but not for this gap.
            let is_set = by_elapsed.is_some() || by_wall < 0;
            let goes_on = !is_set && !line.was_far_behind(written);
            line.go_on_holding(now, goes_on);
            line.begin_epoch(written, believed_ms, certainty);
        }
        line.observe(now, u64::MAX);
        line.show_by(now);
        line
    }

    /// The line goes on after a gap that is settled, in the same epoch.
    fn go_on(&mut self, gap_ms: u64, now: ClockReading) {
        self.began_line_ms = self.began_line_ms.saturating_add(gap_ms);
        self.hold.held_ms = self.hold.held_ms.saturating_add(gap_ms);
        self.hold.since_ms = now.elapsed_ms;
    }

    /// A new epoch begins behind a gap.
    fn begin_epoch(&mut self, written: &WrittenLine, believed_ms: u64, certainty: Certainty) {
        // What happened after the line was last written must stay before the epoch, and so must
        // what happened in the last millisecond before a gap that may yet become longer.
        let is_doubtful = certainty != Certainty::Settled;
        let least_ms = if written.is_closed { u64::from(is_doubtful) } else { WRITE_EVERY_MS };
        let in_line_ms = believed_ms.max(least_ms);
        self.began_line_ms = self.began_line_ms.saturating_add(in_line_ms);
        // Deadlines from before are shown as they were.
        let unseen_ms = i128::from(in_line_ms) - i128::from(believed_ms);
        self.wall_offset_ms = narrowed(i128::from(self.wall_offset_ms) - unseen_ms);
        self.epoch = self.epoch.saturating_add(1);
        let (epoch, begin_ms) = (self.epoch, self.began_line_ms);
        let held_ms = self.hold.held_ms;
        self.gaps.push(ClosedGap { epoch, begin_ms, in_line_ms, believed_ms, certainty, held_ms });
        self.forget_plain_gaps();
    }

    /// The length of a gap that lies behind another one that is in doubt.
    fn within_doubt(
        &self,
        written: &WrittenLine,
        by_wall: i128,
        by_elapsed: Option<u64>,
    ) -> (u64, Certainty) {
        // By how much the wall clock was ahead of the least that it could show, and is now.
        let was_ms = self.first_length(written.wall_ms, written.line_ms).unwrap_or(0);
        if let Some(gap_ms) = by_elapsed {
            return (gap_ms, Certainty::Doubtful);
        }
        if is_far_behind(Some(was_ms)) {
            // It does not say how much passed where it was set in between.
            let was_set_right = !is_far_behind(Some(was_ms + by_wall));
            return (if was_set_right { 0 } else { clamped(by_wall) }, Certainty::Doubtful);
        }
        match by_wall_alone(written, by_wall) {
            (believed_ms, Certainty::Settled) => (believed_ms, Certainty::Doubtful),
            by_wall => by_wall,
        }
    }

    /// Whether the wall clock said nothing when the line was written.
    fn was_far_behind(&self, written: &WrittenLine) -> bool {
        is_far_behind(self.first_length(written.wall_ms, written.line_ms))
    }

    /// The wall clock goes on, or has to hold anew from here on.
    fn go_on_holding(&mut self, now: ClockReading, goes_on: bool) {
        let held_ms = if goes_on { self.hold.held_ms } else { 0 };
        self.hold = WallHold { held_ms, ..WallHold::begin(now) };
        if !goes_on {
            self.gaps.iter_mut().for_each(|gap| gap.held_ms = 0);
        }
    }

    /// Whether a gap is in doubt. Those that are not settled are the last ones.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.gaps.last().is_some_and(ClosedGap::is_doubtful)
    }

    /// The point of the line at a reading.
    pub(super) fn line_ms(&self, now: ClockReading) -> u64 {
        self.began_line_ms.saturating_add(self.open_ms(now))
    }

    /// How long the room has been open.
    fn open_ms(&self, now: ClockReading) -> u64 {
        now.elapsed_ms.saturating_sub(self.began_elapsed_ms)
    }

    /// Whether a reading says nothing new.
    pub(super) fn is_as_before(&self, now: ClockReading, hold_ms: u64) -> bool {
        let shown = i128::from(now.wall_ms) - i128::from(self.line_ms(now));
        if (shown - i128::from(self.wall_offset_ms)).abs() > tolerance_ms(0) {
            return false;
        }
        let (held_ms, stepped) = self.hold.at(now);
        !stepped
            && match self.hold.held_ms.saturating_add(held_ms) {
                held_ms if held_ms < hold_ms => true,
                held_ms if self.is_in_doubt() => {
                    !self.settles(held_ms, hold_ms)
                        || is_far_behind(self.first_length(now.wall_ms, self.line_ms(now)))
                }
                _ => !self.is_wall_corrected(now),
            }
    }

    /// Whether the clock has held for the first gap in doubt.
    fn settles(&self, held_ms: u64, hold_ms: u64) -> bool {
        let first = self.gaps.iter().rev().take_while(|gap| gap.is_doubtful()).last();
        first.is_some_and(|first| held_ms.saturating_sub(first.held_ms) >= hold_ms)
    }

    /// Takes in a reading. Whether anything changed that is to be written down.
    pub(super) fn observe(&mut self, now: ClockReading, hold_ms: u64) -> bool {
        let shown_anew = self.show_by(now);
        let (held_ms, stepped) = self.hold.at(now);
        if stepped {
            self.go_on_holding(now, false);
        }
        let mut changed = shown_anew || stepped;
        let all_held_ms = if stepped { 0 } else { self.hold.held_ms.saturating_add(held_ms) };
        if self.is_in_doubt() {
            let line_ms = self.line_ms(now);
            let revised = self.revised(now.wall_ms, line_ms, tolerance_ms(held_ms));
            let before = std::mem::replace(&mut self.gaps, revised);
            if is_far_behind(self.first_length(now.wall_ms, line_ms)) {
                // It says nothing, and nothing that has ended comes back.
                self.gaps = before;
            } else {
                changed |= self.gaps != before;
                if !stepped && self.settles(all_held_ms, hold_ms) {
                    self.settle(all_held_ms, hold_ms);
                    changed = true;
                }
            }
        }
        self.trusted_offset_ms = ahead_of_line(&self.trusted, &self.gaps);
        let has_held = !stepped && all_held_ms >= hold_ms;
        if has_held && !self.is_in_doubt() && self.is_wall_corrected(now) {
            self.trust_wall(now);
            changed = true;
        }
        changed
    }

    /// Whether the wall clock shows another day than the trusted one.
    fn is_wall_corrected(&self, now: ClockReading) -> bool {
        let trusted = i128::from(self.line_ms(now)) + i128::from(self.trusted_offset_ms);
        (i128::from(now.wall_ms) - trusted).abs() > BEHIND_MS
    }

    /// From now on the wall clock as it is set is the trusted one.
    fn trust_wall(&mut self, now: ClockReading) {
        let number = self.trusted.number.saturating_add(1);
        self.trusted = TrustedWall::at(self.epoch, self.line_ms(now), now.wall_ms, number);
        self.trusted_offset_ms = ahead_of_line(&self.trusted, &self.gaps);
    }

    /// The gaps as the wall clock says now that they were.
    fn revised(&self, wall_ms: u64, line_ms: u64, tolerance_ms: i128) -> Vec<ClosedGap> {
        let mut gaps = self.gaps.clone();
        let first = gaps.iter().position(ClosedGap::follows_wall);
        let mut later = 0;
        for (index, gap) in
            gaps.iter_mut().enumerate().rev().take_while(|(_, gap)| gap.is_doubtful())
        {
            if let Some(length) = gap.length(wall_ms, line_ms, later) {
                gap.believe(length, first == Some(index), tolerance_ms);
            }
            later += gap.unseen();
        }
        gaps
    }

    /// What the wall clock says that the length of the first gap in doubt was, when it shows
    /// `wall_ms` at `line_ms`. `None` when no gap follows it.
    fn first_length(&self, wall_ms: u64, line_ms: u64) -> Option<i128> {
        let (mut later, mut first) = (0, None);
        for gap in self.gaps.iter().rev().take_while(|gap| gap.is_doubtful()) {
            first = gap.length(wall_ms, line_ms, later).or(first);
            later += gap.unseen();
        }
        first
    }

    /// What was in doubt is taken for true, as far as the clock has held for it.
    fn settle(&mut self, held_ms: u64, hold_ms: u64) {
        for gap in &mut self.gaps {
            if held_ms.saturating_sub(gap.held_ms) >= hold_ms {
                gap.certainty = Certainty::Settled;
            }
        }
        self.forget_plain_gaps();
    }

    fn forget_plain_gaps(&mut self) {
        self.gaps.retain(|gap| gap.is_doubtful() || gap.believed_ms != gap.in_line_ms);
        if self.gaps.len() > MAX_GAPS {
            self.gaps.remove(0);
        }
    }

    /// Shows deadlines by the wall clock as it is set now. Whether it was set.
    fn show_by(&mut self, now: ClockReading) -> bool {
        let offset = i128::from(now.wall_ms) - i128::from(self.line_ms(now));
        if (offset - i128::from(self.wall_offset_ms)).abs() <= tolerance_ms(0) {
            return false;
        }
        self.wall_offset_ms = narrowed(offset);
        true
    }

    /// What is to be written down of it at a reading.
    pub(super) fn written(
        &self,
        now: ClockReading,
        origin: Option<[u8; 16]>,
        is_closed: bool,
    ) -> WrittenLine {
        let (held_ms, _) = self.hold.at(now);
        let held_ms = self.hold.held_ms.saturating_add(held_ms);
        let hold = WallHold { held_ms, since_ms: now.elapsed_ms, ..self.hold };
        WrittenLine {
            epoch: self.epoch,
            line_ms: self.line_ms(now),
            wall_ms: now.wall_ms,
            elapsed_ms: now.elapsed_ms,
            origin,
            wall_offset_ms: self.wall_offset_ms,
            is_closed,
            hold,
            trusted: self.trusted,
        }
    }
}

#[cfg(test)]
mod tests;
