//! What is left of changes in many steps that found the log full: done one after the other by a
//! thread, which may wait for a checkpoint.

use super::worker::{Rest, Rested, Threads, Worker};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How many changes may be left to the thread. What is left of each is a range of keys.
const MAX_FOLLOW_UPS: usize = 1_024;

/// The rest of one change.
pub(crate) type FollowUp = Box<dyn FnOnce() + Send>;

/// See the module.
pub(super) struct FollowUps {
    worker: Worker,
    state: Mutex<FollowUpState>,
    /// Told when one is done.
    done: Condvar,
}

#[derive(Default)]
struct FollowUpState {
    waiting: VecDeque<FollowUp>,
    /// Those that wait, and the one that runs.
    unfinished: usize,
    running_on: Option<ThreadId>,
}

impl fmt::Debug for FollowUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowUps").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl FollowUps {
    pub(super) fn new(threads: Threads) -> Self {
        let worker = Worker::new("cloakroom-steps", threads);
        Self { worker, state: Mutex::default(), done: Condvar::new() }
    }

    /// Has the thread do `rest`; where there is none, this one does. Gives it back when too many
    /// wait already.
    pub(super) fn add(self: &Arc<Self>, rest: FollowUp) -> Result<(), FollowUp> {
        {
            let mut state = self.state.lock();
            if state.unfinished >= MAX_FOLLOW_UPS {
                return Err(rest);
            }
            state.waiting.push_back(rest);
            state.unfinished += 1;
        }
        let called = self.worker.call(|number| {
            let this = Arc::clone(self);
            move || {
                let _running = this.worker.running(number);
                this.run();
            }
        });
        if !called.unwrap_or(false) {
            while self.do_next() {}
        }
        Ok(())
    }

    fn run(&self) {
        loop {
            while self.do_next() {}
            if self.worker.rest(Rest::IdleOnly) == Rested::Ends {
                return;
            }
        }
    }

    /// Does one. Answers whether there was one.
    fn do_next(&self) -> bool {
        let rest = {
            let mut state = self.state.lock();
            let Some(rest) = state.waiting.pop_front() else { return false };
            state.running_on = Some(thread::current().id());
            rest
        };
        // After a panic its caller is told that there is no answer.
        let _ = catch_unwind(AssertUnwindSafe(rest));
        let mut state = self.state.lock();
        state.unfinished -= 1;
        state.running_on = None;
        drop(state);
        self.done.notify_all();
        true
    }

    /// Waits until all are done, unless this is called by one of them.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock();
        while state.unfinished > 0 && state.running_on != Some(thread::current().id()) {
            self.done.wait(&mut state);
        }
    }

    pub(super) fn stop(&self) {
        self.worker.stop();
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }
}
