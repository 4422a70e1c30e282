//! The background threads of an engine.
//!
//! The *committer* leads when only tasks wait, writes what callers with relaxed durability left in
//! the buffer, flushes for those who never wait, and marks the log when it falls idle. It sleeps
//! while nothing is appended. The *checkpointer* moves full segments into the B-tree. The third one
//! does the [maintenance](super::maintenance).

use super::Core;
use super::maintenance::{self, MaintenanceJob};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long an appended frame may stay in the buffer when nobody waits for it: at most two of
/// these.
const TICK: Duration = Duration::from_millis(4);

/// The threads of one engine; none when everything is driven by its callers.
#[derive(Debug, Default)]
pub(super) struct Handles {
    committer: Option<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
}

impl Handles {
    /// Starts them, the one that does the maintenance only when there is something for it to do.
    pub(super) fn spawn(core: &Arc<Core>, job: Option<MaintenanceJob>) -> std::io::Result<Self> {
        let committer = {
            let core = Arc::clone(core);
            thread::Builder::new().name("cloakroom-commit".into()).spawn(move || commit(&core))?
        };
        core.log.set_background_leader(Some(committer.thread().clone()));
        let checkpointer = {
            let core = Arc::clone(core);
            thread::Builder::new().name("cloakroom-checkpoint".into()).spawn(move || {
                while core.checkpointer.next_request() {
                    // A failure is kept for the writers that wait, and counted.
                    let _ = core.run_checkpoint();
                }
            })?
        };
        let maintenance = job.map(|job| {
            let core = Arc::clone(core);
            thread::Builder::new()
                .name("cloakroom-maintenance".into())
                .spawn(move || maintenance::run(&core, &job))
        });
        let maintenance = maintenance.transpose()?;
        Ok(Self { committer: Some(committer), checkpointer: Some(checkpointer), maintenance })
    }

    /// Waits for the threads of an engine that was closed.
    pub(super) fn join(&mut self) {
        for thread in [self.committer.take(), self.checkpointer.take(), self.maintenance.take()]
            .into_iter()
            .flatten()
        {
            thread.thread().unpark();
            // One of them may be what drops the last handle; it ends by itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// Wakes the committer if it sleeps, so that what was just appended does not wait for somebody to
/// ask.
pub(super) fn wake_if_idle(core: &Core) {
    // Either this sees that the committer sleeps, or the committer sees what was appended: see
    // `commit`.
    fence(Ordering::SeqCst);
    if core.counters.committer_idle.load(Ordering::Relaxed)
        && core.counters.committer_idle.swap(false, Ordering::AcqRel)
    {
        core.log.wake_background_leader();
    }
}

fn commit(core: &Core) {
    // What was asked for a tick ago and is not done yet is the committer's; younger work has a
    // caller who may do it sooner.
    let (mut flush_wanted, mut appended) = (0, 0);
    while !core.closed.load(Ordering::Acquire) && core.log.failure().is_none() {
        let flush_overdue = core.log.durable() < flush_wanted;
        let interval_over = core.log.flush_by().is_some_and(|by| by <= Instant::now() + TICK);
        if flush_overdue || interval_over || core.log.tasks_wait() {
            core.log.drive();
        } else if core.log.written() < appended {
            let _ = core.log.write_appended();
        }
        (flush_wanted, appended) = (core.log.flush_wanted(), core.log.appended());
        let busy = core.log.durable() < flush_wanted || core.log.written() < appended;
        if busy || core.counters.appends_since_tick(appended) {
            thread::park_timeout(TICK);
            continue;
        }
        let _ = core.log.mark_idle();
        core.counters.committer_idle.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if core.log.appended() == appended && !core.closed.load(Ordering::Acquire) {
            match core.log.flush_by() {
                Some(by) => {
                    thread::park_timeout(by.saturating_duration_since(Instant::now() + TICK))
                }
                None => thread::park(),
            }
        }
        core.counters.committer_idle.store(false, Ordering::Release);
    }
    core.rouse_after_failure();
}
