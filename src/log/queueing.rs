//! How frames are queued, and waited for until they may be written. See [`queue`](super::queue).

use super::Log;
use super::appender::{Appender, QueueShare};
use super::queue::{GivenUpQueue, NONE, SegmentCall};
use super::task_waits::WaitTicket;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

impl Log {
    /// Sets who frees segments, before the first frame.
    pub(crate) fn set_segment_call(&self, call: Box<dyn SegmentCall>) {
        let _ = self.queue.call.set(call);
    }

    /// From now on frames are queued for the next use of the segment that is not active and not
    /// free: up to `limit` bytes of callers with what is queued already, or one frame.
    pub(crate) fn begin_queue(&self, limit: u64, now_ms: u64) {
        let mut appender = self.appender.lock();
        appender.begin_queue(limit, now_ms);
        self.queue_changed(&appender);
    }

    /// The segment whose header [`renew_segment`](Self::renew_segment) has written is free, and
    /// what was queued for it may be written. The caller calls [`wake_queued`](Self::wake_queued)
    /// when it holds no lock.
    pub(crate) fn segment_freed(&self, generation: u64) {
        let mut appender = self.appender.lock();
        appender.segment_freed(generation);
        *self.queue.given_up.lock() = None;
        *self.queue.since.lock() = None;
        self.queue_changed(&appender);
    }

    fn queue_changed(&self, appender: &Appender) {
        let first = appender.first_queued();
        if first.is_some() {
            self.queue.since.lock().get_or_insert_with(Instant::now);
        }
        self.queue.from.store(first.unwrap_or(NONE), Ordering::Release);
    }

    /// Wakes the tasks that waited for a segment.
    pub(crate) fn wake_queued(&self) {
        self.group.others.wake_all();
    }

    /// Whether frames are queued, or will be before the next one is written.
    pub(crate) fn is_queueing(&self) -> bool {
        self.queue.from.load(Ordering::Acquire) != NONE
    }

    /// How many bytes of frames are queued of this share.
    pub(crate) fn queued_bytes(&self, share: QueueShare) -> u64 {
        if !self.is_queueing() {
            return 0;
        }
        self.appender.lock().queued_bytes(share)
    }

    /// Whether a frame of so many bytes of payload may be queued.
    pub(crate) fn may_queue(&self, payload_len: usize, share: QueueShare) -> bool {
        self.appender.lock().may_queue(payload_len, share)
    }

    /// Whether the frame at `lsn` is queued.
    pub(crate) fn is_queued(&self, lsn: u64) -> bool {
        lsn >= self.queue.from.load(Ordering::Acquire)
    }

    /// The LSN of the last frame that may be written now.
    pub(crate) fn last_writable(&self) -> u64 {
        self.appended().min(self.queue.from.load(Ordering::Acquire) - 1)
    }

    /// For how long frames are queued and no segment was freed.
    pub(crate) fn queued_for(&self) -> Option<Duration> {
        if !self.is_queueing() {
            return None;
        }
        self.queue.since.lock().map(|since| since.elapsed())
    }

    /// Answers every task that waits for a queued frame with this error. The frames stay queued.
    pub(crate) fn give_up_queued(&self, error: Error) {
        *self.queue.given_up.lock() = Some(GivenUpQueue { up_to: self.appended(), error });
        self.wake_queued();
    }

    /// Why the wait for `lsn` was given up, if it is queued still and it was.
    fn given_up_queued(&self, lsn: u64) -> Option<Error> {
        let given_up = self.queue.given_up.lock();
        let error = given_up.as_ref().filter(|given_up| lsn <= given_up.up_to)?.error.clone();
        self.is_queued(lsn).then_some(error)
    }

    /// How the wait for the queued frame at `lsn` has ended, unless it may be written now.
    pub(super) fn end_of_queued(&self, lsn: u64) -> Option<Error> {
        if !self.is_queued(lsn) {
            return None;
        }
        match self.failure() {
            Some(failure) => Some(Error::unknown_outcome(Arc::clone(failure))),
            None => self.given_up_queued(lsn),
        }
    }

    /// Blocks while the frame at `lsn` is queued.
    pub(super) fn wait_until_writable(&self, lsn: u64) -> Result<()> {
        if !self.is_queued(lsn) {
            return Ok(());
        }
        let waited = self.queue.call.get().map_or(Err(Error::Closed), |call| call.wait(lsn));
        if !self.is_queued(lsn) {
            return Ok(());
        }
        match self.failure() {
            Some(failure) => Err(Error::unknown_outcome(Arc::clone(failure))),
            None => waited.and(Err(Error::Closed)),
        }
    }

    /// Registers a task that waits while the frame at `lsn` is queued; `false` when that is over.
    pub(super) fn poll_queued(
        &self,
        lsn: u64,
        ticket: &mut Option<WaitTicket>,
        waker: &Waker,
    ) -> bool {
        let is_over = || !self.is_queued(lsn) || self.end_of_queued(lsn).is_some();
        let is_first = ticket.is_none();
        if !self.register_other(is_over, ticket, waker) {
            return false;
        }
        if is_first && let Some(call) = self.queue.call.get() {
            call.ask();
        }
        !is_over()
    }
}
