//! What happened to a room in truth, and what the contract says of it: for how long ago an entry
//! must be taken, whatever the wall clock showed.
//!
//! A *section* is a time in which the room was open, or closed for a time about which both readings
//! of the clock agree. A *gap* lies between two sections. The error of the wall clock is what it
//! shows less the truth; nothing here knows a point of a time line.

pub(crate) const DAY: i128 = 24 * 3_600 * 1_000;
/// How long a leap must hold.
pub(crate) const HOLD: u64 = 600_000;

/// The least and the most that something can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) least: i128,
    pub(crate) most: i128,
}

impl Range {
    fn exactly(ms: i128) -> Self {
        Self { least: ms, most: ms }
    }

    fn plus(self, other: Self) -> Self {
        Self { least: self.least + other.least, most: self.most + other.most }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Settled(Range),
    /// In doubt, but the elapsed time tells it.
    ByElapsed,
    /// In doubt, and told by the wall clock.
    ByWall,
}

#[derive(Debug, Clone)]
struct Gap {
    true_ms: i128,
    /// The error of the wall clock when the room was last written before.
    written_error: i128,
    /// The errors seen since it ended, the first of which was that of the opening.
    seen: Vec<i128>,
    /// Whether nothing spoke against the clock that was written.
    was_plausible: bool,
    /// Whether no clock had said anything since the doubt began.
    was_silent: bool,
    /// How much of the time before it may be lost, where nothing says that it passed: a process
    /// that is killed has not written down the last seconds.
    lost_ms: i128,
    known: Known,
    /// For how long the clock had held when it ended.
    held_ms: u64,
    /// What was believed when it was looked at last.
    last: Range,
}

impl Gap {
    /// How long it was by a wall clock with this error.
    fn said(&self, error: i128) -> i128 {
        self.true_ms + error - self.written_error
    }

    /// For how long it is taken.
    fn taken(&self) -> Range {
        match self.known {
            Known::Settled(range) => range,
            Known::ByElapsed | Known::ByWall => self.last,
        }
    }

    fn is_doubtful(&self) -> bool {
        !matches!(self.known, Known::Settled(_))
    }

    /// Whether the clock was right since, as it was when it was written, or showed so much less
    /// that it says nothing.
    fn never_fell_short(&self) -> bool {
        self.seen.iter().all(|&error| error >= self.written_error || self.said(error) < -DAY)
    }

    /// What is lost where a difference is too small to be a setting of the clock.
    fn slack(&self, open_ms: u64) -> i128 {
        let is_set = self.seen.iter().any(|&error| error != self.written_error);
        self.lost_ms + i128::from(is_set) * (1_000 + i128::from(open_ms) / 1_000)
    }
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    /// The error since the last step.
    error: i128,
    held_ms: u64,
    /// How much of it in this opening.
    here_ms: u64,
}

/// How a room was closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    /// For how long.
    pub(crate) true_ms: u64,
    /// Whether the elapsed time is counted from the same origin when it is opened.
    pub(crate) same_origin: bool,
    /// Whether that was without a word.
    pub(crate) killed: bool,
}

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When {
    section: usize,
    at_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Truth {
    sections: Vec<u64>,
    /// The gap `n` lies behind the section `n`.
    gaps: Vec<Gap>,
    hold: Hold,
    error: i128,
    /// The greatest error that held.
    most_trusted: i128,
    /// What follows is not determined.
    pub(crate) is_vague: bool,
}

impl Truth {
    pub(crate) fn new(error: i128) -> Self {
        let hold = Hold { error, held_ms: 0, here_ms: 0 };
        Self {
            sections: vec![0],
            gaps: Vec::new(),
            hold,
            error,
            most_trusted: error,
            is_vague: false,
        }
    }

    pub(crate) fn now(&self) -> When {
        When { section: self.gaps.len(), at_ms: self.open_ms() }
    }

    fn open_ms(&self) -> u64 {
        self.sections.last().copied().unwrap_or_default()
    }

    fn first_doubt(&self) -> Option<usize> {
        self.gaps.iter().position(Gap::is_doubtful)
    }

    /// Time passes, the room open.
    pub(crate) fn pass(&mut self, ms: u64) {
        *self.sections.last_mut().unwrap() += ms;
        self.hold.held_ms += ms;
        self.hold.here_ms += ms;
        self.look();
    }

    /// The wall clock is set, the room open.
    pub(crate) fn set_error(&mut self, error: i128) {
        self.error = error;
        self.look();
    }

    /// The room was closed or killed, and is opened after this time with this error.
    pub(crate) fn reopen(&mut self, closed: Closed, error: i128) {
        let Closed { true_ms, same_origin, killed } = closed;
        let written_error = std::mem::replace(&mut self.error, error);
        let moved = error - written_error;
        let tolerance = 1_000 + i128::from(true_ms) / 1_000;
        // A setting that is no step, and may not have been written.
        self.is_vague |= killed && moved != 0 && moved.abs() <= tolerance + 2_000;
        if same_origin && moved.abs() <= tolerance {
            *self.sections.last_mut().unwrap() += true_ms;
            self.hold.held_ms += true_ms;
            self.hold.here_ms = 0;
            self.look();
            return;
        }
        let first = self.first_doubt();
        let was_plausible =
            first.is_none_or(|first| self.measured(first, written_error).least >= -DAY);
        let was_silent = first.is_some_and(|first| {
            let first = &self.gaps[first];
            first.seen.iter().all(|&error| first.said(error) < -DAY)
        });
        let true_ms = i128::from(true_ms);
        let said = true_ms + moved;
        let lost_ms = if killed { 10_000 } else { 0 };
        // Whether it went back is a matter of when it was written.
        self.is_vague |= killed && said.abs() < 12_000;
        let known = match first {
            None if (-DAY..0).contains(&said) => Known::Settled(Range { least: -lost_ms, most: 0 }),
            Some(_) if same_origin => Known::ByElapsed,
            _ => Known::ByWall,
        };
        // A clock that goes on goes on holding.
        let held_ms =
            if said >= 0 && was_plausible && !same_origin { self.hold.held_ms } else { 0 };
        self.hold_anew(held_ms);
        let last = Range::exactly(0);
        let seen = vec![error];
        let gap = Gap {
            true_ms,
            written_error,
            seen,
            was_plausible,
            was_silent,
            lost_ms,
            known,
            held_ms,
            last,
        };
        self.gaps.push(gap);
        self.sections.push(0);
        self.look();
    }

    /// How long the gap was by a wall clock with this error, as the later ones are believed to
    /// have been.
    fn measured(&self, gap: usize, error: i128) -> Range {
        let mut range = Range::exactly(self.gaps[gap].said(error));
        for later in &self.gaps[gap + 1..] {
            range.least += later.true_ms - later.last.most;
            range.most += later.true_ms - later.last.least;
        }
        range
    }

    /// The room reads its clock.
    fn look(&mut self) {
        let error = self.error;
        for gap in self.gaps.iter_mut().filter(|gap| gap.is_doubtful()) {
            if gap.seen.last() != Some(&error) {
                gap.seen.push(error);
            }
        }
        let is_far_behind = self.first_doubt().is_some_and(|first| self.look_into_doubt(first));
        if (error - self.hold.error).abs() > 1_000 + i128::from(self.hold.here_ms) / 1_000 {
            self.hold_anew(0);
            return;
        }
        let held_ms = self.hold.held_ms;
        if !is_far_behind {
            for gap in self.gaps.iter_mut().filter(|gap| gap.is_doubtful()) {
                if held_ms - gap.held_ms >= HOLD {
                    gap.known = Known::Settled(gap.last);
                }
            }
        }
        if self.has_held() {
            self.most_trusted = self.most_trusted.max(error);
        }
    }

    /// The clock goes on after it has held for so long, or not at all.
    fn hold_anew(&mut self, held_ms: u64) {
        self.hold = Hold { error: self.error, held_ms, here_ms: 0 };
        if held_ms == 0 {
            self.gaps.iter_mut().for_each(|gap| gap.held_ms = 0);
        }
    }

    /// What is believed now of the gaps in doubt. Whether the clock is far behind.
    fn look_into_doubt(&mut self, first: usize) -> bool {
        let error = self.error;
        let before: Vec<_> = self.gaps.iter().map(|gap| gap.last).collect();
        for gap in (first..self.gaps.len()).rev() {
            self.gaps[gap].last = self.believed(gap);
        }
        let measured = self.measured(first, error);
        let is_far_behind = measured.most < -DAY;
        self.is_vague |= !is_far_behind && measured.least < -DAY;
        if is_far_behind {
            // It says nothing, and nothing that has ended comes back.
            for (gap, last) in self.gaps.iter_mut().zip(before) {
                gap.last = last;
            }
            if let Some(gap) = self.gaps.last_mut()
                && gap.seen.len() == 1
                && gap.last.most == 0
            {
                let is_told = gap.known == Known::ByElapsed || gap.written_error == error;
                let most = if is_told { gap.true_ms } else { gap.said(error).max(0) };
                gap.last = Range {
                    least: if is_told { most } else { 0 } - gap.lost_ms,
                    most: most + gap.lost_ms / 5,
                };
            }
        }
        is_far_behind
    }

    pub(crate) fn error(&self) -> i128 {
        self.error
    }

    /// How far ahead of the truth a clock has been at most that held.
    pub(crate) fn most_trusted(&self) -> i128 {
        self.most_trusted
    }

    /// Whether nothing is in doubt, and the clock has held as it is set.
    pub(crate) fn has_held(&self) -> bool {
        self.hold.held_ms >= HOLD && self.first_doubt().is_none()
    }

    /// For how long a gap must be taken.
    fn believed(&self, index: usize) -> Range {
        let (range, lost_ms) = (self.told(index), self.gaps[index].lost_ms);
        if lost_ms == 0 || self.gaps[index].known == Known::ByElapsed {
            return range;
        }
        // A setting that is no step may not be written either.
        Range { least: range.least - lost_ms, most: range.most + 2_000 }
    }

    fn told(&self, index: usize) -> Range {
        let gap = &self.gaps[index];
        match gap.known {
            Known::Settled(range) => return range,
            Known::ByElapsed => return Range::exactly(gap.true_ms),
            Known::ByWall => {}
        }
        let from_here = || self.gaps[index..].iter().filter(|gap| gap.known == Known::ByWall);
        // The clock is right, as it was before each gap, and never said less since.
        let is_right = |gap: &Gap| {
            gap.was_plausible && gap.written_error == self.error && gap.never_fell_short()
        };
        if from_here().all(is_right) {
            let slack: i128 = from_here().map(|gap| gap.slack(self.open_ms())).sum();
            return Range { least: (gap.true_ms - slack).max(0), most: gap.true_ms + slack };
        }
        let said = gap.said(gap.seen[0]);
        // The clock was not set since.
        let is_as_opened = gap.seen.len() == 1
            && self.gaps[index + 1..].iter().all(|later| later.written_error == self.error);
        if is_as_opened && gap.was_plausible {
            return Range::exactly(said.max(0));
        }
        if said >= -DAY {
            return Range { least: 0, most: said.max(0) };
        }
        let later: i128 = self.gaps[index + 1..].iter().map(|gap| gap.true_ms).sum();
        let seen = gap.seen.iter().map(|&error| gap.said(error)).max().unwrap_or_default();
        Range { least: 0, most: (seen + later).max(0) }
    }

    /// What passed in all gaps from the first one in doubt on, where the clock tells that although
    /// it does not tell each.
    fn whole_doubt(&self, first: usize) -> Option<i128> {
        let gap = &self.gaps[first];
        let later = &self.gaps[first + 1..];
        let right = gap.written_error;
        let total: i128 = self.gaps[first..].iter().map(|gap| gap.true_ms).sum();
        // It shows too little even if all that has passed since is added.
        let is_silent = |error: i128| total + error - right < -DAY;
        let told = later.iter().all(|later| match later.known {
            Known::ByElapsed => true,
            _ if later.written_error == right => later.never_fell_short(),
            _ => later.was_silent && later.said(later.seen[0]) <= later.true_ms,
        });
        (gap.known == Known::ByWall
            && self.error == right
            && gap.seen.iter().all(|&error| error == right || is_silent(error))
            && is_silent(gap.seen[0])
            && told)
            .then_some(total)
    }

    /// How long ago something must be taken to have been.
    pub(crate) fn age(&self, when: When) -> Range {
        let mut age = self.open_since(when);
        let first = self.first_doubt();
        if let Some(first) = first.filter(|&first| first >= when.section)
            && let Some(total) = self.whole_doubt(first)
        {
            let slack: i128 = self.gaps[first..].iter().map(|gap| gap.slack(self.open_ms())).sum();
            for gap in &self.gaps[when.section..first] {
                age = age.plus(gap.taken());
            }
            return age.plus(Range { least: total - slack, most: total + slack });
        }
        for gap in &self.gaps[when.section..] {
            age = age.plus(gap.taken());
        }
        age
    }

    /// How long ago it was beyond doubt.
    pub(crate) fn sure_age(&self, when: When) -> Range {
        let mut age = self.open_since(when);
        for gap in &self.gaps[when.section..] {
            age = age.plus(match gap.known {
                Known::Settled(range) => range,
                Known::ByElapsed => Range { least: -gap.lost_ms, most: gap.true_ms },
                Known::ByWall => Range { least: -gap.lost_ms, most: 0 },
            });
        }
        age
    }

    /// Whether some of the time since may be lost.
    pub(crate) fn may_be_lost(&self, when: When) -> bool {
        self.gaps[when.section..].iter().any(|gap| gap.lost_ms > 0)
    }

    /// The time since, without gaps.
    fn open_since(&self, when: When) -> Range {
        let sections = self.sections[when.section..].iter().map(|&ms| i128::from(ms));
        Range::exactly(sections.sum::<i128>() - i128::from(when.at_ms))
    }
}
