//! What nobody asked for: the work that keeps a file small, done by one thread in small steps.
//!
//! # What a step may cost others
//! 1. Everything that reads is done on a snapshot, without a lock ([`MaintenanceHandle::dry_run`]).
//!    The transaction that follows decides anew, under the serial lock, and finds what was read
//!    before in memory.
//! 2. The serial lock is handed to whoever waits for it when the step ends
//!    ([`MaintenanceHandle::transact`]), so a caller waits for one step at the most.
//! 3. A step never forces a flush, and never takes the last room in the log: without headroom it
//!    waits, holding no lock, until a checkpoint has made some.
//!
//! After each step the thread leaves everything alone for as long as the step took, so it takes
//! half of a processor at the most. It holds the engine but keeps no handle of it, so the engine
//! closes with its last handle.

use super::prefetch::{DryRun, Prefetched};
use super::{Core, Engine, Snapshot, Turn, Tx, timer};
use crate::clock::ClockPace;
use crate::durability::Durability;
use crate::error::{Error, Result};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// For how long what becomes due is gathered, so that rows which end one after the other are not
/// removed one by one.
const GATHER_FOR: Duration = Duration::from_secs(1);

/// A room in which nothing was written for this long is idle.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How long the thread leaves everything alone after a failure, and after many in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause between two steps while there is more to do.
const LONGEST_BREATH: Duration = Duration::from_millis(20);

/// Does the next step of the work.
pub(crate) type Step = dyn Fn(&MaintenanceHandle<'_>) -> Result<Tick> + Send + Sync;

/// Work for the thread. The engine knows nothing of it but when to call it.
#[derive(Clone)]
pub(crate) struct MaintenanceJob {
    /// The longest time between two looks for work.
    pub(crate) every: Duration,
    pub(crate) step: Arc<Step>,
}

impl fmt::Debug for MaintenanceJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaintenanceJob").field("every", &self.every).finish_non_exhaustive()
    }
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    /// There may be more to do at once.
    Again,
    /// Nothing is left to do, as far as is known until this time, in milliseconds since the Unix
    /// epoch.
    IdleUntil(Option<u64>),
}

/// The thread, for those who wake it.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    thread: Mutex<Option<Thread>>,
}

impl Maintenance {
    /// Has the thread look for work, because the clock was moved.
    pub(super) fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

/// What the thread does until the engine closes.
pub(super) fn run(core: &Arc<Core>, job: &MaintenanceJob) {
    *core.maintenance.thread.lock() = Some(thread::current());
    let mut failures = 0;
    while !core.closed.load(Ordering::Acquire) {
        let began = Instant::now();
        // A panic is a failure: the host goes on, and so does the maintenance.
        let pause = catch_unwind(AssertUnwindSafe(|| {
            timer::listen(core);
            tick(core, job).map(|(tick, look_again)| pause(tick, look_again, core, job))
        }));
        match pause {
            Ok(Ok(None)) => {
                failures = 0;
                thread::park_timeout(began.elapsed().min(LONGEST_BREATH));
            }
            Ok(Ok(Some(pause))) => {
                failures = 0;
                thread::park_timeout(pause);
            }
            Ok(Err(_)) | Err(_) => {
                thread::park_timeout(pause_after(failures));
                failures += 1;
            }
        }
    }
}

/// One step of everything the thread does. Says, too, whether it is worth looking again soon.
fn tick(core: &Core, job: &MaintenanceJob) -> Result<(Tick, bool)> {
    let tick = (job.step)(&MaintenanceHandle { core })?;
    if tick == Tick::Again {
        return Ok((tick, false));
    }
    // A failure is told to whoever observes, and does not keep the job from its work: it is tried
    // again when the B-tree has changed.
    let compacted = core.compact_if_worthwhile().inspect_err(crate::observe::compaction_failed);
    Ok((tick, compacted.unwrap_or(false)))
}

/// How long to leave everything alone after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE)
}

/// How long to sleep after a step, if at all.
fn pause(tick: Tick, look_again: bool, core: &Core, job: &MaintenanceJob) -> Option<Duration> {
    let Tick::IdleUntil(next_ms) = tick else { return None };
    let pause = pause_until(next_ms, core.timer.pace(), core.clock.now_ms(), job.every);
    Some(if look_again { pause.min(LOOK_AGAIN_AFTER) } else { pause })
}

fn pause_until(
    next_ms: Option<u64>,
    pace: Option<ClockPace>,
    now_ms: u64,
    every: Duration,
) -> Duration {
    match (next_ms, pace) {
        // The clock was moved while the last rows were looked at.
        (Some(next_ms), Some(ClockPace::Announced)) if next_ms <= now_ms => Duration::ZERO,
        // Whoever moves the clock wakes the thread.
        (_, Some(ClockPace::Announced)) | (None, _) => every,
        (Some(next_ms), _) => {
            Duration::from_millis(next_ms.saturating_sub(now_ms)).max(GATHER_FOR).min(every)
        }
    }
}

impl Engine {
    /// The engine as maintenance uses it, for maintenance that somebody asked for.
    ///
    /// # Errors
    /// [`Error::NestedTransaction`] inside a transaction, which maintenance would wait for.
    pub(crate) fn maintenance(&self) -> Result<MaintenanceHandle<'_>> {
        drop(Turn::take(&self.core)?);
        Ok(MaintenanceHandle { core: &self.core })
    }
}

/// The engine as maintenance uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaintenanceHandle<'a> {
    core: &'a Core,
}

impl MaintenanceHandle<'_> {
    /// The room's time, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.core.clock.now_ms()
    }

    /// The most bytes that all rows of a transaction may have.
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.core.log.max_payload_len()
    }

    /// The position that the B-tree has reached. What was removed before it is no longer in memory.
    pub(crate) fn checkpoint_lsn(&self) -> u64 {
        self.core.view().btree.lsn()
    }

    fn while_open<R>(&self, read: impl FnOnce(Snapshot) -> Result<R>) -> Result<R> {
        let _open = self.core.reads.read();
        if self.core.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        read(self.core.snapshot())
    }

    /// Runs `operation` on the newest state, at one position, without waiting for writers or for
    /// the disk to have what it sees.
    pub(crate) fn read<R>(&self, operation: impl FnOnce(&mut Snapshot) -> Result<R>) -> Result<R> {
        self.while_open(|mut snapshot| operation(&mut snapshot))
    }

    /// Runs `operation` without a lock and without effect, and keeps what it read for
    /// [`transact`](Self::transact).
    pub(crate) fn dry_run<R>(
        &self,
        operation: impl FnOnce(&mut DryRun) -> Result<R>,
    ) -> Result<(R, Prefetched<'static>)> {
        self.while_open(|snapshot| {
            let mut dry_run = DryRun::new(snapshot);
            let answer = operation(&mut dry_run)?;
            Ok((answer, dry_run.into_prefetched()))
        })
    }

    /// Runs `operation` at the next place of the serial order. What it stages is visible at once,
    /// and durable when something later is. `None` when the log has no headroom: nothing was run.
    pub(crate) fn transact<R>(
        &self,
        prefetched: &Prefetched<'_>,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        let core = self.core;
        let mut done = {
            let _turn = Turn::take(core)?;
            let mut scratch = core.serial.lock();
            if !core.log.spare_is_free() {
                return Ok(None);
            }
            let done = core.run(&mut scratch, Durability::Os, prefetched, operation);
            MutexGuard::unlock_fair(scratch);
            done?
        };
        done.wake();
        core.after_call();
        done.answer.map(Some)
    }

    /// Waits until the log has headroom.
    pub(crate) fn wait_for_headroom(&self) -> Result<()> {
        self.core.wait_for_headroom()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_make_the_pause_longer_up_to_a_limit() {
        let seconds: Vec<_> = (0..9).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn it_sleeps_until_something_is_due_and_gathers_for_a_while() {
        use ClockPace::{Announced, Real, Unknown};
        let every = Duration::from_secs(30);
        for (next_ms, pace, expected) in [
            (None, Real, every),
            (Some(50), Real, GATHER_FOR),
            (Some(105), Real, GATHER_FOR),
            (Some(5_100), Real, Duration::from_secs(5)),
            (Some(5_100), Unknown, Duration::from_secs(5)),
            (Some(u64::MAX), Real, every),
            (Some(100), Announced, Duration::ZERO),
            (Some(101), Announced, every),
        ] {
            assert_eq!(
                pause_until(next_ms, Some(pace), 100, every),
                expected,
                "{next_ms:?} {pace:?}"
            );
        }
        let often = Duration::from_millis(7);
        assert_eq!(pause_until(Some(101), Some(Real), 100, often), often);
    }
}
