//! A test for each row of `docs/tables/time.md`, and for what they share.

use super::*;
use crate::engine::kernel::time_line::moment::Correction;

const BOOT: Option<[u8; 16]> = Some([1; 16]);
const OTHER_BOOT: Option<[u8; 16]> = Some([2; 16]);
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;
const HOLD: u64 = 600 * SECOND;
/// A wall clock that is right.
const NOW: u64 = 56 * YEAR;

fn at(wall_ms: u64, elapsed_ms: u64) -> ClockReading {
    ClockReading { wall_ms, elapsed_ms }
}

/// A room that was created at `NOW` and closed an hour later.
fn closed() -> WrittenLine {
    let line = OpenLine::new(at(NOW, 0));
    line.written(at(NOW + HOUR, HOUR), BOOT, true)
}

fn open(written: &WrittenLine, now: ClockReading, origin: Option<[u8; 16]>) -> OpenLine {
    OpenLine::open(written, Vec::new(), now, origin)
}

/// The room again, after it was closed at `closed` and was opened at `opened`.
fn reopen(
    line: &OpenLine,
    closed: (ClockReading, Option<[u8; 16]>),
    opened: (ClockReading, Option<[u8; 16]>),
) -> OpenLine {
    OpenLine::open(&line.written(closed.0, closed.1, true), line.gaps.clone(), opened.0, opened.1)
}

/// How long ago the event at `event_ms` of the line, in an earlier epoch, is believed to have been.
fn age(line: &OpenLine, now: ClockReading, event_ms: u64) -> i128 {
    age_by(line, now, event_ms, |correction| correction.shift_ms)
}

/// How long at least, beyond doubt.
fn safe_age(line: &OpenLine, now: ClockReading, event_ms: u64) -> i128 {
    age_by(line, now, event_ms, |correction| correction.safe_shift_ms)
}

fn age_by(
    line: &OpenLine,
    now: ClockReading,
    event_ms: u64,
    shift: impl Fn(&Correction) -> i64,
) -> i128 {
    let corrections = line.gaps.iter().map(ClosedGap::correction);
    let behind = corrections.filter(|correction| correction.begin_ms > event_ms);
    i128::from(line.line_ms(now)) - i128::from(event_ms)
        + behind.map(|correction| i128::from(shift(&correction))).sum::<i128>()
}

/// The last point of the line of [`closed`].
const LAST: u64 = NOW + HOUR;

#[test]
fn a_new_room_begins_as_the_wall_clock_shows_and_advances_with_the_elapsed_time() {
    let mut line = OpenLine::new(at(NOW, 70));
    assert_eq!((line.epoch, line.line_ms(at(NOW, 70))), (0, NOW));
    for leap in [NOW + YEAR, 5, NOW] {
        let _ = line.observe(at(leap, 70 + HOUR), HOLD);
        assert_eq!(line.line_ms(at(leap, 70 + HOUR)), NOW + HOUR);
        assert!(line.gaps.is_empty() && !line.is_in_doubt());
    }
}

#[test]
fn settled_and_both_readings_agree() {
    let now = at(NOW + 3 * HOUR, 3 * HOUR + 900);
    let line = open(&closed(), now, BOOT);
    assert_eq!((line.epoch, line.is_in_doubt(), line.gaps.len()), (0, false, 0));
    assert_eq!(line.line_ms(now), NOW + 3 * HOUR + 900);
}

#[test]
fn settled_and_the_wall_clock_is_ahead() {
    for origin in [BOOT, OTHER_BOOT, None] {
        let now = at(LAST + YEAR, 5);
        let line = open(&closed(), now, origin);
        assert_eq!((line.epoch, line.line_ms(now)), (1, LAST + YEAR));
        assert_eq!((age(&line, now, LAST), safe_age(&line, now, LAST)), (YEAR.into(), 0));
        // It is never believed to be more.
        let mut further = line.clone();
        assert!(further.observe(at(LAST + 9 * YEAR, 5), HOLD));
        assert_eq!(age(&further, at(LAST + 9 * YEAR, 5), LAST), YEAR.into());
    }
}

#[test]
fn settled_and_the_wall_clock_is_behind_by_a_day_at_most() {
    for back in [1, HOUR, DAY] {
        let now = at(LAST - back, 5);
        let line = open(&closed(), now, OTHER_BOOT);
        assert_eq!((line.epoch, line.is_in_doubt(), line.line_ms(now)), (1, false, LAST));
        assert_eq!((age(&line, now, LAST), safe_age(&line, now, LAST)), (0, 0));
    }
}

#[test]
fn settled_and_the_wall_clock_is_far_behind() {
    let mut line = open(&closed(), at(40 * SECOND, 40 * SECOND), OTHER_BOOT);
    // However long it stays behind, nothing is settled.
    for seconds in [41, 1_000, 100_000] {
        let now = at(seconds * SECOND, seconds * SECOND);
        let _ = line.observe(now, HOLD);
        assert!(line.is_in_doubt());
        let open_ms = i128::from((seconds - 40) * SECOND);
        assert_eq!((age(&line, now, LAST), safe_age(&line, now, LAST)), (open_ms, open_ms));
    }
    // It is set right, and holds.
    let set = at(LAST + DAY + 100_000 * SECOND, 100_001 * SECOND);
    assert!(line.observe(set, HOLD));
    let passed = i128::from(DAY + 100_000 * SECOND);
    assert_eq!(age(&line, set, LAST), passed);
    assert_eq!(safe_age(&line, set, LAST), i128::from(100_001 * SECOND - 40 * SECOND));
    let held = at(set.wall_ms + HOLD, set.elapsed_ms + HOLD);
    assert!(!line.clone().observe(at(held.wall_ms - 1, held.elapsed_ms - 1), HOLD));
    assert!(line.observe(held, HOLD));
    assert_eq!(
        (line.is_in_doubt(), safe_age(&line, held, LAST)),
        (false, passed + i128::from(HOLD))
    );
    assert_eq!(age(&line, held, LAST), passed + i128::from(HOLD));
}

#[test]
fn a_clock_that_is_set_short_of_the_truth_and_then_right_is_followed_down_and_not_up() {
    let mut line = open(&closed(), at(LAST + 10 * YEAR, 0), OTHER_BOOT);
    for (wall, believed) in
        [(LAST + HOUR, HOUR), (LAST + 5 * HOUR, 5 * HOUR), (LAST + 11 * YEAR, 10 * YEAR), (LAST, 0)]
    {
        assert!(line.observe(at(wall, 0), HOLD));
        assert_eq!(age(&line, at(wall, 0), LAST), believed.into(), "{wall}");
    }
}

#[test]
fn in_doubt_and_the_clock_goes_on_until_it_has_held() {
    let mut line = open(&closed(), at(LAST + YEAR, 0), OTHER_BOOT);
    for elapsed in [1, HOLD - 1] {
        assert!(!line.observe(at(LAST + YEAR + elapsed, elapsed), HOLD));
        assert!(line.is_as_before(at(LAST + YEAR + elapsed, elapsed), HOLD));
    }
    let held = at(LAST + YEAR + HOLD, HOLD);
    assert!(!line.is_as_before(held, HOLD));
    assert!(line.observe(held, HOLD));
    assert_eq!((line.is_in_doubt(), line.gaps.len()), (false, 0));
    assert_eq!(line.line_ms(held), LAST + YEAR + HOLD);
}

#[test]
fn in_doubt_and_the_clock_is_set_its_hold_begins_anew() {
    let mut line = open(&closed(), at(LAST + YEAR, 0), OTHER_BOOT);
    let minute = 60 * SECOND;
    assert!(line.observe(at(LAST + HOUR, HOLD - minute), HOLD));
    assert!(!line.observe(at(LAST + HOUR + 2 * minute, HOLD + minute), HOLD));
    assert!(line.is_in_doubt());
    assert!(line.observe(at(LAST + HOUR + HOLD, 2 * HOLD - minute), HOLD));
    assert!(!line.is_in_doubt());
    // What the clock said at the opening, less what it was wrong by.
    let passed = i128::from(HOUR + HOLD);
    assert_eq!(age(&line, at(LAST + HOUR + HOLD, 2 * HOLD - minute), LAST), passed);
}

#[test]
fn a_doubt_goes_on_where_both_readings_agree() {
    let mut line = open(&closed(), at(LAST + YEAR, 0), OTHER_BOOT);
    for part in 1..=6 {
        let before = at(LAST + YEAR + part * 100 * SECOND - 50 * SECOND, part * 100_000 - 50_000);
        let after = at(LAST + YEAR + part * 100 * SECOND, part * 100_000);
        assert!(line.is_in_doubt(), "{part}");
        line = reopen(&line, (before, OTHER_BOOT), (after, OTHER_BOOT));
        assert_eq!(line.epoch, 1);
        let _ = line.observe(after, HOLD);
    }
    assert!(!line.is_in_doubt());
}

#[test]
fn in_doubt_and_the_elapsed_time_says_what_has_passed() {
    // Ten years ahead, closed, and set right while it was closed for an hour.
    let ahead = open(&closed(), at(LAST + 10 * YEAR, 0), OTHER_BOOT);
    let (shut, again) = (at(LAST + 10 * YEAR + DAY, DAY), at(LAST + DAY + HOUR, DAY + HOUR));
    let line = reopen(&ahead, (shut, OTHER_BOOT), (again, OTHER_BOOT));
    let stored = ahead.line_ms(shut);
    assert_eq!(line.line_ms(again), stored + HOUR);
    assert_eq!(age(&line, again, LAST), i128::from(DAY + HOUR));
}

#[test]
fn in_doubt_and_the_wall_clock_was_set_right_while_closed() {
    // Far behind, closed, and opened after another start of the system with the right time.
    let behind = open(&closed(), at(40 * SECOND, 40 * SECOND), OTHER_BOOT);
    let shut = at(100 * SECOND, 100 * SECOND);
    let again = at(LAST + DAY, 7);
    let line = reopen(&behind, (shut, OTHER_BOOT), (again, BOOT));
    // What was stored while the clock was behind keeps its span; what was there before does not.
    assert_eq!(age(&line, again, behind.line_ms(shut)), 0);
    assert_eq!(age(&line, again, LAST), DAY.into());
    // Years ahead, and back.
    let ahead = open(&closed(), at(LAST + 10 * YEAR, 0), OTHER_BOOT);
    let line = reopen(&ahead, (at(LAST + 10 * YEAR + HOUR, HOUR), OTHER_BOOT), (again, BOOT));
    assert_eq!(age(&line, again, LAST), DAY.into());
    assert_eq!(safe_age(&line, again, LAST), HOUR.into());
}

#[test]
fn in_doubt_and_the_wall_clock_says_what_has_passed_in_between() {
    let ahead = open(&closed(), at(LAST + 10 * YEAR, 0), OTHER_BOOT);
    let (shut, again) = (at(LAST + 10 * YEAR + HOUR, HOUR), at(LAST + 10 * YEAR + 3 * HOUR, 4));
    let mut line = reopen(&ahead, (shut, OTHER_BOOT), (again, BOOT));
    let stored = ahead.line_ms(shut);
    assert_eq!((age(&line, again, stored), safe_age(&line, again, stored)), ((2 * HOUR).into(), 0));
    assert_eq!(age(&line, again, LAST), i128::from(10 * YEAR + 3 * HOUR));
    // Set right, the first gap follows.
    let right = at(LAST + 4 * HOUR, 4);
    assert!(line.observe(right, HOLD));
    assert_eq!(age(&line, right, LAST), (4 * HOUR).into());
    assert_eq!(age(&line, right, stored), (2 * HOUR).into());
}

/// Opened in doubt with the right time, and again before that was settled.
fn in_doubt(opened: ClockReading) -> (OpenLine, ClockReading) {
    let first = open(&closed(), at(LAST + HOUR, 0), OTHER_BOOT);
    let shut = at(LAST + HOUR + 60 * SECOND, 60 * SECOND);
    (reopen(&first, (shut, OTHER_BOOT), (opened, BOOT)), shut)
}

#[test]
fn in_doubt_and_a_later_opening_is_years_ahead_it_is_as_if_it_had_not_been() {
    let opened = at(LAST + 10 * YEAR, 5);
    let (mut line, shut) = in_doubt(opened);
    let between = i128::from(10 * YEAR - HOUR - 60 * SECOND);
    assert_eq!(age(&line, opened, LAST), i128::from(10 * YEAR));
    assert_eq!(age(&line, opened, LAST + HOUR), between + i128::from(60 * SECOND));
    // Set right: each of the two gaps had an hour.
    let right = at(shut.wall_ms + HOUR, 5);
    assert!(line.observe(right, HOLD));
    assert_eq!(age(&line, right, LAST), i128::from(2 * HOUR + 60 * SECOND));
    assert_eq!(age(&line, right, LAST + HOUR), i128::from(HOUR + 60 * SECOND));
    assert_eq!(safe_age(&line, right, LAST), i128::from(60 * SECOND));
    let held = at(right.wall_ms + HOLD, right.elapsed_ms + HOLD);
    assert!(line.observe(held, HOLD));
    assert!(!line.is_in_doubt());
    assert_eq!(safe_age(&line, held, LAST), i128::from(2 * HOUR + 60 * SECOND + HOLD));
}

#[test]
fn in_doubt_and_a_later_opening_is_in_1970_nothing_comes_back_and_each_gap_is_found() {
    let opened = at(20 * SECOND, 20 * SECOND);
    let (mut line, shut) = in_doubt(opened);
    // An hour had passed before the first opening, and that is still so.
    assert_eq!(age(&line, opened, LAST), i128::from(HOUR + 60 * SECOND));
    assert_eq!(age(&line, opened, LAST + HOUR), i128::from(60 * SECOND));
    let right = at(shut.wall_ms + 3 * HOUR + 60 * SECOND, 80 * SECOND);
    assert!(line.observe(right, HOLD));
    assert_eq!(age(&line, right, LAST + HOUR), i128::from(3 * HOUR + 120 * SECOND));
    assert_eq!(age(&line, right, LAST), i128::from(4 * HOUR + 120 * SECOND));
}

#[test]
fn in_doubt_and_the_clock_was_and_is_far_behind() {
    let behind = open(&closed(), at(40 * SECOND, 40 * SECOND), OTHER_BOOT);
    let shut = at(100 * SECOND, 100 * SECOND);
    for (wall, between) in [(100 * SECOND + HOUR, HOUR), (30 * SECOND, 0)] {
        let again = at(wall, 7);
        let mut line = reopen(&behind, (shut, OTHER_BOOT), (again, BOOT));
        let stored = behind.line_ms(shut);
        assert_eq!(age(&line, again, stored), between.into());
        assert_eq!(line.hold.held_ms, 0, "a clock that is far behind has held for nothing");
        // When it is set right, all that passed is known, and this stays.
        let right = at(LAST + DAY, 7);
        assert!(line.observe(right, HOLD));
        assert_eq!(
            (age(&line, right, stored), age(&line, right, LAST)),
            (between.into(), DAY.into())
        );
    }
}

#[test]
fn in_doubt_and_the_clock_is_set_far_behind_nothing_changes() {
    let mut line = open(&closed(), at(LAST + HOUR, 0), OTHER_BOOT);
    assert!(line.observe(at(9, 0), HOLD), "the hold begins anew");
    assert_eq!(age(&line, at(9, 0), LAST), HOUR.into());
    let later = at(9 + 2 * HOLD, 2 * HOLD);
    let _ = line.observe(later, HOLD);
    assert!(line.is_in_doubt(), "a clock that is far behind settles nothing");
    assert_eq!(safe_age(&line, later, LAST), i128::from(2 * HOLD));
}

#[test]
fn a_line_that_was_lost_begins_anew_behind_every_epoch_and_what_is_left_of_it() {
    let now = at(LAST + HOUR, 7);
    let line = OpenLine::begin_anew(now, Vec::new(), Some(4));
    assert_eq!((line.epoch, line.line_ms(now)), (5, LAST + HOUR));
    // Gaps that are left behind the wall clock.
    let gaps = open(&closed(), at(LAST + YEAR, 5), OTHER_BOOT).gaps;
    for (newest, epoch) in [(None, 2), (Some(1), 2), (Some(7), 8)] {
        let line = OpenLine::begin_anew(now, gaps.clone(), newest);
        assert_eq!((line.epoch, line.line_ms(now)), (epoch, LAST + YEAR));
        assert!(!line.is_in_doubt());
        let settled = ClosedGap { certainty: Certainty::Settled, ..gaps[0] };
        assert_eq!(line.gaps, [settled]);
        assert_eq!(line.wall_offset_ms, line.trusted_offset_ms);
        assert_eq!(line.trusted, TrustedWall::at(epoch, LAST + YEAR, now.wall_ms, 0));
    }
    assert_eq!(OpenLine::begin_anew(now, Vec::new(), None), OpenLine::new(now));
}

#[test]
fn the_wall_clock_goes_on_holding_behind_a_gap_unless_it_was_set() {
    let written = WrittenLine { hold: WallHold { held_ms: 7, ..closed().hold }, ..closed() };
    let held_ms = |now, origin| open(&written, now, origin).hold.held_ms;
    assert_eq!(held_ms(at(LAST, 5), OTHER_BOOT), 7);
    assert_eq!(held_ms(at(LAST + HOUR, 5), OTHER_BOOT), 7);
    // It was set back, or the elapsed time says something else.
    assert_eq!(held_ms(at(LAST - 1, 5), OTHER_BOOT), 0);
    assert_eq!(held_ms(at(LAST + DAY, HOUR + 5), BOOT), 0);
}

#[test]
fn another_wall_clock_is_trusted_once_it_has_held_and_is_more_than_a_day_away() {
    for (wall, number) in [(NOW + DAY, 0), (NOW - DAY + 2 * SECOND, 0), (NOW + 2 * DAY, 1), (5, 1)]
    {
        let mut line = OpenLine::new(at(NOW, 0));
        assert!(line.observe(at(wall, SECOND), HOLD));
        let almost = at(wall + HOLD - 1, SECOND + HOLD - 1);
        assert!(line.is_as_before(almost, HOLD) && !line.observe(almost, HOLD));
        assert_eq!(line.trusted_offset_ms, 0);
        let held = at(wall + HOLD, SECOND + HOLD);
        assert_eq!(line.observe(held, HOLD), number == 1);
        assert_eq!(line.trusted.number, number, "{wall}");
        let trusted = i128::from(line.line_ms(held)) + i128::from(line.trusted_offset_ms);
        let shown = if number == 1 { held.wall_ms } else { NOW + SECOND + HOLD };
        assert_eq!(trusted, i128::from(shown));
        assert!(line.is_as_before(held, HOLD));
    }
}

#[test]
fn the_trusted_wall_clock_comes_behind_a_gap_when_that_is_beyond_doubt() {
    let mut line = open(&closed(), at(LAST + YEAR, 0), OTHER_BOOT);
    let trusted =
        |line: &OpenLine, now| i128::from(line.line_ms(now)) + i128::from(line.trusted_offset_ms);
    assert_eq!(trusted(&line, at(LAST + YEAR, 0)), LAST.into());
    let held = at(LAST + YEAR + HOLD, HOLD);
    assert!(line.observe(held, HOLD));
    assert_eq!((trusted(&line, held), line.trusted.number), (held.wall_ms.into(), 0));
}

#[test]
fn a_clock_holds_over_several_starts_of_the_system_for_each_gap_from_its_end_on() {
    let part = HOLD / 2;
    let mut line = open(&closed(), at(LAST + HOUR, 0), None);
    // Five minutes open, and off for an hour: the wall clock goes on, and nothing contradicts it.
    let mut wall = LAST + HOUR;
    for opening in 1..6 {
        let shut = at(wall + part, part);
        let _ = line.observe(shut, HOLD);
        let doubtful = line.gaps.iter().filter(|gap| gap.is_doubtful()).count();
        assert_eq!(doubtful, opening.min(1), "those before have held for ten minutes: {opening}");
        wall += part + HOUR;
        line = reopen(&line, (shut, None), (at(wall, 0), None));
        let _ = line.observe(at(wall, 0), HOLD);
    }
    // Set back meanwhile, it has to hold anew.
    let shut = at(wall + part, part);
    line = reopen(&line, (shut, None), (at(wall - HOUR, 0), None));
    let _ = line.observe(at(wall - HOUR + part, part), HOLD);
    assert!(line.is_in_doubt());
    assert!(line.observe(at(wall - HOUR + HOLD, HOLD), HOLD));
    assert!(!line.is_in_doubt());
}

#[test]
fn a_leap_between_two_starts_does_not_profit_from_what_held_before_it() {
    let first = open(&closed(), at(LAST + HOUR, 0), None);
    let shut = at(LAST + HOUR + HOLD - SECOND, HOLD - SECOND);
    let mut line = reopen(&first, (shut, None), (at(LAST + YEAR, 0), None));
    let later = at(LAST + YEAR + 2 * SECOND, 2 * SECOND);
    assert!(line.observe(later, HOLD));
    // The hour before the first opening is settled, and the year is not.
    let open_ms = i128::from(HOLD + SECOND);
    assert_eq!(safe_age(&line, later, LAST), i128::from(HOUR) + open_ms);
    let right = at(LAST + 3 * HOUR, 2 * SECOND);
    assert!(line.observe(right, HOLD));
    assert_eq!(age(&line, right, LAST), (3 * HOUR).into());
}

#[test]
fn a_kill_loses_no_more_of_the_line_than_a_transaction_writes_down() {
    let line = OpenLine::new(at(NOW, 0));
    let written = line.written(at(NOW + HOUR, HOUR), BOOT, false);
    let event = line.line_ms(at(NOW + HOUR + WRITE_EVERY_MS - 1, HOUR + WRITE_EVERY_MS - 1));
    // The clock was reset by the start of the system.
    for wall in [20 * SECOND, NOW + HOUR - 5 * SECOND, NOW + HOUR] {
        let opened = open(&written, at(wall, 3), OTHER_BOOT);
        assert!(opened.line_ms(at(wall, 3)) > event, "{wall}");
        assert_eq!(age(&opened, at(wall, 3), NOW + HOUR), 0);
    }
}

#[test]
fn the_greatest_and_least_readings_overflow_nothing() {
    let mut written = closed();
    for now in [at(0, 0), at(u64::MAX, u64::MAX), at(u64::MAX, 0), at(0, u64::MAX)] {
        for origin in [BOOT, OTHER_BOOT] {
            let mut line = open(&written, now, origin);
            for later in [at(0, 0), at(u64::MAX, u64::MAX), at(0, u64::MAX), at(u64::MAX, 0)] {
                let _ = line.observe(later, HOLD);
                let _ = (line.is_as_before(later, HOLD), line.line_ms(later));
                let _: Vec<_> = line.gaps.iter().map(ClosedGap::correction).collect();
            }
            written = line.written(now, origin, false);
        }
    }
}

#[test]
fn so_many_gaps_are_kept() {
    let (mut line, mut wall) = (OpenLine::new(at(NOW, 0)), NOW);
    for opening in 0..MAX_GAPS + 10 {
        let shut = at(wall, 10);
        wall -= HOUR;
        let written = line.written(shut, None, false);
        line = OpenLine::open(&written, line.gaps, at(wall, 10), None);
        assert!(line.gaps.len() <= MAX_GAPS, "{opening}");
    }
    assert_eq!(line.gaps.len(), MAX_GAPS);
}

#[test]
fn clocks_may_differ_by_more_the_more_time_has_passed() {
    assert_eq!(tolerance_ms(0), i128::from(TOLERANCE_MS));
    assert_eq!(tolerance_ms(10 * TOLERANCE_DIVISOR), i128::from(TOLERANCE_MS + 10));
}

#[test]
fn what_is_written_says_how_long_the_clock_has_held_and_until_when() {
    let line = OpenLine::new(at(NOW, 50));
    let hold = line.written(at(NOW + HOUR, 50 + HOUR), BOOT, false).hold;
    assert_eq!((hold.held_ms, hold.since_ms), (HOUR, 50 + HOUR));
}

#[test]
fn a_trusted_wall_clock_comes_behind_the_gaps_after_it_only() {
    let gap = |epoch| ClosedGap {
        epoch,
        begin_ms: 0,
        in_line_ms: 1,
        believed_ms: 11,
        certainty: Certainty::Settled,
        held_ms: 0,
    };
    let trusted = TrustedWall::at(2, 1_000, 5_000, 0);
    let gaps = [gap(1), gap(2), gap(3), gap(4)];
    assert_eq!(ahead_of_line(&trusted, &gaps), 4_000 + 2 * 10);
}
