//! The background work, each kind done by a thread of its own while there is some: an idle room has
//! one thread at most, that of the maintenance, and none without a sweep interval.
//!
//! Each worker holds the kernel; the kernel knows none of them. It calls them through its signals,
//! which hold them weakly.

mod checkpointer;
mod clock_moves;
mod committer;
mod compactor;
mod follow_up;
mod maintenance;
mod timer;
mod worker;

pub use compactor::CompactReport;
pub(crate) use follow_up::FollowUp;
pub(crate) use maintenance::{LogShare, MaintenanceHandle, MaintenanceJob, Tick};
pub(in crate::engine) use timer::{TimedEvent, Timer, TimerEntry};
pub(crate) use worker::Threads;

use super::kernel::Kernel;
use crate::error::Result;
use checkpointer::Checkpointer;
use clock_moves::ClockMoves;
use committer::Committer;
use compactor::Compactor;
use follow_up::FollowUps;
use maintenance::Maintenance;
use std::sync::{Arc, Weak};
#[cfg(test)]
use worker::Worker;

/// The workers of one kernel.
#[derive(Debug)]
pub(in crate::engine) struct Workers {
    kernel: Arc<Kernel>,
    committer: Arc<Committer>,
    checkpointer: Arc<Checkpointer>,
    compactor: Arc<Compactor>,
    follow_ups: Arc<FollowUps>,
    timer: Arc<Timer>,
    maintenance: Option<Arc<Maintenance>>,
}

impl Workers {
    /// The workers of `kernel`, before its first transaction. None of them runs before
    /// [`start`](Self::start).
    pub(in crate::engine) fn new(
        kernel: &Arc<Kernel>,
        threads: Threads,
        job: Option<MaintenanceJob>,
    ) -> Arc<Self> {
        let clock_moves = Arc::new(ClockMoves::new(Arc::clone(kernel.clock())));
        let compactor = Arc::new(Compactor::new(Arc::clone(kernel)));
        let timer = Arc::new(Timer::new(Arc::clone(kernel), Arc::clone(&clock_moves), threads));
        let job = job.filter(|_| threads != Threads::None);
        let maintenance = job.map(|job| {
            let (kernel, compactor) = (Arc::clone(kernel), Arc::clone(&compactor));
            let (timer, clock_moves) = (Arc::clone(&timer), Arc::clone(&clock_moves));
            Arc::new(Maintenance::new(kernel, job, compactor, timer, clock_moves, threads))
        });
        let workers = Arc::new(Self {
            committer: Arc::new(Committer::new(Arc::clone(kernel), threads)),
            checkpointer: Arc::new(Checkpointer::new(Arc::clone(kernel), threads)),
            compactor,
            follow_ups: Arc::new(FollowUps::new(threads)),
            timer,
            maintenance,
            kernel: Arc::clone(kernel),
        });
        let weak = Arc::downgrade(&workers);
        clock_moves.tell(move || {
            if let Some(workers) = weak.upgrade() {
                workers.clock_has_moved();
            }
        });
        workers.connect(threads);
        workers
    }

    /// Sets the signals of the kernel.
    fn connect(&self, threads: Threads) {
        if threads == Threads::None {
            self.kernel.signals().leave_deadlines_to_callers();
            return;
        }
        let committer = Arc::downgrade(&self.committer);
        let leader = committer.clone();
        let checkpointer = Arc::downgrade(&self.checkpointer);
        let maintenance = self.maintenance.as_ref().map(Arc::downgrade);
        let maintenance = move || {
            let maintenance = maintenance.as_ref().and_then(Weak::upgrade);
            maintenance.is_some_and(|maintenance| {
                maintenance.wake();
                true
            })
        };
        self.kernel.signals().set(
            Box::new(move || committer.upgrade().is_some_and(|committer| committer.call())),
            Box::new(move || checkpointer.upgrade().is_some_and(|worker| worker.call())),
            Box::new(maintenance),
        );
        let lead = move || leader.upgrade().is_some_and(|committer| committer.call());
        self.kernel.log().set_leader_call(Box::new(lead));
    }

    /// Starts what has work from the beginning.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the system starts no thread for the maintenance.
    pub(in crate::engine) fn start(&self) -> Result<()> {
        self.maintenance.as_ref().map_or(Ok(()), Maintenance::start)?;
        self.kernel.request_checkpoint_of_recovered();
        Ok(())
    }

    /// Ends all threads of a kernel that was closed.
    pub(in crate::engine) fn stop(&self) {
        self.timer.stop();
        self.follow_ups.stop();
        self.committer.stop();
        self.checkpointer.stop();
        if let Some(maintenance) = &self.maintenance {
            maintenance.stop();
        }
    }

    /// Does what no thread does. Called after every call, with no lock held.
    pub(in crate::engine) fn after_call(&self) {
        if self.kernel.signals().is_work_left_to_callers() {
            self.timer.do_work_left_to_callers();
        }
    }

    /// Has a thread do the rest of a change, or this one where there is none. Gives it back when
    /// too many wait already.
    pub(in crate::engine) fn follow_up(&self, rest: FollowUp) -> std::result::Result<(), FollowUp> {
        self.follow_ups.add(rest)
    }

    /// Waits until the rest of every change is done.
    pub(in crate::engine) fn finish_follow_ups(&self) {
        self.follow_ups.finish();
    }

    pub(in crate::engine) fn timer(&self) -> &Arc<Timer> {
        &self.timer
    }

    pub(in crate::engine) fn compactor(&self) -> &Compactor {
        &self.compactor
    }

    /// The kernel as maintenance uses it, for maintenance that somebody asked for.
    ///
    /// # Errors
    /// [`Error::NestedTransaction`](crate::Error::NestedTransaction) inside a transaction, which
    /// maintenance would wait for.
    pub(in crate::engine) fn maintenance(&self) -> Result<MaintenanceHandle<'_>> {
        MaintenanceHandle::outside_transactions(&self.kernel, &self.timer)
    }

    /// The names of the threads that run.
    #[cfg(test)]
    pub(in crate::engine) fn running(&self) -> Vec<&'static str> {
        self.all().filter_map(Worker::running_name).collect()
    }

    #[cfg(test)]
    fn all(&self) -> impl Iterator<Item = &Worker> {
        let maintenance = self.maintenance.as_ref().map(|maintenance| maintenance.worker());
        let workers = [self.committer.worker(), self.checkpointer.worker(), self.timer.worker()];
        workers.into_iter().chain(maintenance).chain([self.follow_ups.worker()])
    }

    /// Has the system start no thread of one of these names any more, and those of others.
    #[cfg(test)]
    pub(in crate::engine) fn refuse(&self, names: &[&str]) {
        self.all().for_each(|worker| worker.refuse(names.contains(&worker.name())));
    }

    fn clock_has_moved(&self) {
        if self.kernel.check_process().is_err() {
            return;
        }
        self.timer.wake();
        if let Some(maintenance) = &self.maintenance {
            maintenance.wake();
        }
        self.after_call();
    }
}
