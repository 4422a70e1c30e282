//! What the engine counts, and what it shows.

use super::Core;
use crate::error::Result;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counters that the engine's threads advance.
#[derive(Debug, Default)]
pub(super) struct Counters {
    stalls: AtomicU64,
    stall_ns: AtomicU64,
    checkpoints: AtomicU64,
    checkpoint_failures: AtomicU64,
    /// Whether the committer sleeps until it is woken.
    pub(super) committer_idle: AtomicBool,
    appended_at_tick: AtomicU64,
}

impl Counters {
    pub(super) fn stalled(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stall_ended(&self, took: Duration) {
        self.stall_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn checkpointed(&self) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn checkpoint_failed(&self) {
        self.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything was appended since this was asked last.
    pub(super) fn appends_since_tick(&self, appended: u64) -> bool {
        self.appended_at_tick.swap(appended, Ordering::Relaxed) != appended
    }
}

/// A picture of the engine at one moment. Counters begin at zero when the room is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// The position (LSN) of the newest transaction. Every transaction that wrote something has one, counted up.
    pub newest_lsn: u64,
    /// The newest position known to be on the disk.
    pub durable_lsn: u64,
    /// The position up to which transactions have been moved into the B-tree.
    pub checkpoint_lsn: u64,
    /// Groups of transactions that were written to the log and flushed.
    pub flushes: u64,
    /// Time spent writing and flushing groups.
    pub flush_time: Duration,
    /// Bytes written to the log.
    pub log_bytes_written: u64,
    /// Bytes written to the B-tree, its checksums and header included.
    pub base_bytes_written: u64,
    /// Checkpoints that moved a segment of the log into the B-tree.
    pub checkpoints: u64,
    /// Checkpoints that failed. Each is tried again.
    pub checkpoint_failures: u64,
    /// Writers that found both log segments full and waited.
    pub stalls: u64,
    /// How long they waited, together.
    pub stall_time: Duration,
    /// Rows, and absences of rows, in memory and not yet in the B-tree, counted by version.
    pub memory_rows: u64,
    /// The length of the file in bytes.
    pub file_bytes: u64,
    /// Whether the log failed, so that nothing can be written until the file is opened again.
    pub poisoned: bool,
}

pub(super) fn collect(core: &Core) -> Result<EngineStats> {
    let view = core.view();
    let log = core.log.stats();
    let counters = &core.counters;
    let rows = |table: &crate::memtable::Memtable| table.len() as u64;
    Ok(EngineStats {
        newest_lsn: core.log.appended(),
        durable_lsn: core.log.durable(),
        checkpoint_lsn: view.base.lsn(),
        flushes: log.flushes,
        flush_time: log.flush_time,
        log_bytes_written: log.bytes_written,
        base_bytes_written: core.base.stats().bytes_written,
        checkpoints: counters.checkpoints.load(Ordering::Relaxed),
        checkpoint_failures: counters.checkpoint_failures.load(Ordering::Relaxed),
        stalls: counters.stalls.load(Ordering::Relaxed),
        stall_time: Duration::from_nanos(counters.stall_ns.load(Ordering::Relaxed)),
        memory_rows: rows(&view.active) + view.frozen.as_deref().map_or(0, rows),
        file_bytes: core
            .storage
            .len()
            .map_err(|error| crate::error::Error::io("asking for the length of the file", error))?,
        poisoned: core.log.failure().is_some(),
    })
}
