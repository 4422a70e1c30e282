//! The append-only log: two preallocated segments used alternately, frames appended to a buffer,
//! and one write and one flush for all waiting callers.
//!
//! # Guarantees
//! 1. A frame is in the file before any later frame is, and a segment gets its first frame only
//!    when every frame of the other segment is durable. So a crash leaves a prefix.
//! 2. [`Log::wait`] returns `Ok` only when the frame is durable (or written, if the caller asked
//!    for no more).
//! 3. After a failed write or flush nothing is written or flushed any more: the log is poisoned.
//! 4. A segment is reused only after its header, with a new generation, is durable. From then on
//!    the frames of its earlier use are invalid.

mod appender;
pub(crate) mod batch;
mod commit_delay;
mod counters;
pub(crate) mod frame;
mod group_commit;
mod leader_call;
pub(crate) mod plan;
pub(crate) mod scan;
pub(crate) mod segment;
mod wait_slot;

#[cfg(test)]
mod protocol_tests;

pub(crate) use counters::{LogCounters, LogStats};
pub(crate) use segment::SEGMENTS;

use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::storage::{Storage, Superblock};
use appender::{Appender, Chunk};
use group_commit::{GroupCommit, GroupPoll};
use leader_call::LeaderCall;
use parking_lot::Mutex;
use plan::RecoveryPlan;
use segment::{FRAMES_START, SegmentHeader};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

/// Where the log is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLayout {
    pub(crate) file_id: [u8; 16],
    /// The offset of the first segment in the file.
    pub(crate) offset: u64,
    /// The size of one segment in bytes, header slots included.
    pub(crate) segment_size: u64,
}

impl LogLayout {
    /// The layout that a superblock records.
    pub(crate) fn of(superblock: &Superblock) -> Self {
        let Superblock { file_id, log_offset, segment_size, .. } = *superblock;
        Self { file_id, offset: log_offset, segment_size }
    }

    /// The offset of segment `index` in the file.
    pub(crate) fn segment_offset(&self, index: usize) -> u64 {
        self.offset + self.segment_size * index as u64
    }

    /// The largest frame, in bytes.
    pub(crate) fn max_frame_len(&self) -> u64 {
        self.segment_size - FRAMES_START
    }
}

/// Why a frame was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The active segment has no space left: call [`Log::rotate`], then append again.
    SegmentFull,
    /// The log failed earlier.
    Poisoned(Arc<io::Error>),
}

/// The log. See the module.
#[derive(Debug)]
pub(crate) struct Log {
    storage: Arc<dyn Storage>,
    layout: LogLayout,
    appender: Mutex<Appender>,
    /// Held while frames are written to the file, so that they are written in order.
    writer: Mutex<()>,
    /// Held during a flush, so that of two concurrent flushes the second knows when the first
    /// failed: the operating system reports the failure to only one of them.
    flusher: Mutex<()>,
    group: GroupCommit,
    appended: AtomicU64,
    written: AtomicU64,
    /// The newest frame with [`Durability::Sync`]. It is flushed even if its caller does not wait.
    flush_wanted: AtomicU64,
    /// Whether any caller asks only for a write and not for a flush. Then a group is written before
    /// it is flushed, in two calls, so that such callers do not wait for the flush of others.
    relaxed_callers: AtomicBool,
    /// The durable LSN when the last mark was written.
    marked: AtomicU64,
    /// Calls the background committer.
    leader_call: LeaderCall,
    counters: LogCounters,
    #[cfg(any(test, feature = "testing"))]
    acknowledge_before_flush: AtomicBool,
}

impl Log {
    /// A log that continues where recovery found its end. Everything recovered is durable.
    pub(crate) fn new(storage: Arc<dyn Storage>, layout: LogLayout, plan: &RecoveryPlan) -> Self {
        let last_lsn = plan.next_lsn - 1;
        Self {
            storage,
            layout,
            appender: Mutex::new(Appender::new(plan, layout.segment_size)),
            writer: Mutex::new(()),
            flusher: Mutex::new(()),
            group: GroupCommit::new(last_lsn),
            appended: AtomicU64::new(last_lsn),
            written: AtomicU64::new(last_lsn),
            flush_wanted: AtomicU64::new(last_lsn),
            relaxed_callers: AtomicBool::new(false),
            marked: AtomicU64::new(last_lsn),
            leader_call: LeaderCall::default(),
            counters: LogCounters::default(),
            #[cfg(any(test, feature = "testing"))]
            acknowledge_before_flush: AtomicBool::new(false),
        }
    }

    /// The largest payload of one frame, in bytes.
    pub(crate) fn max_payload_len(&self) -> usize {
        let max = self.layout.max_frame_len().saturating_sub(frame::FRAME_HEADER_LEN as u64 + 8);
        usize::try_from(max).unwrap_or(usize::MAX)
    }

    /// The size of one segment in bytes.
    pub(crate) fn segment_size(&self) -> u64 {
        self.layout.segment_size
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

    /// The failure that poisoned the log, if there was one.
    pub(crate) fn failure(&self) -> Option<&Arc<io::Error>> {
        self.group.failure()
    }

    /// Both segments as they are in the file now. Blocks writes to the log while it reads.
    pub(crate) fn read_segments(&self) -> io::Result<Vec<Vec<u8>>> {
        let _no_write = self.writer.lock();
        let len = usize::try_from(self.layout.segment_size).map_err(io::Error::other)?;
        let read = |index| {
            let mut bytes = vec![0; len];
            self.storage.read_at(self.layout.segment_offset(index), &mut bytes).map(|()| bytes)
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
    ) -> Result<u64, AppendError> {
        if let Some(failure) = self.failure() {
            return Err(AppendError::Poisoned(Arc::clone(failure)));
        }
        let mut appender = self.appender.lock();
        let lsn = appender.append(payload, durability).ok_or(AppendError::SegmentFull)?;
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

    /// Makes the other segment, which must be free, the active one.
    pub(crate) fn rotate(&self) {
        self.appender.lock().rotate();
    }

    /// The time by which the appended frames must be flushed.
    pub(crate) fn flush_by(&self) -> Option<Instant> {
        self.appender.lock().flush_by()
    }

    /// Gives the segment that is not active a new generation. The caller has made the B-tree
    /// durable up to `btree_lsn`, which covers every frame in that segment. A failure poisons the
    /// log.
    pub(crate) fn recycle_spare(&self, btree_lsn: u64) -> Result<()> {
        let (index, generation) = self.appender.lock().next_use();
        let header = SegmentHeader { generation, index: index as u64, btree_lsn };
        let written = header.write(
            self.storage.as_ref(),
            self.layout.segment_offset(index),
            &self.layout.file_id,
        );
        if let Err(error) = written {
            return Err(self.poison(io::Error::other(error)));
        }
        self.counters.wrote(BLOCK_SIZE as u64);
        self.appender.lock().spare_recycled(generation);
        Ok(())
    }

    /// Blocks until the frame at `lsn` is as durable as asked.
    pub(crate) fn wait(&self, lsn: u64, durability: Durability) -> Result<()> {
        #[cfg(any(test, feature = "testing"))]
        if self.acknowledge_before_flush.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !durability.is_sync() {
            return self.wait_written(lsn);
        }
        self.group
            .wait(lsn, |covers: &dyn Fn(u64)| self.commit(covers), || self.call_leader())
            .map_err(|source| Error::OutcomeUnknown { source })
    }

    /// Returns the result when the frame at `lsn` is as durable as asked. Otherwise registers
    /// `waker` to be called when it may be. `ticket` is the registration of the same wait.
    pub(crate) fn poll(
        &self,
        lsn: u64,
        durability: Durability,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Option<Result<()>> {
        if !durability.is_sync() {
            return Some(self.wait_written(lsn));
        }
        match self.group.poll(lsn, *ticket, waker) {
            GroupPoll::Ready(result) => {
                *ticket = None;
                Some(result.map_err(|source| Error::OutcomeUnknown { source }))
            }
            GroupPoll::Registered { ticket: given, call_leader } => {
                *ticket = Some(given);
                if call_leader {
                    self.call_leader();
                }
                None
            }
        }
    }

    /// Whether [`wait`](Log::wait) would return at once.
    pub(crate) fn reached(&self, lsn: u64, durability: Durability) -> bool {
        let reached = if durability.is_sync() { self.durable() } else { self.written() };
        reached >= lsn || self.failure().is_some()
    }

    /// Removes the registration of a wait that will not be polled again.
    pub(crate) fn forget(&self, ticket: u64) {
        self.group.forget(ticket);
    }

    /// Writes and flushes what was appended, unless another thread is doing so. For the background
    /// committer.
    pub(crate) fn drive(&self) {
        self.group.drive(|covers: &dyn Fn(u64)| self.commit(covers), || self.call_leader());
    }

    /// Writes what was appended, without a flush.
    pub(crate) fn write_appended(&self) -> Result<()> {
        self.wait_written(self.appended())
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

    fn wait_written(&self, lsn: u64) -> Result<()> {
        self.relaxed_callers.store(true, Ordering::Relaxed);
        if self.written() >= lsn {
            return Ok(());
        }
        if let Some(failure) = self.failure() {
            return Err(Error::OutcomeUnknown { source: Arc::clone(failure) });
        }
        let _writer = self.writer.lock();
        if self.written() >= lsn {
            return Ok(());
        }
        self.write_chunks(|_| (), |bytes, offset, _| self.storage.write_at(offset, bytes)).map_err(
            |error| {
                let source = self.failure().map_or_else(|| Arc::new(error), Arc::clone);
                Error::OutcomeUnknown { source }
            },
        )
    }

    /// Commits one group: writes everything appended so far to the file and flushes it. Calls
    /// `covers` with the last LSN of the group, and returns the LSN reached.
    fn commit(&self, covers: &dyn Fn(u64)) -> io::Result<u64> {
        let (started, durable) = (Instant::now(), self.durable());
        let writer = self.writer.lock();
        let unflushed = self.written() > self.durable();
        self.appender.lock().flush_begins();
        let reached = if unflushed || self.relaxed_callers.load(Ordering::Relaxed) {
            self.write_chunks(covers, |bytes, offset, _| self.storage.write_at(offset, bytes))?;
            let reached = self.written();
            drop(writer);
            if reached > self.durable() {
                self.flush()?;
            }
            reached
        } else {
            // Nothing else is unflushed, so a write that makes only its own bytes durable is
            // enough.
            self.write_chunks(covers, |bytes, offset, last_lsn| {
                self.storage.write_at_durable(offset, bytes)?;
                self.group.publish(last_lsn);
                Ok(())
            })?;
            self.written()
        };
        self.counters.flushed(reached.saturating_sub(durable), reached, started.elapsed());
        Ok(reached)
    }

    /// Stamps what was appended and gives it to `write`, oldest first. The caller holds `writer`. A
    /// failure poisons the log before another caller can write after the gap.
    fn write_chunks(
        &self,
        covers: impl Fn(u64),
        write: impl Fn(&[u8], u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        self.check_failure()?;
        let chunks = {
            let mut appender = self.appender.lock();
            // Called under the appender's lock: no caller can append a later frame, and wait for
            // it, before the group has its end.
            covers(self.appended());
            appender.take_unwritten()
        };
        self.write_in_order(chunks, write).map_err(|error| self.failed(error))
    }

    fn write_in_order(
        &self,
        chunks: VecDeque<Chunk>,
        write: impl Fn(&[u8], u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        for mut chunk in chunks {
            if self.written() > self.durable() && chunk.starts_segment() {
                // The first frame of a segment must not be in the file before the last frame of the
                // other segment is durable.
                self.flush()?;
                self.group.publish(self.written());
            }
            frame::stamp(&mut chunk.bytes, self.durable());
            write(
                &chunk.bytes,
                self.layout.segment_offset(chunk.segment) + chunk.offset,
                chunk.last_lsn,
            )?;
            self.counters.wrote(chunk.bytes.len() as u64);
            self.written.store(chunk.last_lsn, Ordering::Release);
            self.appender.lock().recycle(chunk.bytes);
        }
        Ok(())
    }

    /// Flushes everything that was written, unless a flush failed before: after a failed flush it
    /// is unknown what another one covers.
    fn flush(&self) -> io::Result<()> {
        let _flusher = self.flusher.lock();
        self.check_failure()?;
        self.storage.sync_data().map_err(|error| self.failed(error))
    }

    /// The failure that poisoned the log, if one did.
    fn check_failure(&self) -> io::Result<()> {
        match self.failure() {
            Some(failure) => Err(io::Error::new(failure.kind(), Arc::clone(failure))),
            None => Ok(()),
        }
    }

    /// Poisons the log with `error`, and returns the failure that poisoned it first.
    fn failed(&self, error: io::Error) -> io::Error {
        self.group.fail(error);
        self.check_failure().err().unwrap_or_else(|| io::Error::other("poisoned"))
    }

    /// If the log is idle, writes a mark after the last frame, without a flush. A mark is a frame
    /// without operations that carries the durable LSN, so that recovery can tell damage to the
    /// last acknowledged group from a torn tail. The next group overwrites the mark and uses its
    /// LSN.
    pub(crate) fn mark_idle(&self) -> Result<()> {
        // A frame that is appended from now on is written after the mark, over it.
        let _writer = self.writer.lock();
        let durable = self.durable();
        let nothing_new = self.marked.load(Ordering::Relaxed) >= durable;
        if self.failure().is_some() || nothing_new || self.appended() != durable {
            return Ok(());
        }
        let Some(mut mark) = self.appender.lock().mark(durable) else { return Ok(()) };
        frame::stamp(&mut mark.bytes, durable);
        let offset = self.layout.segment_offset(mark.segment) + mark.offset;
        self.storage.write_at(offset, &mark.bytes).map_err(|error| self.poison(error))?;
        self.counters.wrote(mark.bytes.len() as u64);
        self.marked.store(durable, Ordering::Relaxed);
        Ok(())
    }

    /// Poisons the log after a failed write or flush, its own or the B-tree's, and returns
    /// [`Error::Poisoned`].
    pub(crate) fn poison(&self, error: io::Error) -> Error {
        self.group.fail(error);
        let source =
            self.failure().map_or_else(|| Arc::new(io::Error::other("poisoned")), Arc::clone);
        Error::Poisoned { source }
    }

    /// Makes every wait succeed at once, before anything is flushed: a deliberate fault that the
    /// crash simulation must detect.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn acknowledge_before_flush(&self) {
        self.acknowledge_before_flush.store(true, Ordering::Relaxed);
    }
}
