//! What is due at a time happens at that time, by itself.
//!
//! One thread, started by a deadline and there while there are any, sleeps until the earliest one,
//! as the pace of the clock allows. An engine without threads looks after every call and every move
//! of the clock instead.
//!
//! A deadline passes at one place of the serial order, like a transaction: a transaction that was
//! decided before the time had come is seen by [`TimedEvent::decide`], and every later one is
//! decided after it.

use super::clock_moves::ClockMoves;
use super::worker::{Rest, Rested, Threads, Worker};
use crate::clock::ClockPace;
use crate::engine::kernel::Kernel;
use crate::error::{Error, Result};
use crate::pending::{Event, EventOutcome};
use crate::process::HomeProcess;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a clock of unknown pace is asked.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The longest sleep on a clock that keeps pace: a machine may be suspended, which a sleep does not
/// notice, and the time line counts.
const MAX_SLEEP: Duration = Duration::from_secs(5);

/// The end of a wait whose time has passed: its event is decided with nothing.
#[derive(Debug)]
pub(in crate::engine) struct TimedEvent {
    pub(in crate::engine) event: Arc<Event>,
    /// The position of the row that set the deadline.
    pub(in crate::engine) lsn: u64,
}

impl TimedEvent {
    /// Decides the event. Called once, under the serial lock.
    fn decide(&self) {
        self.event.settle(EventOutcome { row: None, lsn: self.lsn });
    }
}

/// What waits for the deadlines of one kernel.
#[derive(Debug)]
pub(in crate::engine) struct Timer {
    kernel: Arc<Kernel>,
    clock_moves: Arc<ClockMoves>,
    deadlines: Arc<Deadlines>,
}

/// The deadlines of one kernel.
#[derive(Debug)]
struct Deadlines {
    listed: Mutex<DeadlineList>,
    /// Whose thread waits for them.
    worker: Worker,
    /// A fork of this process takes nothing off the list.
    home: HomeProcess,
}

#[derive(Debug, Default)]
struct DeadlineList {
    /// By time in milliseconds of the room's time line, then by number.
    due: BTreeMap<(u64, u64), TimedEvent>,
    next_id: u64,
}

/// Keeps a deadline. It does not keep the kernel.
pub(in crate::engine) struct TimerEntry {
    deadlines: Arc<Deadlines>,
    at: (u64, u64),
}

impl Drop for TimerEntry {
    fn drop(&mut self) {
        if self.deadlines.home.has_forked() {
            return;
        }
        let mut listed = self.deadlines.listed.lock();
        let removed = listed.due.remove(&self.at);
        let was_last = removed.is_some() && listed.due.is_empty();
        drop(listed);
        drop(removed);
        if was_last {
            // The thread may sleep until a time that means nothing any more. It can end.
            self.deadlines.worker.wake();
        }
    }
}

impl Deadlines {
    fn new(threads: Threads) -> Self {
        let worker = Worker::new("cloakroom-timer", threads);
        Self { listed: Mutex::default(), worker, home: HomeProcess::current() }
    }

    /// Lists a deadline. Answers its entry, and whether it is the first to pass.
    fn add(self: &Arc<Self>, at_ms: u64, deadline: TimedEvent) -> (TimerEntry, bool) {
        let mut listed = self.listed.lock();
        let at = (at_ms, listed.next_id);
        listed.next_id += 1;
        listed.due.insert(at, deadline);
        let is_first = listed.due.first_key_value().is_some_and(|(first, _)| *first == at);
        (TimerEntry { deadlines: Arc::clone(self), at }, is_first)
    }

    /// Takes out what is due at `now_ms`.
    fn take_due(&self, now_ms: u64) -> Vec<TimedEvent> {
        let mut listed = self.listed.lock();
        match now_ms.checked_add(1) {
            Some(next_ms) => {
                let later = listed.due.split_off(&(next_ms, 0));
                std::mem::replace(&mut listed.due, later).into_values().collect()
            }
            None => std::mem::take(&mut listed.due).into_values().collect(),
        }
    }

    /// When the first deadline passes.
    fn earliest_ms(&self) -> Option<u64> {
        self.listed.lock().due.first_key_value().map(|(&(at_ms, _), _)| at_ms)
    }

    fn is_due(&self, now_ms: u64) -> bool {
        self.earliest_ms().is_some_and(|at_ms| at_ms <= now_ms)
    }
}

impl Timer {
    pub(super) fn new(kernel: Arc<Kernel>, clock_moves: Arc<ClockMoves>, threads: Threads) -> Self {
        Self { kernel, clock_moves, deadlines: Arc::new(Deadlines::new(threads)) }
    }

    /// Has `deadline` pass at `at_ms` of the room's time line, in milliseconds, for as long as the
    /// entry is kept.
    ///
    /// # Errors
    /// [`Error::Io`] when a thread is needed and the system starts none: no thread would notice
    /// that the deadline has passed.
    pub(in crate::engine) fn add(
        self: &Arc<Self>,
        at_ms: u64,
        deadline: TimedEvent,
    ) -> Result<TimerEntry> {
        self.clock_moves.listen();
        // Listed first and called then, so that the thread cannot miss it.
        let (entry, is_first) = self.deadlines.add(at_ms, deadline);
        if is_first || !self.deadlines.worker.is_running() {
            self.call()?;
        }
        if self.kernel.signals().is_work_left_to_callers() {
            self.do_work_left_to_callers();
        }
        Ok(entry)
    }

    fn call(self: &Arc<Self>) -> Result<()> {
        let called = self.deadlines.worker.call(|number| {
            let this = Arc::clone(self);
            move || {
                let _running = this.deadlines.worker.running(number);
                this.run();
            }
        });
        called
            .map(drop)
            .map_err(|error| Error::io("starting the thread that waits for deadlines", error))
    }

    /// Has the thread look again, because the clock was moved.
    pub(super) fn wake(&self) {
        self.deadlines.worker.wake();
    }

    pub(super) fn stop(&self) {
        self.deadlines.worker.stop();
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> &Worker {
        &self.deadlines.worker
    }

    fn run(&self) {
        loop {
            self.run_due();
            let (earliest, pace) = (self.deadlines.earliest_ms(), self.clock_moves.pace());
            let rest = rest(earliest, pace, self.kernel.moment().line_ms());
            if self.deadlines.worker.rest(rest) == Rested::Ends {
                return;
            }
        }
    }

    fn run_due(&self) {
        if !self.deadlines.is_due(self.kernel.moment().line_ms()) {
            return;
        }
        let due = {
            let _serial = self.kernel.lock_serial();
            let due = self.deadlines.take_due(self.kernel.moment().line_ms());
            due.iter().for_each(TimedEvent::decide);
            due
        };
        due.iter().for_each(|due| due.event.announce());
    }

    /// Does what no thread does: looks for deadlines that have passed, and what the kernel knows
    /// of. The caller holds no lock.
    #[cold]
    pub(super) fn do_work_left_to_callers(&self) {
        // Inside a transaction it would wait for itself; the end of the transaction looks again.
        if self.kernel.take_turn().is_err() {
            return;
        }
        self.kernel.do_owed_work();
        if !self.deadlines.worker.has_threads() {
            self.run_due();
        }
    }
}

/// How long to rest until `earliest` on a clock of this pace.
fn rest(earliest: Option<u64>, pace: Option<ClockPace>, now_ms: u64) -> Rest {
    let Some(earliest_ms) = earliest else { return Rest::IdleOnly };
    let left = Duration::from_millis(earliest_ms.saturating_sub(now_ms));
    match pace {
        Some(ClockPace::Announced) if earliest_ms > now_ms => Rest::UntilCalled,
        Some(ClockPace::Announced) => Rest::For(Duration::ZERO),
        Some(ClockPace::Real) => Rest::For(left.min(MAX_SLEEP)),
        Some(ClockPace::Unknown) | None => Rest::For(left.min(POLL_EVERY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_depends_on_the_pace_of_the_clock() {
        use ClockPace::{Announced, Real, Unknown};
        for (earliest, pace, expected) in [
            (None, Real, Rest::IdleOnly),
            (None, Unknown, Rest::IdleOnly),
            (Some(130), Real, Rest::For(Duration::from_millis(30))),
            (Some(u64::MAX), Real, Rest::For(MAX_SLEEP)),
            (Some(130), Unknown, Rest::For(Duration::from_millis(30))),
            (Some(900), Unknown, Rest::For(POLL_EVERY)),
            (Some(130), Announced, Rest::UntilCalled),
            (Some(100), Announced, Rest::For(Duration::ZERO)),
            (Some(3), Real, Rest::For(Duration::ZERO)),
        ] {
            assert_eq!(rest(earliest, Some(pace), 100), expected, "{earliest:?} {pace:?}");
        }
    }

    #[test]
    fn what_is_due_is_taken_once_the_greatest_time_too() {
        let timer = Arc::new(Deadlines::new(Threads::None));
        let mut entries = Vec::new();
        for (at_ms, is_first) in [(6, true), (5, true), (7, false), (u64::MAX, false)] {
            let (entry, first) = timer.add(at_ms, TimedEvent { event: Arc::default(), lsn: 0 });
            assert_eq!(first, is_first);
            entries.push(entry);
        }
        let (dropped, _) = timer.add(6, TimedEvent { event: Arc::default(), lsn: 0 });
        drop(dropped);
        assert!(!timer.is_due(4) && timer.take_due(4).is_empty());
        assert!(timer.is_due(6));
        assert_eq!(timer.take_due(6).len(), 2);
        assert_eq!(timer.take_due(6).len(), 0);
        assert_eq!(timer.take_due(u64::MAX - 1).len(), 1);
        assert_eq!(timer.take_due(u64::MAX).len(), 1);
        assert_eq!(timer.earliest_ms(), None);
    }
}
