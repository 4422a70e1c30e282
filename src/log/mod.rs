//! The append-only log: two preallocated segments used alternately, frames appended to a buffer,
//! and one write and one flush for all waiting callers.
//!
//! # Guarantees
//! 1. A frame is in the file before any later frame is, and a segment gets its first frame only
//!    when every frame of the other segment is durable. So a crash leaves a prefix.
//! 2. [`Log::wait`] returns `Ok` only when the frame is durable (or written, if the caller asked
//!    for no more).
//! 3. After a failed write or flush nothing is written or flushed any more: the log is poisoned. A
//!    full disk is no failure: the same bytes are written and flushed again ([`disk_full`]).
//! 4. A segment is reused only after its header, with a new generation, is durable. From then on
//!    the frames of its earlier use are invalid. Until then its frames are [queued](queue).

mod appender;
pub(crate) mod batch;
mod commit;
mod commit_delay;
mod counters;
mod disk_full;
pub(crate) mod frame;
mod group_commit;
pub(crate) mod growth;
mod layout;
mod leader_call;
mod name_check;
pub(crate) mod plan;
mod queue;
mod queueing;
pub(crate) mod scan;
pub(crate) mod segment;
mod space;
mod task_waits;
mod unsettled;
mod wait_slot;
mod waiting;

#[cfg(test)]
mod protocol_tests;

pub(crate) use appender::QueueShare;
pub(crate) use counters::{LogCounters, LogStats};
pub(crate) use layout::LogLayout;
pub(crate) use queue::SegmentCall;
pub(crate) use segment::SEGMENTS;
pub(crate) use task_waits::WaitTicket;

use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::process::HomeProcess;
use crate::storage::Storage;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use appender::Appender;
use disk_full::DiskFullState;
use group_commit::GroupCommit;
use leader_call::LeaderCall;
use name_check::NameCheck;
use plan::RecoveryPlan;
use queue::SegmentQueue;
use segment::SegmentHeader;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use unsettled::Unsettled;

/// Why a frame was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The active segment has no space left: call [`Log::rotate`] or [`Log::begin_queue`], then
    /// append again.
    SegmentFull,
    /// The log failed earlier.
    Poisoned(Arc<io::Error>),
    /// The disk is full, and what was appended before is not written yet.
    DiskFull(Arc<io::Error>),
}

/// The log. See the module.
#[derive(Debug)]
pub(crate) struct Log {
    storage: Arc<dyn Storage>,
    layout: LogLayout,
    appender: Mutex<Appender>,
    /// Held while frames are written to the file, so that they are written in order.
    writer: Mutex<Unsettled>,
    /// Held during a flush, so that of two concurrent flushes the second knows when the first
    /// failed: the operating system reports the failure to only one of them.
    flusher: Mutex<()>,
    /// Whether a flush found the disk full, so that what it covered must be written again before
    /// the next one.
    must_write_again: AtomicBool,
    disk_full: DiskFullState,
    group: GroupCommit,
    appended: AtomicU64,
    written: AtomicU64,
    queue: SegmentQueue,
    /// The newest frame with [`Durability::Sync`]. It is flushed even if its caller does not wait.
    flush_wanted: AtomicU64,
    /// How many of the next groups are written before they are flushed, in two calls, so that
    /// callers who ask only for a write do not wait for the flush of others.
    relaxed_groups: AtomicU32,
    /// The durable LSN that the last mark carries.
    marked: AtomicU64,
    /// Calls the background committer.
    leader_call: LeaderCall,
    counters: LogCounters,
    name_check: NameCheck,
    /// The process that opened it. A fork of it neither waits nor takes a lock.
    home: HomeProcess,
    #[cfg(any(test, feature = "testing"))]
    acknowledge_before_flush: AtomicBool,
}

impl Log {
    /// A log that continues where recovery found its end. Everything recovered is durable.
    pub(crate) fn new(storage: Arc<dyn Storage>, layout: LogLayout, plan: &RecoveryPlan) -> Self {
        let last_lsn = plan.next_lsn - 1;
        // What the B-tree has needs no mark.
        let marked = if plan.replay.is_empty() { last_lsn } else { plan.marked };
        Self {
            storage,
            layout,
            appender: Mutex::new(Appender::new(plan, layout.segment_size)),
            writer: Mutex::default(),
            flusher: Mutex::new(()),
            must_write_again: AtomicBool::new(false),
            disk_full: DiskFullState::default(),
            group: GroupCommit::new(last_lsn),
            appended: AtomicU64::new(last_lsn),
            written: AtomicU64::new(last_lsn),
            queue: SegmentQueue::default(),
            flush_wanted: AtomicU64::new(last_lsn),
            relaxed_groups: AtomicU32::new(0),
            marked: AtomicU64::new(marked),
            leader_call: LeaderCall::default(),
            counters: LogCounters::default(),
            name_check: NameCheck::default(),
            home: HomeProcess::current(),
            #[cfg(any(test, feature = "testing"))]
            acknowledge_before_flush: AtomicBool::new(false),
        }
    }

    /// The largest payload of one frame, in bytes.
    pub(crate) fn max_payload_len(&self) -> usize {
        let max = self.layout.max_frame_len().saturating_sub(frame::FRAME_HEADER_LEN as u64 + 8);
        usize::try_from(max).unwrap_or(usize::MAX)
    }

    /// How many bytes of the segment that is appended to frames may take.
    pub(crate) fn active_space(&self) -> u64 {
        self.appender.lock().active_space()
    }

    /// The LSN of the newest frame that was appended.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// The LSN of the newest frame known to be durable.
    pub(crate) fn durable(&self) -> u64 {
        self.group.durable()
    }

    /// The LSN of the newest frame with [`Durability::Sync`]. It is flushed even if its caller does
    /// not wait.
    pub(crate) fn flush_wanted(&self) -> u64 {
        self.flush_wanted.load(Ordering::Acquire)
    }

    /// The LSN of the newest frame that is in the file, durable or not.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Whether this is a fork of the process that opened it.
    pub(crate) fn has_forked(&self) -> bool {
        self.home.has_forked()
    }

    /// The failure that poisoned the log, if there was one.
    pub(crate) fn failure(&self) -> Option<&Arc<io::Error>> {
        self.group.failure()
    }

    /// Looks at the name of the file, if that is due.
    ///
    /// # Errors
    /// [`Error::Unlinked`] when it was lost, now or before.
    pub(crate) fn check_name(&self) -> Result<()> {
        self.name_check.look_if_due(self.storage.as_ref(), &self.group);
        self.check_unlinked()
    }

    /// The same, now.
    pub(crate) fn check_name_now(&self) -> Result<()> {
        name_check::look(self.storage.as_ref(), &self.group);
        self.check_unlinked()
    }

    /// Whether it is known that the file has lost its name.
    fn check_unlinked(&self) -> Result<()> {
        self.failure().and_then(|failure| Error::unlinked(failure)).map_or(Ok(()), Err)
    }

    /// Whether it is known that the file has lost its name or its end, for a reader.
    pub(crate) fn check_lost(&self) -> Result<()> {
        self.failure().and_then(|failure| Error::lost(failure)).map_or(Ok(()), Err)
    }

    /// Has the next caller look at the name of the file.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn look_at_name_next(&self) {
        self.name_check.look_next();
    }

    /// Both segments as they are in the file now. Blocks writes to the log while it reads.
    pub(crate) fn read_segments(&self) -> io::Result<Vec<Vec<u8>>> {
        let _no_write = self.writer.lock();
        let len = usize::try_from(self.layout.segment_size).map_err(io::Error::other)?;
        let read = |index| {
            let mut bytes = vec![0; len];
            let offset = self.layout.segment_offset(index);
            // What an earlier use has left behind the space of this one says nothing.
            let space = usize::try_from(self.space_of(index)).unwrap_or(len);
            let used = bytes.get_mut(..space).unwrap_or_default();
            self.storage.read_at(offset, used).map(|()| bytes)
        };
        (0..SEGMENTS).map(read).collect()
    }

    /// Where the log is in the file.
    pub(crate) fn layout(&self) -> LogLayout {
        self.layout
    }

    /// The counters at this moment.
    pub(crate) fn stats(&self) -> LogStats {
        self.counters.snapshot()
    }

    /// Appends a frame to the buffer and returns its LSN. The caller holds the engine's serial
    /// lock, so that the order of frames is the order of decisions.
    pub(crate) fn append(
        &self,
        payload: &[u8],
        durability: Durability,
        share: QueueShare,
    ) -> Result<u64, AppendError> {
        if let Some(failure) = self.failure() {
            return Err(AppendError::Poisoned(Arc::clone(failure)));
        }
        if let Some(error) = self.disk_full.error() {
            return Err(AppendError::DiskFull(error));
        }
        let mut appender = self.appender.lock();
        let lsn = appender.append(payload, durability, share).ok_or(AppendError::SegmentFull)?;
        // Stored under the same lock, so that these never decrease.
        self.appended.store(lsn, Ordering::Release);
        if durability.is_sync() {
            self.flush_wanted.store(lsn, Ordering::Release);
        }
        Ok(lsn)
    }

    /// Whether the other segment is free.
    pub(crate) fn spare_is_free(&self) -> bool {
        self.appender.lock().spare_is_free()
    }

    /// Whether the active segment has no frame yet.
    pub(crate) fn active_is_empty(&self) -> bool {
        self.appender.lock().active_is_empty()
    }

    /// Makes the other segment, which must be free, the active one. It is `now_ms` of the elapsed
    /// time.
    pub(crate) fn rotate(&self, now_ms: u64) {
        self.appender.lock().rotate(now_ms);
    }

    /// The time by which the appended frames must be flushed.
    pub(crate) fn flush_by(&self) -> Option<Instant> {
        self.appender.lock().flush_by()
    }

    /// Gives the segment that is freed next a new generation, and answers it. The caller has made
    /// the B-tree, which has `btree_len` bytes, durable up to `btree_lsn`, which covers every frame
    /// in that segment, and calls [`segment_freed`](Self::segment_freed). A full disk leaves the
    /// segment as it is, and any other failure poisons the log.
    ///
    /// The segment gets the [space](growth) that the load asks for.
    pub(crate) fn renew_segment(&self, btree_lsn: u64, btree_len: u64) -> Result<u64> {
        let (index, generation) = self.appender.lock().next_use();
        self.give_space(btree_len)?;
        let header = SegmentHeader { generation, index: index as u64, btree_lsn };
        let written = header.write(
            self.storage.as_ref(),
            self.layout.segment_offset(index),
            &self.layout.file_id,
        );
        match written {
            Ok(()) => {}
            // Whichever header the disk has, the B-tree covers the frames under it.
            Err(error @ Error::DiskFull { .. }) => return Err(error),
            Err(error) => return Err(self.poison(error.into_cause())),
        }
        self.counters.wrote(BLOCK_SIZE as u64);
        Ok(generation)
    }

    /// Both steps at once.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn recycle_spare(&self, btree_lsn: u64) -> Result<()> {
        let generation = self.renew_segment(btree_lsn, 0)?;
        self.segment_freed(generation);
        Ok(())
    }

    /// Writes and flushes what was appended, unless another thread is doing so. For the background
    /// committer.
    pub(crate) fn drive(&self) {
        self.group.drive(|covers: &dyn Fn(u64)| self.commit(covers), || self.call_leader());
    }

    /// Whether the disk is too full for what was appended.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.disk_full.is_on()
    }

    /// How often it was.
    pub(crate) fn disk_full_stalls(&self) -> u64 {
        self.disk_full.stalls()
    }

    /// The error of a call that depends on `lsn`, when the wait for it was given up because the
    /// disk is full.
    pub(crate) fn given_up(&self, lsn: u64) -> Option<Error> {
        self.group.given_up(lsn).map(|source| no_space(&source))
    }

    /// Has it looked again whether there is space for what was appended, and answers whether that
    /// is durable now. Where there is no background thread, this one looks.
    pub(crate) fn try_again(&self) -> bool {
        if !self.leader_call.call() {
            self.drive();
        }
        !self.disk_full.is_on()
    }

    /// Has callers wait for a full disk no longer than closing does.
    pub(crate) fn closing(&self) {
        self.disk_full.closing();
    }

    /// Ends a log whose last frames could not be written: nothing is written from now on, because
    /// the file is given up.
    pub(crate) fn end_unwritten(&self) {
        let _no_write = self.writer.lock();
        if self.failure().is_none() {
            self.group.fail(io::Error::new(
                io::ErrorKind::StorageFull,
                "the room was closed before there was space for what was written",
            ));
        }
    }

    /// Says how long callers wait for a full disk.
    pub(crate) fn set_disk_full_patience(&self, patience: Duration) {
        self.disk_full.set_patience(patience);
    }

    /// Sets what is called when only tasks wait. It answers whether a background thread will lead.
    pub(crate) fn set_leader_call(&self, call: Box<dyn Fn() -> bool + Send + Sync>) {
        self.leader_call.set(call);
    }

    /// Whether tasks wait and no thread leads a commit for them.
    pub(crate) fn tasks_wait(&self) -> bool {
        self.group.needs_leader()
    }

    fn call_leader(&self) {
        if !self.leader_call.call() {
            // Without a background thread the caller leads.
            self.drive();
        }
    }

    /// Poisons the log after a failed write or flush, its own or the B-tree's, and returns
    /// [`Error::Poisoned`].
    pub(crate) fn poison(&self, error: io::Error) -> Error {
        self.group.fail(error);
        let source =
            self.failure().map_or_else(|| Arc::new(io::Error::other("poisoned")), Arc::clone);
        Error::poisoned(source)
    }

    /// Makes every wait succeed at once, before anything is flushed: a deliberate fault that the
    /// crash simulation must detect.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn acknowledge_before_flush(&self) {
        self.acknowledge_before_flush.store(true, Ordering::Relaxed);
    }
}

/// The error of a call whose work is not in the log because the disk is full.
pub(crate) fn no_space(source: &io::Error) -> Error {
    Error::DiskFull { context: format!("writing the log: {source}") }
}

#[cfg(test)]
mod tests;
