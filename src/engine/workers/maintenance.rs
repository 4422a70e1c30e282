//! Maintenance: the work that keeps a file small, done by one thread in small steps.
//!
//! # What a step may cost others
//! 1. Everything that reads is done on a snapshot, without a lock ([`MaintenanceHandle::dry_run`]).
//!    The transaction that follows decides anew, under the serial lock, and finds what was read
//!    before in memory.
//! 2. The serial lock is handed to the thread that waits for it when the step ends
//!    ([`MaintenanceHandle::transact`]), so a caller waits for one step at the most.
//! 3. A step never forces a flush. As long as little is to be done it never takes the last room in
//!    the log, either: without headroom it waits, holding no lock, for a checkpoint. A job that has
//!    fallen behind takes its turn like a caller ([`LogShare`]).
//!
//! After each step the thread leaves everything alone for as long as the step took, so it takes
//! half of a processor at the most, unless the job has fallen behind. It holds the engine but keeps
//! no handle of it, so the engine closes with its last handle.

use super::clock_moves::ClockMoves;
use super::compactor::Compactor;
use super::timer::Timer;
use super::worker::{Rest, Rested, Threads, Worker};
use crate::clock::ClockPace;
use crate::durability::Durability;
use crate::engine::kernel::time_line::Moment;
use crate::engine::kernel::{DryRun, Kernel, Prefetched, Scratch, Snapshot, TransactionTurn, Tx};
use crate::error::{Error, Result};
use crate::log::QueueShare;
use crate::sync::{Mutex, MutexGuard};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long what becomes due is gathered, so that rows which end one after the other are not
/// removed one by one.
const GATHER_FOR: Duration = Duration::from_secs(1);

/// A room in which nothing was written for this long is idle.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How often a thread that always has work looks at the free space of the B-tree.
const LOOK_WHILE_BUSY: Duration = Duration::from_secs(5);

/// The same while its job has fallen behind, which moving pages does not help.
const LOOK_WHILE_BEHIND: Duration = Duration::from_secs(30);

/// How long the thread leaves everything alone after a failure, and after many in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often the clock is read while nothing else is to be done.
const KEEP_TIME_EVERY: Duration = Duration::from_secs(1);

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
    /// The same, and so much that no pause is due.
    Behind,
    /// Nothing is left to do, as far as is known for so many milliseconds.
    IdleFor(Option<u64>),
}

/// Which space of the log a step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogShare {
    /// The active segment, and only while the other one is free.
    Headroom,
    /// What both segments have, as a caller may, and a part of the queue behind them.
    LikeCallers,
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
    /// When the free space was looked at last between two steps.
    looked_at_space: Mutex<Instant>,
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
        let looked_at_space = Mutex::new(Instant::now());
        Self { kernel, job, compactor, timer, clock_moves, worker, looked_at_space }
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

    /// Has the thread look for work, because the clock was moved or something was appended.
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
            let (began, appended) = (Instant::now(), self.kernel.log().appended());
            // A panic is a failure: the host goes on, and so does the maintenance.
            let pause = catch_unwind(AssertUnwindSafe(|| {
                self.clock_moves.listen();
                self.tick().map(|(tick, look_again)| self.pause(tick, look_again))
            }));
            let rested = match pause {
                Ok(Ok(pause)) => {
                    failures = 0;
                    let breath = || began.elapsed().min(LONGEST_BREATH);
                    self.rest(pause.unwrap_or_else(breath), appended)
                }
                Ok(Err(_)) | Err(_) => {
                    failures += 1;
                    self.worker.rest(Rest::For(pause_after(failures - 1)))
                }
            };
            if rested == Rested::Ends {
                return;
            }
        }
    }

    /// Rests for so long. What is appended behind `appended` may be due sooner, so then the thread
    /// looks after a moment: it does not know what is written, and a room in which nothing is
    /// written lets it sleep.
    fn rest(&self, pause: Duration, appended: u64) -> Rested {
        let log = self.kernel.log();
        // A clock that tells of its moves wakes the thread when something becomes due.
        let is_told = self.clock_moves.pace() == Some(ClockPace::Announced);
        if pause <= GATHER_FOR || is_told {
            return self.worker.rest(Rest::For(pause));
        }
        let signals = self.kernel.signals();
        signals.maintenance_falls_asleep();
        let rested = match log.appended() == appended {
            true => self.rest_and_keep_time(pause),
            false => Rested::Called,
        };
        signals.maintenance_is_awake();
        if rested == Rested::Called && log.appended() != appended {
            return self.worker.rest(Rest::For(GATHER_FOR));
        }
        rested
    }

    /// Rests for so long, and reads the clock every second: a step of the wall clock is noticed
    /// soon also when no call reads it, and survives a kill. So is a file that lost its name.
    fn rest_and_keep_time(&self, pause: Duration) -> Rested {
        let mut left = pause;
        loop {
            // A failure of the log is told to those who write.
            let _ = self.kernel.keep_time();
            self.kernel.look_at_name();
            let part = left.min(KEEP_TIME_EVERY);
            let rested = self.worker.rest(Rest::For(part));
            left = left.saturating_sub(part);
            if rested != Rested::Elapsed || left.is_zero() {
                return rested;
            }
        }
    }

    /// One step of everything the thread does. Says, too, whether it is worth looking again soon.
    fn tick(&self) -> Result<(Tick, bool)> {
        let handle = MaintenanceHandle { kernel: &self.kernel, timer: &self.timer };
        let tick = (self.job.step)(&handle)?;
        // To look, and to move pages, is to wait for a checkpoint that is under way.
        let has_headroom = self.kernel.log().spare_is_free();
        let is_time = match tick {
            Tick::IdleFor(_) if has_headroom => true,
            Tick::Again if has_headroom => self.is_time_to_compact(LOOK_WHILE_BUSY),
            _ => self.is_time_to_compact(LOOK_WHILE_BEHIND),
        };
        if !is_time {
            return Ok((tick, !has_headroom));
        }
        // A failure is shown as an event, and does not keep the job from its work: it is
        // tried again when the B-tree has changed.
        let compacted =
            self.compactor.compact_if_worthwhile().inspect_err(crate::observe::compaction_failed);
        Ok((tick, compacted.unwrap_or(false)))
    }

    /// Whether a thread that has work all the time looks at the free space again.
    fn is_time_to_compact(&self, every: Duration) -> bool {
        let mut looked = self.looked_at_space.lock();
        let is_time = looked.elapsed() >= every;
        if is_time {
            *looked = Instant::now();
        }
        is_time
    }

    /// How long to sleep after a step, if at all.
    fn pause(&self, tick: Tick, look_again: bool) -> Option<Duration> {
        let left_ms = match tick {
            Tick::IdleFor(left_ms) => left_ms,
            Tick::Behind => return Some(Duration::ZERO),
            Tick::Again => return None,
        };
        let pause = pause_for(left_ms, self.clock_moves.pace(), self.job.every);
        Some(if look_again { pause.min(LOOK_AGAIN_AFTER) } else { pause })
    }
}

/// How long to leave everything alone after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE)
}

fn pause_for(left_ms: Option<u64>, pace: Option<ClockPace>, every: Duration) -> Duration {
    match (left_ms, pace) {
        // The clock was moved while the last rows were looked at.
        (Some(0), Some(ClockPace::Announced)) => Duration::ZERO,
        // The clock wakes the thread when it is moved.
        (_, Some(ClockPace::Announced)) | (None, _) => every,
        (Some(left_ms), _) => Duration::from_millis(left_ms).max(GATHER_FOR).min(every),
    }
}

/// A place of the serial order that was taken and not used yet.
pub(crate) struct SerialTurn<'a> {
    // Declared first, so that the lock is given up first.
    scratch: MutexGuard<'a, Scratch>,
    _turn: TransactionTurn,
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

    /// The room's time.
    pub(crate) fn moment(&self) -> Moment {
        self.kernel.moment()
    }

    /// The most bytes that all rows of a transaction may have.
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.kernel.log().max_payload_len()
    }

    /// Bytes written to the log since the room was opened.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.kernel.log().stats().bytes_written
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

    /// Waits for the next place of the serial order. No transaction runs until it is given to
    /// [`transact`](Self::transact) or dropped.
    pub(crate) fn take_turn(&self) -> Result<SerialTurn<'a>> {
        let turn = self.kernel.take_turn()?;
        Ok(SerialTurn { scratch: self.kernel.lock_serial(), _turn: turn })
    }

    /// Runs `operation` in this turn. What it stages is visible at once,
    /// and durable when something later is. `None` when the log does not have the space that the
    /// step may take: nothing was run.
    pub(crate) fn transact<R>(
        &self,
        turn: SerialTurn<'_>,
        share: LogShare,
        prefetched: &Prefetched<'_>,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        let kernel = self.kernel;
        let mut finished = {
            let SerialTurn { mut scratch, _turn } = turn;
            let has_space = match share {
                LogShare::Headroom => kernel.log().spare_is_free(),
                LogShare::LikeCallers => true,
            };
            if !has_space {
                return Ok(None);
            }
            let appended_as = (Durability::Os, QueueShare::Maintenance);
            let finished = kernel.run(&mut scratch, appended_as, prefetched, operation);
            MutexGuard::unlock_fair(scratch);
            finished?
        };
        finished.wake();
        if kernel.signals().is_work_left_to_callers() {
            self.timer.do_work_left_to_callers();
        }
        finished.answer.map(Some)
    }

    /// Waits until the log has headroom, or until a checkpoint has ended.
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
        for (left_ms, pace, expected) in [
            (None, Real, every),
            (Some(0), Real, GATHER_FOR),
            (Some(5), Real, GATHER_FOR),
            (Some(5_000), Real, Duration::from_secs(5)),
            (Some(5_000), Unknown, Duration::from_secs(5)),
            (Some(u64::MAX), Real, every),
            (Some(0), Announced, Duration::ZERO),
            (Some(1), Announced, every),
        ] {
            assert_eq!(pause_for(left_ms, Some(pace), every), expected, "{left_ms:?} {pace:?}");
        }
        let often = Duration::from_millis(7);
        assert_eq!(pause_for(Some(1), Some(Real), often), often);
    }
}
