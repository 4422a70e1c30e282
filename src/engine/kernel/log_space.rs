//! What writers do when both segments of the log are full. No call waits for a checkpoint:
//!
//! 1. The change is queued: it has its LSN and is visible, its rows are in a table of their own,
//!    and its frame is written when a checkpoint has freed a segment. Its answer waits for that, at
//!    most as long as the room's builder says.
//! 2. When the queue is full, or the last checkpoint failed, the call is refused, and says when to
//!    try again.
//!
//! Where no thread runs checkpoints, the writer that needs one runs it.

use super::checkpoint::RETRY_AFTER;
use super::checkpoints::CheckpointState;
use super::core::Kernel;
use super::view::View;
use crate::error::{Error, Result};
use crate::limits::{DEFAULT_LOG_STALL, MAX_QUEUED_LOG_BYTES};
use crate::log::{QueueShare, SegmentCall};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The shortest time after which a refused writer is told to try again.
const SHORTEST_RETRY: Duration = Duration::from_millis(1);

impl Kernel {
    /// Has the next frame go on in the other segment, and asks for a checkpoint of the full one; or
    /// has it queued when the other one is still being moved into the B-tree. The caller holds the
    /// serial lock, and the frame has a payload of so many bytes.
    pub(super) fn make_room(&self, payload_len: usize, share: QueueShare) -> Result<()> {
        if self.log.spare_is_free() {
            self.rotate();
            self.request_checkpoint();
            return Ok(());
        }
        let failure = {
            let mut state = self.checkpoints.state.lock();
            state.requested = true;
            state.last_failure.clone()
        };
        if !self.signals.call_checkpointer() {
            return self.wait_for_spare();
        }
        if let Some(failure) = failure {
            self.counters.refused();
            return Err(self.full(failure, Instant::now()));
        }
        if self.log_stall.is_zero() || !self.log.may_queue(payload_len, share) {
            return Err(self.log_is_full());
        }
        self.begin_queue();
        Ok(())
    }

    /// Whether a step of a change in many may take so many bytes: while frames are queued, it
    /// leaves half of what can be queued to others.
    pub(in crate::engine) fn has_space_for_step(&self, bytes: u64) -> bool {
        // A fork takes no lock, and is told by the step.
        self.check_process().is_err()
            || !self.log.is_queueing()
            || self.log.queued_bytes(QueueShare::Callers) + bytes <= MAX_QUEUED_LOG_BYTES / 2
    }

    /// The error of a change that is refused while a checkpoint runs.
    pub(in crate::engine) fn log_is_full(&self) -> Error {
        self.counters.refused();
        let cause = "the checkpoint that frees it is running".to_owned();
        self.log_full(Duration::ZERO, cause, false)
    }

    /// The frames that follow are queued, unless a segment was freed meanwhile.
    fn begin_queue(&self) {
        let mut view = self.view.write();
        if self.log.spare_is_free() || self.log.active_is_empty() {
            return;
        }
        self.log.begin_queue(MAX_QUEUED_LOG_BYTES, self.clock().elapsed_ms());
        let mut full = view.full.clone();
        full.push(Arc::clone(&view.active));
        *view = Arc::new(View {
            active: self.memtable_after(&view.active),
            full,
            frozen: view.frozen.clone(),
            btree: Arc::clone(&view.btree),
        });
    }

    /// Waits while the frame at `lsn` is queued.
    fn wait_while_queued(&self, lsn: u64) -> Result<()> {
        let started = Instant::now();
        self.counters.stalled();
        let waited = self.wait_while_queued_since(started, lsn);
        self.counters.stall_ended(started.elapsed());
        waited
    }

    fn wait_while_queued_since(&self, started: Instant, lsn: u64) -> Result<()> {
        let deadline = started.checked_add(self.log_stall);
        loop {
            let seen = {
                let state = self.checkpoints.state.lock();
                if !self.log.is_queued(lsn) {
                    return Ok(());
                }
                self.check_log()?;
                state.attempts
            };
            if !self.signals.call_checkpointer() {
                self.run_checkpoint()
                    .map_err(|error| self.queued_for_long(started, Some(&error)))?;
                continue;
            }
            let mut state = self.checkpoints.state.lock();
            if state.attempts == seen
                && self.log.is_queued(lsn)
                && self.checkpoints.wait_until(&mut state, deadline)
            {
                let failure = state.last_failure.clone();
                drop(state);
                return Err(self.queued_for_long(started, failure.as_ref()));
            }
        }
    }

    /// Answers tasks that have waited long enough for what is queued. For the committer, from time
    /// to time.
    pub(in crate::engine) fn end_long_queue(&self) {
        let Some(waited) = self.log.queued_for().filter(|waited| *waited >= self.log_stall) else {
            return;
        };
        let failure = self.checkpoints.state.lock().last_failure.clone();
        let started = Instant::now().checked_sub(waited).unwrap_or_else(Instant::now);
        self.log.give_up_queued(self.queued_for_long(started, failure.as_ref()));
    }

    /// The error of a wait for a change that is queued still.
    fn queued_for_long(&self, started: Instant, failure: Option<&Error>) -> Error {
        let waited = started.elapsed();
        let cause = failure.map_or_else(not_ended, failed);
        self.log_full(waited, cause, true)
    }

    fn log_full(&self, waited: Duration, cause: String, is_applied: bool) -> Error {
        let retry_after = self.counters.last_checkpoint().clamp(SHORTEST_RETRY, RETRY_AFTER);
        Error::LogFull { waited, retry_after, is_applied, cause }
    }

    /// Has what is queued written, for an engine that is being closed.
    pub(super) fn end_queue(&self) -> Result<()> {
        while self.log.is_queueing() {
            self.run_checkpoint()?;
        }
        Ok(())
    }

    /// Waits until the other segment is free, or until a whole attempt to free it has failed. Only
    /// where no thread runs checkpoints, so that this one runs it.
    fn wait_for_spare(&self) -> Result<()> {
        let started = Instant::now();
        self.counters.stalled();
        let result =
            self.wait_for_checkpoint(started, self.log_stall, |_| self.log.spare_is_free());
        self.counters.stall_ended(started.elapsed());
        result
    }

    /// Waits until maintenance may write without taking the room that callers need, or until a
    /// checkpoint has ended: a writer that waits as well may have taken what it freed. The caller
    /// holds no lock, so it has a patience of its own, however soon callers are refused.
    pub(in crate::engine) fn wait_for_headroom(&self) -> Result<()> {
        let before = self.checkpoints.state.lock().attempts;
        self.wait_for_checkpoint(Instant::now(), DEFAULT_LOG_STALL, |state| {
            let has_ended = state.attempts > before && state.last_failure.is_none();
            has_ended || self.log.spare_is_free()
        })
    }

    /// Waits until a checkpoint has brought about what is wanted, or until a whole attempt has
    /// failed. Where no thread runs checkpoints, this one does.
    fn wait_for_checkpoint(
        &self,
        started: Instant,
        at_most: Duration,
        is_done: impl Fn(&CheckpointState) -> bool,
    ) -> Result<()> {
        // A wait that would end after the end of time ends when it is over.
        let deadline = started.checked_add(at_most);
        let attempts = self.checkpoints.state.lock().attempts;
        loop {
            let seen = {
                let mut state = self.checkpoints.state.lock();
                if is_done(&state) {
                    return Ok(());
                }
                self.check_log()?;
                if self.is_closed() {
                    return Err(Error::Closed);
                }
                if let (true, Some(failure)) = (state.attempts > attempts, &state.last_failure) {
                    return Err(self.full(failure.clone(), started));
                }
                state.requested = true;
                state.attempts
            };
            if !self.signals.call_checkpointer() {
                return self.run_checkpoint().map_err(|error| self.full(error, started));
            }
            let mut state = self.checkpoints.state.lock();
            // An attempt that has ended since then may have done it.
            if state.attempts == seen && self.checkpoints.wait_until(&mut state, deadline) {
                let waited = started.elapsed();
                return Err(self.log_full(waited, not_ended(), false));
            }
        }
    }

    /// What a writer is told when the log is full because the checkpoint fails.
    fn full(&self, failure: Error, started: Instant) -> Error {
        match failure {
            Error::DiskFull { .. }
            | Error::Poisoned { .. }
            | Error::Unlinked { .. }
            | Error::Corrupted { .. } => failure,
            other => {
                let (waited, cause) = (started.elapsed(), failed(&other));
                Error::LogFull { waited, retry_after: RETRY_AFTER, is_applied: false, cause }
            }
        }
    }
}

fn not_ended() -> String {
    "the checkpoint that frees it has not ended".to_owned()
}

fn failed(failure: &Error) -> String {
    format!("the checkpoint that frees it failed ({})", failure.cause())
}

/// Waits for the segments of a kernel on behalf of its log, and does not keep it.
pub(in crate::engine) struct SegmentsOf(pub(in crate::engine) Weak<Kernel>);

impl SegmentCall for SegmentsOf {
    fn wait(&self, lsn: u64) -> Result<()> {
        self.0.upgrade().map_or(Err(Error::Closed), |kernel| kernel.wait_while_queued(lsn))
    }

    fn ask(&self) {
        if let Some(kernel) = self.0.upgrade()
            && !kernel.signals.call_checkpointer()
        {
            // A failure is counted, and those who wait are told.
            let _ = kernel.run_checkpoint();
        }
    }
}
