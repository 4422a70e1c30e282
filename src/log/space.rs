//! How a segment gets the [space](super::growth) for its next use, and gives it back.

use super::Log;
use super::segment::SEGMENTS;
use crate::error::{Result, is_disk_full};
use std::io;

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

    /// Gives a segment that is not written to the space for its next use. Without space on the disk
    /// it keeps what it has.
    pub(super) fn give_space(&self, segment: usize, btree_len: u64) -> Result<()> {
        let (had, wanted) = {
            let appender = self.appender.lock();
            (appender.space_of(segment), appender.space_of_next_use(btree_len))
        };
        if wanted > had {
            let offset = self.layout.segment_offset(segment) + had;
            if let Err(error) = self.reserve(offset, wanted - had) {
                if !is_disk_full(&error) {
                    return Err(self.poison(error));
                }
                let _ = self.storage.release(offset, wanted - had);
                return Ok(());
            }
        } else if wanted < had {
            self.release(segment, wanted, had);
        }
        self.appender.lock().set_space(segment, wanted);
        Ok(())
    }

    /// Has blocks allocated and written, so that a flush of frames changes no more than frames.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.storage.fill_holes(offset, len)? == 0 {
            return Ok(());
        }
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
