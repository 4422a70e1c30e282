//! How a segment gets the [space](super::growth) for its next use, and gives it back.

use super::Log;
use super::appender::PlannedSpace;
use super::segment::SEGMENTS;
use crate::error::{Result, is_disk_full};
use std::io;

/// How much is written before it is flushed, so that the flushes of frames wait for no more.
const RESERVED_AT_ONCE: u64 = 1 << 20;

impl Log {
    /// How many bytes of a segment frames may take.
    pub(super) fn space_of(&self, segment: usize) -> u64 {
        self.appender.lock().space_of(segment)
    }

    /// How many bytes of the file frames may take now.
    pub(crate) fn space(&self) -> u64 {
        let appender = self.appender.lock();
        (0..SEGMENTS).map(|segment| appender.space_of(segment)).sum()
    }

    /// Gives the segment that is freed next the space for its next use. Without space on the disk
    /// it keeps what it has.
    pub(super) fn give_space(&self, btree_len: u64) -> Result<()> {
        let PlannedSpace { segment, had, planned } = self.appender.lock().plan_space(btree_len);
        self.release(segment, planned, had);
        let offset = self.layout.segment_offset(segment);
        let mut has = had;
        while has < planned {
            let step = RESERVED_AT_ONCE.min(planned - has);
            if let Err(error) = self.reserve(offset + has, step) {
                if !is_disk_full(&error) {
                    return Err(self.poison(error));
                }
                let _ = self.storage.release(offset + has, step);
                return Ok(());
            }
            has += step;
            self.appender.lock().add_space(segment, has);
        }
        Ok(())
    }

    /// Has blocks allocated and written, so that a flush of frames changes no more than frames.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = self.storage.fill_holes(offset, len)?;
        if zeros == 0 {
            return Ok(());
        }
        self.counters.wrote(zeros);
        self.flush()
    }

    /// Gives back the space of a segment from `from` to `to`. Where that fails, the file takes more
    /// than it needs.
    fn release(&self, segment: usize, from: u64, to: u64) {
        if from < to {
            let offset = self.layout.segment_offset(segment) + from;
            let _ = self.storage.release(offset, to - from);
        }
    }

    /// Gives back the space that a quiet room does not need. Both segments are empty, and nothing
    /// is written any more.
    pub(crate) fn give_back_space(&self) {
        let _no_write = self.writer.lock();
        let appender = self.appender.lock();
        for segment in 0..SEGMENTS {
            self.release(segment, appender.least_space(), appender.space_of(segment));
        }
    }
}
