//! What was asked of checkpoints and how they ended, for those who run them and those who wait.

use crate::error::Error;
use crate::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What was asked of checkpoints, and what the last one said.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) state: Mutex<CheckpointState>,
    /// Told to writers that wait when an attempt has ended.
    pub(super) ended: Condvar,
    /// One change of the B-tree at a time.
    running: Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct CheckpointState {
    pub(super) requested: bool,
    /// Attempts that ended, well or badly.
    pub(super) attempts: u64,
    pub(super) last_failure: Option<Error>,
}

/// What the thread that runs checkpoints has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum NextCheckpoint {
    /// One was asked for.
    Now,
    /// The last one failed, and is to be tried again after this long.
    After(Duration),
    /// Nothing.
    None,
}

impl Checkpoints {
    /// Keeps checkpoints from running.
    pub(super) fn lock_running(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }

    /// Waits for the end of an attempt, or until `deadline`; forever without one. Whether the
    /// deadline has passed.
    pub(super) fn wait_until(
        &self,
        state: &mut MutexGuard<'_, CheckpointState>,
        deadline: Option<Instant>,
    ) -> bool {
        match deadline {
            Some(deadline) => self.ended.wait_until(state, deadline).timed_out(),
            None => {
                self.ended.wait(state);
                false
            }
        }
    }

    /// Has writers that wait look again, because the kernel closes.
    pub(super) fn wake_stalled(&self) {
        drop(self.state.lock());
        self.ended.notify_all();
    }

    pub(super) fn attempt_ended(&self, failure: Option<&Error>) {
        let mut state = self.state.lock();
        state.attempts += 1;
        state.last_failure = failure.cloned();
        drop(state);
        self.ended.notify_all();
    }
}
