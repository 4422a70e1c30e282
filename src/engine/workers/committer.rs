//! The committer: leads when only tasks wait, writes what callers with relaxed durability left in
//! the buffer, flushes for those who never wait, tries a full disk again, and marks the log when it
//! falls idle.
//!
//! # Why nothing that is appended waits for ever
//! When it finds nothing to do it says that it sleeps, then looks once more whether anything was
//! appended. An append publishes its position, then looks whether the committer sleeps, and calls
//! it if so. Both have a full fence between the two steps, so at least one of them sees the other.
//! A thread that ends has said before that it sleeps, so the next append calls, which starts
//! another one (see [`Worker`]).

use super::worker::{Rest, Rested, Threads, Worker};
use crate::engine::kernel::Kernel;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an appended frame may stay in the buffer when no caller waits for it: at most two of
/// these.
const TICK: Duration = Duration::from_millis(4);

/// See the module.
#[derive(Debug)]
pub(super) struct Committer {
    kernel: Arc<Kernel>,
    worker: Worker,
}

impl Committer {
    pub(super) fn new(kernel: Arc<Kernel>, threads: Threads) -> Self {
        Self { kernel, worker: Worker::new("cloakroom-commit", threads) }
    }

    /// Has its thread look for work. Answers whether there is one.
    pub(super) fn call(self: &Arc<Self>) -> bool {
        let called = self.worker.call(|number| {
            let this = Arc::clone(self);
            move || {
                let _running = this.worker.running(number);
                this.run();
            }
        });
        // Without a thread the caller does the work.
        called.unwrap_or(false)
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn stop(&self) {
        self.worker.stop();
    }

    fn run(&self) {
        let (log, signals) = (self.kernel.log(), self.kernel.signals());
        // What was asked for a tick ago and is not done yet is the committer's; younger work has a
        // caller who may do it sooner.
        let (mut flush_wanted, mut appended) = (0, 0);
        let mut appended_at_tick = 0;
        signals.committer_is_awake();
        while !self.kernel.is_closed() && log.failure().is_none() {
            let flush_overdue = log.durable() < flush_wanted.min(log.last_writable());
            let interval_over = log.flush_by().is_some_and(|by| by <= Instant::now() + TICK);
            if flush_overdue || interval_over || log.tasks_wait() || log.is_disk_full() {
                log.drive();
            } else if log.written() < appended.min(log.last_writable())
                || log.tasks_wait_for_write()
            {
                let _ = log.write_appended();
            }
            self.kernel.end_long_queue();
            (flush_wanted, appended) = (log.flush_wanted(), log.appended());
            let busy =
                log.durable() < flush_wanted || log.written() < appended || log.is_disk_full();
            let has_news = std::mem::replace(&mut appended_at_tick, appended) != appended;
            let rested = if busy || has_news {
                self.worker.rest(Rest::For(TICK))
            } else {
                self.sleep(appended)
            };
            if rested == Rested::Ends {
                break;
            }
        }
        self.kernel.tell_of_failure();
    }

    /// Sleeps until something is appended behind `appended`, a task waits, or a flush is due.
    fn sleep(&self, appended: u64) -> Rested {
        let (log, signals) = (self.kernel.log(), self.kernel.signals());
        let _ = log.mark_idle();
        signals.committer_falls_asleep();
        if log.appended() != appended || self.kernel.is_closed() {
            signals.committer_is_awake();
            return Rested::Called;
        }
        let rested = match log.flush_by() {
            // A flush that is due later is work.
            Some(by) => {
                let left = by.saturating_duration_since(Instant::now() + TICK);
                self.worker.rest(Rest::For(left))
            }
            None => self.worker.rest(Rest::IdleOnly),
        };
        if rested != Rested::Ends {
            signals.committer_is_awake();
        }
        rested
    }
}
