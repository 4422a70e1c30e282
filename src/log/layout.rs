//! Where the log is in the file.

use super::growth::SpaceBounds;
use super::segment::FRAMES_START;
use crate::storage::Superblock;

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

    /// How much space a segment with frames up to `position` begins with.
    pub(crate) fn first_space(&self, position: u64) -> u64 {
        SpaceBounds::of(self.segment_size).with_frames(position)
    }

    /// The largest frame, in bytes.
    pub(crate) fn max_frame_len(&self) -> u64 {
        self.segment_size.saturating_sub(FRAMES_START)
    }
}
