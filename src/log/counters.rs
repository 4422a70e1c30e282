//! What the log counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters that the log's writers advance.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    flushes: AtomicU64,
    flush_ns: AtomicU64,
    bytes_written: AtomicU64,
}

/// What was counted at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogStats {
    /// Groups written and flushed.
    pub(crate) flushes: u64,
    /// Time spent writing and flushing groups.
    pub(crate) flush_time: Duration,
    /// Bytes handed to the storage, headers and marks included.
    pub(crate) bytes_written: u64,
}

impl LogCounters {
    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn flushed(&self, took: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flush_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> LogStats {
        LogStats {
            flushes: self.flushes.load(Ordering::Relaxed),
            flush_time: Duration::from_nanos(self.flush_ns.load(Ordering::Relaxed)),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
        }
    }
}
