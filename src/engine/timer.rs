//! What is due at a time happens at that time, by itself.
//!
//! One thread, started by the first deadline, sleeps until the earliest one, as the pace of the
//! clock allows. An engine without threads looks after every call and every move of the clock
//! instead.
//!
//! A deadline passes at one place of the serial order, like a transaction: a transaction that was
//! decided before the time had come is seen by [`Deadline::decide`], and every later one is decided
//! after it.

use super::{Core, Turn};
use crate::clock::ClockPace;
use crate::error::{Error, Result};
use crate::pending::{Event, EventOutcome};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a clock of unknown pace is asked.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The longest sleep on a clock that keeps pace: it may be set, and a machine may be suspended,
/// which a sleep does not notice.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The end of a wait whose time has passed: its event is decided with nothing.
pub(super) struct Deadline {
    pub(super) event: Arc<Event>,
    /// The position of the row that set the deadline.
    pub(super) lsn: u64,
}

impl Deadline {
    /// Decides the event. Called once, under the serial lock.
    fn decide(&self) {
        self.event.settle(EventOutcome { row: None, lsn: self.lsn });
    }
}

/// The deadlines of one engine.
pub(super) struct Timer {
    state: Mutex<TimerState>,
    /// Whether a thread waits for the deadlines.
    in_background: bool,
}

#[derive(Default)]
struct TimerState {
    /// By time in milliseconds since the Unix epoch, then by number.
    due: BTreeMap<(u64, u64), Deadline>,
    next_id: u64,
    /// How the clock moves, once it was asked, and what it calls.
    pace: Option<(ClockPace, Arc<dyn Fn() + Send + Sync>)>,
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

/// Keeps a deadline.
pub(super) struct TimerEntry {
    timer: Arc<Timer>,
    at: (u64, u64),
}

impl Drop for TimerEntry {
    fn drop(&mut self) {
        let removed = self.timer.state.lock().due.remove(&self.at);
        drop(removed);
    }
}

impl Timer {
    pub(super) fn new(in_background: bool) -> Self {
        Self { state: Mutex::default(), in_background }
    }

    /// Takes out what is due at `now_ms`.
    fn take_due(&self, now_ms: u64) -> Vec<Deadline> {
        let mut state = self.state.lock();
        match now_ms.checked_add(1) {
            Some(next_ms) => {
                let later = state.due.split_off(&(next_ms, 0));
                std::mem::replace(&mut state.due, later).into_values().collect()
            }
            None => std::mem::take(&mut state.due).into_values().collect(),
        }
    }

    fn is_due(&self, now_ms: u64) -> bool {
        self.state.lock().due.first_key_value().is_some_and(|(&(at_ms, _), _)| at_ms <= now_ms)
    }

    /// How long to sleep at `now_ms`, unless the engine was closed.
    fn sleep(&self, now_ms: u64) -> Option<Sleep> {
        let state = self.state.lock();
        if state.closed {
            return None;
        }
        let earliest = state.due.first_key_value().map(|(&(at_ms, _), _)| at_ms);
        let pace = state.pace.as_ref().map(|(pace, _)| *pace);
        Some(sleep(earliest, pace, now_ms))
    }

    /// How the clock moves, once it was asked.
    pub(super) fn pace(&self) -> Option<ClockPace> {
        self.state.lock().pace.as_ref().map(|(pace, _)| *pace)
    }

    fn wake(&self) {
        if let Some(thread) = &self.state.lock().thread {
            thread.thread().unpark();
        }
    }

    /// Ends the thread, and waits for it unless it is the caller.
    pub(super) fn close(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.closed = true;
            state.thread.take()
        };
        if let Some(thread) = thread {
            thread.thread().unpark();
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer")
            .field("deadlines", &self.state.lock().due.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Sleep {
    UntilWoken,
    For(Duration),
}

/// How long to sleep until `earliest` on a clock of this pace.
fn sleep(earliest: Option<u64>, pace: Option<ClockPace>, now_ms: u64) -> Sleep {
    let Some(earliest_ms) = earliest else { return Sleep::UntilWoken };
    let left = Duration::from_millis(earliest_ms.saturating_sub(now_ms));
    match pace {
        Some(ClockPace::Announced) if earliest_ms > now_ms => Sleep::UntilWoken,
        Some(ClockPace::Announced) => Sleep::For(Duration::ZERO),
        Some(ClockPace::Real) => Sleep::For(left.min(MAX_SLEEP)),
        Some(ClockPace::Unknown) | None => Sleep::For(left.min(POLL_EVERY)),
    }
}

/// Has `deadline` pass at `at_ms`, in milliseconds since the Unix epoch, for as long as the entry is
/// kept.
pub(super) fn add(core: &Arc<Core>, at_ms: u64, deadline: Deadline) -> Result<TimerEntry> {
    let timer = &core.timer;
    listen(core);
    let entry = {
        let mut state = timer.state.lock();
        if timer.in_background && state.thread.is_none() && !state.closed {
            let core = Arc::clone(core);
            let thread =
                thread::Builder::new().name("cloakroom-timer".into()).spawn(move || run(&core));
            state.thread = Some(thread.map_err(|error| {
                Error::io("starting the thread that waits for deadlines", error)
            })?);
        }
        let at = (at_ms, state.next_id);
        state.next_id += 1;
        state.due.insert(at, deadline);
        if state.due.first_key_value().is_some_and(|(first, _)| *first == at)
            && let Some(thread) = &state.thread
        {
            thread.thread().unpark();
        }
        TimerEntry { timer: Arc::clone(timer), at }
    };
    core.after_call();
    Ok(entry)
}

/// Has the clock tell of its moves. A second listener, if two calls come here at once, does no
/// harm: it is dropped.
pub(super) fn listen(core: &Arc<Core>) {
    if core.timer.state.lock().pace.is_some() {
        return;
    }
    let weak: Weak<Core> = Arc::downgrade(core);
    let listener: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        if let Some(core) = weak.upgrade() {
            core.timer.wake();
            core.maintenance.wake();
            core.after_call();
        }
    });
    // Not under the lock, because a clock may be anything.
    let pace = core.clock.on_change(Arc::downgrade(&listener));
    core.timer.state.lock().pace.get_or_insert((pace, listener));
    core.timer.wake();
}

fn run(core: &Core) {
    loop {
        core.run_due();
        match core.timer.sleep(core.clock.now_ms()) {
            None => return,
            Some(Sleep::UntilWoken) => thread::park(),
            Some(Sleep::For(time)) => thread::park_timeout(time),
        }
    }
}

impl Core {
    /// Looks for what is due, if no thread does.
    pub(super) fn after_call(&self) {
        // Inside a transaction it would wait for itself; the end of the transaction looks again.
        if !self.timer.in_background && Turn::take(self).is_ok() {
            self.run_due();
        }
    }

    fn run_due(&self) {
        if !self.timer.is_due(self.clock.now_ms()) {
            return;
        }
        let due = {
            let _serial = self.serial.lock();
            let due = self.timer.take_due(self.clock.now_ms());
            due.iter().for_each(Deadline::decide);
            due
        };
        due.iter().for_each(|due| due.event.announce());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sleep_depends_on_the_pace_of_the_clock() {
        use ClockPace::{Announced, Real, Unknown};
        for (earliest, pace, expected) in [
            (None, Real, Sleep::UntilWoken),
            (None, Unknown, Sleep::UntilWoken),
            (Some(130), Real, Sleep::For(Duration::from_millis(30))),
            (Some(u64::MAX), Real, Sleep::For(MAX_SLEEP)),
            (Some(130), Unknown, Sleep::For(Duration::from_millis(30))),
            (Some(900), Unknown, Sleep::For(POLL_EVERY)),
            (Some(130), Announced, Sleep::UntilWoken),
            (Some(100), Announced, Sleep::For(Duration::ZERO)),
            (Some(3), Real, Sleep::For(Duration::ZERO)),
        ] {
            assert_eq!(sleep(earliest, Some(pace), 100), expected, "{earliest:?} {pace:?}");
        }
    }

    #[test]
    fn what_is_due_is_taken_once_the_greatest_time_too() {
        let timer = Timer::new(false);
        for (id, at_ms) in [5, 6, 7, u64::MAX].into_iter().enumerate() {
            let deadline = Deadline { event: Arc::default(), lsn: 0 };
            timer.state.lock().due.insert((at_ms, id as u64), deadline);
        }
        assert!(!timer.is_due(4) && timer.take_due(4).is_empty());
        assert!(timer.is_due(6));
        assert_eq!(timer.take_due(6).len(), 2);
        assert_eq!(timer.take_due(6).len(), 0);
        assert_eq!(timer.take_due(u64::MAX - 1).len(), 1);
        assert_eq!(timer.take_due(u64::MAX).len(), 1);
    }
}
