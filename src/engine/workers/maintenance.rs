//! Maintenance: the work that keeps a file small, done by one thread in small steps.
//!
//! # What a step may cost others
//! 1. Everything that reads is done on a snapshot, without a lock ([`MaintenanceHandle::dry_run`]).
//!    The transaction that follows decides anew, under the serial lock, and finds what was read
//!    before in memory.
//! 2. The serial lock is handed to the thread that waits for it when the step ends
//!    ([`MaintenanceHandle::transact`]), so a caller waits for one step at the most.
//! 3. A step never forces a flush, and never takes the last room in the log: without headroom it
//!    waits, holding no lock, until a checkpoint has made some.
//!
//! After each step the thread leaves everything alone for as long as the step took, so it takes
//! half of a processor at the most. It holds the engine but keeps no handle of it, so the engine
//! closes with its last handle.

use super::clock_moves::ClockMoves;
use super::compactor::Compactor;
use super::timer::Timer;
use super::worker::{Rest, Rested, Threads, Worker};
use crate::clock::ClockPace;
use crate::durability::Durability;
use crate::engine::kernel::{DryRun, Kernel, Prefetched, Snapshot, Tx};
use crate::error::{Error, Result};
use parking_lot::MutexGuard;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
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

/// The thread that does the maintenance. It runs for as long as the room is open, because what it
/// does next is known to it alone.
#[derive(Debug)]
pub(super) struct Maintenance {
    kernel: Arc<Kernel>,
    job: MaintenanceJob,
    compactor: Arc<Compactor>,
    timer: Arc<Timer>,
    clock_moves: Arc<ClockMoves>,
    worker: Worker,
}

impl Maintenance {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        job: MaintenanceJob,
        compactor: Arc<Compactor>,
        timer: Arc<Timer>,
        clock_moves: Arc<ClockMoves>,
        threads: Threads,
    ) -> Self {
        let worker = Worker::new("cloakroom-maintenance", threads);
        Self { kernel, job, compactor, timer, clock_moves, worker }
    }

    /// Starts the thread.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        let started = self.worker.call(|number| {
            let this = Arc::clone(self);
            move || {
                let _running = this.worker.running(number);
                this.run();
            }
        });
        started.map(drop).map_err(|error| Error::io("starting the maintenance thread", error))
    }

    /// Has the thread look for work, because the clock was moved.
    pub(super) fn wake(&self) {
        self.worker.wake();
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn stop(&self) {
        self.worker.stop();
    }

    /// What the thread does until the kernel closes.
    fn run(&self) {
        let mut failures = 0;
        while !self.kernel.is_closed() {
            let began = Instant::now();
            // A panic is a failure: the host goes on, and so does the maintenance.
            let pause = catch_unwind(AssertUnwindSafe(|| {
                self.clock_moves.listen();
                self.tick().map(|(tick, look_again)| self.pause(tick, look_again))
            }));
            let pause = match pause {
                Ok(Ok(pause)) => {
                    failures = 0;
                    pause.unwrap_or_else(|| began.elapsed().min(LONGEST_BREATH))
                }
                Ok(Err(_)) | Err(_) => {
                    failures += 1;
                    pause_after(failures - 1)
                }
            };
            if self.worker.rest(Rest::For(pause)) == Rested::Ends {
                return;
            }
        }
    }

    /// One step of everything the thread does. Says, too, whether it is worth looking again soon.
    fn tick(&self) -> Result<(Tick, bool)> {
        let handle = MaintenanceHandle { kernel: &self.kernel, timer: &self.timer };
        let tick = (self.job.step)(&handle)?;
        if tick == Tick::Again {
            return Ok((tick, false));
        }
        // A failure is shown as an event, and does not keep the job from its work: it is
        // tried again when the B-tree has changed.
        let compacted =
            self.compactor.compact_if_worthwhile().inspect_err(crate::observe::compaction_failed);
        Ok((tick, compacted.unwrap_or(false)))
    }

    /// How long to sleep after a step, if at all.
    fn pause(&self, tick: Tick, look_again: bool) -> Option<Duration> {
        let Tick::IdleUntil(next_ms) = tick else { return None };
        let (pace, now_ms) = (self.clock_moves.pace(), self.kernel.clock().now_ms());
        let pause = pause_until(next_ms, pace, now_ms, self.job.every);
        Some(if look_again { pause.min(LOOK_AGAIN_AFTER) } else { pause })
    }
}

/// How long to leave everything alone after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE)
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
        // The clock wakes the thread when it is moved.
        (_, Some(ClockPace::Announced)) | (None, _) => every,
        (Some(next_ms), _) => {
            Duration::from_millis(next_ms.saturating_sub(now_ms)).max(GATHER_FOR).min(every)
        }
    }
}

/// The kernel as maintenance uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaintenanceHandle<'a> {
    kernel: &'a Kernel,
    timer: &'a Timer,
}

impl<'a> MaintenanceHandle<'a> {
    /// # Errors
    /// [`Error::NestedTransaction`] inside a transaction, which maintenance would wait for.
    pub(super) fn outside_transactions(kernel: &'a Kernel, timer: &'a Timer) -> Result<Self> {
        drop(kernel.take_turn()?);
        Ok(Self { kernel, timer })
    }

    /// The room's time, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.kernel.clock().now_ms()
    }

    /// The most bytes that all rows of a transaction may have.
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.kernel.log().max_payload_len()
    }

    /// The position that the B-tree has reached. What was removed before it is no longer in memory.
    pub(crate) fn checkpoint_lsn(&self) -> u64 {
        self.kernel.checkpoint_lsn()
    }

    /// Runs `operation` on the newest state, at one position, without waiting for writers or for
    /// the disk to have what it sees.
    pub(crate) fn read<R>(&self, operation: impl FnOnce(&mut Snapshot) -> Result<R>) -> Result<R> {
        operation(&mut self.kernel.hold_open()?.snapshot())
    }

    /// Runs `operation` without a lock and without effect, and keeps what it read for
    /// [`transact`](Self::transact).
    pub(crate) fn dry_run<R>(
        &self,
        operation: impl FnOnce(&mut DryRun) -> Result<R>,
    ) -> Result<(R, Prefetched<'static>)> {
        let open = self.kernel.hold_open()?;
        let mut dry_run = DryRun::new(open.snapshot());
        let answer = operation(&mut dry_run)?;
        Ok((answer, dry_run.into_prefetched()))
    }

    /// Runs `operation` at the next place of the serial order. What it stages is visible at once,
    /// and durable when something later is. `None` when the log has no headroom: nothing was run.
    pub(crate) fn transact<R>(
        &self,
        prefetched: &Prefetched<'_>,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        let kernel = self.kernel;
        let mut finished = {
            let _turn = kernel.take_turn()?;
            let mut scratch = kernel.lock_serial();
            if !kernel.log().spare_is_free() {
                return Ok(None);
            }
            let finished = kernel.run(&mut scratch, Durability::Os, prefetched, operation);
            MutexGuard::unlock_fair(scratch);
            finished?
        };
        finished.wake();
        if kernel.signals().is_work_left_to_callers() {
            self.timer.do_work_left_to_callers();
        }
        finished.answer.map(Some)
    }

    /// Waits until the log has headroom.
    pub(crate) fn wait_for_headroom(&self) -> Result<()> {
        self.kernel.wait_for_headroom()
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
