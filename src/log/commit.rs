//! How a group gets into the file and becomes durable.
//!
//! A full disk ends an attempt and nothing else: what was not written stays first in line, what was
//! not flushed is written again before the next flush, and the next attempt goes on from there. Any
//! other failure poisons the log, under the lock of the writer or of the flusher, so that no one
//! writes behind a gap or takes a later flush for a good one.

use super::Log;
use super::appender::Chunk;
use super::frame;
use super::unsettled::Unsettled;
use crate::error::{Error, Result, is_disk_full};
use crate::fault::DeliberateFault;
use crate::sync::atomic::Ordering;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// For how many groups the log expects more callers who ask only for a write after one did. When
/// they are over, a lone caller that waits for the disk pays for one durable write again, and not
/// for a write and a flush.
const RELAXED_GROUPS: u32 = 32;

impl Log {
    /// Commits one group: writes everything appended so far to the file and flushes it. Calls
    /// `covers` with the last LSN of the group, and returns the LSN reached. On a full disk that is
    /// the one reached before, after a pause; callers that have waited long enough are told.
    pub(super) fn commit(&self, covers: &dyn Fn(u64)) -> io::Result<u64> {
        match self.commit_group(covers) {
            Err(error) if self.failure().is_none() && is_disk_full(&error) => {
                self.disk_full.pause();
                if let Some(error) = self.disk_full.out_of_patience() {
                    self.group.give_up(self.last_writable(), error);
                }
                Ok(self.durable())
            }
            Err(error) => Err(error),
            Ok(reached) => {
                self.disk_full.over();
                Ok(reached)
            }
        }
    }

    fn commit_group(&self, covers: &dyn Fn(u64)) -> io::Result<u64> {
        let (started, durable) = (Instant::now(), self.durable());
        let mut writer = self.writer.lock();
        let unflushed = self.written() > self.durable();
        self.appender.lock().flush_begins();
        let reached =
            if unflushed || self.has_relaxed_callers() || DeliberateFault::SkipFlush.is_on() {
                let outcome = self.write_chunks(&mut writer, covers, false);
                let reached = self.written();
                drop(writer);
                self.group.others.wake_all();
                outcome?;
                if reached > self.durable() {
                    self.flush()?;
                    self.writer.lock().settled(reached);
                }
                reached
            } else {
                // Nothing else is unflushed, so a write that makes only its own bytes durable is
                // enough.
                let outcome = self.write_chunks(&mut writer, covers, true);
                drop(writer);
                self.group.others.wake_all();
                outcome?;
                self.written()
            };
        self.counters.flushed(reached.saturating_sub(durable), reached, started.elapsed());
        Ok(reached)
    }

    /// Takes note of a caller that asks only for a write.
    pub(super) fn relaxed_caller(&self) {
        self.relaxed_groups.store(RELAXED_GROUPS, Ordering::Relaxed);
    }

    /// Whether one called lately. Each group asks once.
    fn has_relaxed_callers(&self) -> bool {
        let left = self.relaxed_groups.load(Ordering::Relaxed);
        if left > 0 {
            // A caller at the same moment is seen by the group after the next one.
            self.relaxed_groups.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    /// Writes the frames up to `lsn`, without a flush. `None` when the disk is full, so that the
    /// answer is that of the next flush.
    pub(super) fn write_up_to(&self, lsn: u64) -> Option<Result<()>> {
        if self.written() >= lsn {
            return Some(Ok(()));
        }
        if let Some(failure) = self.failure() {
            return Some(Err(Error::unknown_outcome(Arc::clone(failure))));
        }
        let mut writer = self.writer.lock();
        if self.written() >= lsn {
            return Some(Ok(()));
        }
        let outcome = self.write_chunks(&mut writer, |_| (), false);
        drop(writer);
        self.group.others.wake_all();
        match outcome {
            Ok(()) => Some(Ok(())),
            Err(error) if self.failure().is_none() && is_disk_full(&error) => None,
            Err(error) => {
                let source = self.failure().map_or_else(|| Arc::new(error), Arc::clone);
                Some(Err(Error::unknown_outcome(source)))
            }
        }
    }

    /// Stamps what was appended and writes it, oldest first, durably if that is asked for. The
    /// caller holds `writer`.
    fn write_chunks(
        &self,
        writer: &mut Unsettled,
        covers: impl Fn(u64),
        durably: bool,
    ) -> io::Result<()> {
        let _ = self.check_name();
        self.check_failure()?;
        {
            let mut appender = self.appender.lock();
            // Called under the appender's lock: no caller can append a later frame, and wait for
            // it, before the group has its end.
            covers(appender.last_writable());
            let taken = appender.take_unwritten();
            if writer.unwritten.is_empty() {
                writer.unwritten = taken;
            } else {
                writer.unwritten.extend(taken);
            }
        }
        self.write_again(writer)?;
        while let Some(mut chunk) = writer.unwritten.pop_front() {
            if let Err(error) = self.write_chunk(writer, &mut chunk, durably) {
                writer.unwritten.push_front(chunk);
                return Err(error);
            }
            self.appender.lock().recycle(chunk.bytes);
        }
        Ok(())
    }

    fn write_chunk(
        &self,
        writer: &mut Unsettled,
        chunk: &mut Chunk,
        durably: bool,
    ) -> io::Result<()> {
        if self.written() > self.durable() && chunk.starts_segment() {
            // The first frame of a segment must not be in the file before the last frame of the
            // other segment is durable.
            self.flush()?;
            self.group.publish(self.written());
            writer.settled(self.written());
        }
        if !chunk.stamped {
            frame::stamp(&mut chunk.bytes, self.durable());
            chunk.stamped = true;
        }
        let offset = self.layout.segment_offset(chunk.segment) + chunk.offset;
        if durably {
            self.storage
                .write_at_durable(offset, &chunk.bytes)
                .map_err(|error| self.refused(error))?;
            self.group.publish(chunk.last_lsn);
        } else {
            self.storage.write_at(offset, &chunk.bytes).map_err(|error| self.refused(error))?;
            writer.keep(chunk);
        }
        self.counters.wrote(chunk.bytes.len() as u64);
        self.written.store(chunk.last_lsn, Ordering::Release);
        Ok(())
    }

    /// Flushes everything that was written, unless a flush failed before: after a failed flush it
    /// is unknown what another one covers.
    pub(super) fn flush(&self) -> io::Result<()> {
        let _flusher = self.flusher.lock();
        self.check_failure()?;
        if self.must_write_again.load(Ordering::Acquire) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if DeliberateFault::SkipFlush.is_on() {
            return Ok(());
        }
        self.storage.sync_data().map_err(|error| {
            if is_disk_full(&error) {
                self.must_write_again.store(true, Ordering::Release);
            }
            self.refused(error)
        })
    }

    /// After a flush that found the disk full, writes what it covered once more: the system may
    /// take it for flushed, or may have dropped it. The caller holds `writer`.
    fn write_again(&self, writer: &Unsettled) -> io::Result<()> {
        if !self.must_write_again.load(Ordering::Acquire) {
            return Ok(());
        }
        // No flush begins or ends meanwhile.
        let _flusher = self.flusher.lock();
        let unflushed = writer.unflushed();
        if !unflushed.bytes.is_empty() {
            let offset = self.layout.segment_offset(unflushed.segment) + unflushed.offset;
            self.storage.write_at(offset, unflushed.bytes).map_err(|error| self.refused(error))?;
            self.counters.wrote(unflushed.bytes.len() as u64);
        }
        self.must_write_again.store(false, Ordering::Release);
        Ok(())
    }

    /// Takes note of a full disk, and poisons the log for any other error. Returns the failure that
    /// poisoned it first.
    fn refused(&self, error: io::Error) -> io::Error {
        if is_disk_full(&error) {
            self.disk_full.met(&error);
            return error;
        }
        self.group.fail(error);
        self.check_failure().err().unwrap_or_else(|| io::Error::other("poisoned"))
    }

    /// The failure that poisoned the log, if one did.
    fn check_failure(&self) -> io::Result<()> {
        match self.failure() {
            Some(failure) => Err(io::Error::new(failure.kind(), Arc::clone(failure))),
            None => Ok(()),
        }
    }

    /// If the log is idle, writes a mark into the block of the mark of the active segment, without
    /// a flush. A mark is a frame without operations that carries the durable LSN, so that recovery
    /// can tell damage to the last acknowledged group from a torn tail.
    ///
    /// A failure, as of a full disk, poisons nothing, because no frame depends on a mark. The next
    /// call tries again.
    pub(crate) fn mark_idle(&self) -> io::Result<()> {
        let _writer = self.writer.lock();
        let durable = self.durable();
        let nothing_new = self.marked.load(Ordering::Relaxed) >= durable;
        if self.failure().is_some() || nothing_new || self.appended() != durable {
            return Ok(());
        }
        let Some(mut mark) = self.appender.lock().mark(durable) else { return Ok(()) };
        frame::stamp(&mut mark.bytes, durable);
        let offset = self.layout.segment_offset(mark.segment) + mark.offset;
        // No flush follows that would notice: in a file that was cut short it would add zeros.
        self.storage.check_length()?;
        self.storage.write_at(offset, &mark.bytes)?;
        self.counters.wrote(mark.bytes.len() as u64);
        self.marked.store(durable, Ordering::Relaxed);
        Ok(())
    }
}
