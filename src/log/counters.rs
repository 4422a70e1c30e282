//! The counters of the log.

use crate::histogram::{Histogram, HistogramRecorder};
use crate::observe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters that the log's writers advance: a few relaxed additions for each group, and none for
/// each frame.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    flush_ns: HistogramRecorder,
    group_frames: HistogramRecorder,
    bytes_written: AtomicU64,
}

/// The values of the counters at one moment.
#[derive(Debug, Clone)]
pub(crate) struct LogStats {
    /// The time to write and flush a group, in nanoseconds.
    pub(crate) flush_ns: Histogram,
    /// The number of frames in a group, of groups that are not empty.
    pub(crate) group_frames: Histogram,
    /// Bytes handed to the storage, headers and marks included.
    pub(crate) bytes_written: u64,
}

impl LogCounters {
    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        observe::log_written(bytes);
    }

    /// A group of `frames` frames was written and flushed; the last of them is at `durable_lsn`.
    pub(crate) fn flushed(&self, frames: u64, durable_lsn: u64, took: Duration) {
        self.flush_ns.record_time(took);
        if frames > 0 {
            self.group_frames.record(frames);
        }
        observe::flushed(frames, durable_lsn, took);
    }

    pub(crate) fn snapshot(&self) -> LogStats {
        LogStats {
            flush_ns: self.flush_ns.snapshot(),
            group_frames: self.group_frames.snapshot(),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
        }
    }
}
