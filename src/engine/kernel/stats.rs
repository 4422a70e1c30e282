//! What the engine shows of what it counts.

use super::core::{HeldOpen, Kernel};
use super::counters::nanos;
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::sync::atomic::Ordering;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::time::Duration;

/// Declares the figures: each a field, and a member of the JSON object, under the name that follows
/// it.
macro_rules! figures {
    ($($(#[$doc:meta])* $field:ident: $type:ty => $name:literal;)*) => {
        /// A picture of the engine at one moment. Counters and histograms begin empty when
        /// the room is opened.
        ///
        /// Taking one costs the same however much the room holds. Writers go on meanwhile, so two
        /// counters may be of moments a little apart.
        ///
        /// As JSON it is an object with a member for each field, under the field's name; times are
        /// whole nanoseconds, and their names end in `_ns`. Members are added in later versions,
        /// and none is renamed.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct EngineStats {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Serialize for EngineStats {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let count = [$($name),*].len();
                let mut fields = serializer.serialize_struct("EngineStats", count)?;
                $(fields.serialize_field($name, &self.$field.figure())?;)*
                fields.end()
            }
        }
    };
}

/// What stands for a field in the JSON.
trait Figure {
    fn figure(&self) -> impl Serialize + '_;
}

macro_rules! plain_figures {
    ($($type:ty)*) => {
        $(impl Figure for $type {
            fn figure(&self) -> impl Serialize + '_ {
                self
            }
        })*
    };
}

plain_figures!(u64 bool Option<u64> Histogram);

impl Figure for Duration {
    fn figure(&self) -> impl Serialize + '_ {
        nanos(*self)
    }
}

impl Figure for Option<Duration> {
    fn figure(&self) -> impl Serialize + '_ {
        self.map(nanos)
    }
}

figures! {
    /// The position (LSN) of the newest transaction. Every transaction that wrote something has
    /// one, counted up.
    newest_lsn: u64 => "newest_lsn";
    /// The newest position known to be on the disk.
    durable_lsn: u64 => "durable_lsn";
    /// The position up to which transactions have been moved into the B-tree.
    checkpoint_lsn: u64 => "checkpoint_lsn";
    /// Groups of transactions that were written to the log and flushed.
    flushes: u64 => "flushes";
    /// Time spent writing and flushing groups.
    flush_time: Duration => "flush_time_ns";
    /// How long each group took to be written and flushed, in nanoseconds.
    flush_ns: Histogram => "flush_ns";
    /// How many transactions each group had. A flush that took none along is not counted here.
    group_frames: Histogram => "group_frames";
    /// Bytes written to the log.
    log_bytes_written: u64 => "log_bytes_written";
    /// The space that the log has in the file now, which grows with the load up to the
    /// [capacity](crate::Builder::log_capacity).
    log_space: u64 => "log_space";
    /// Bytes written to the B-tree, its checksums and header included.
    btree_bytes_written: u64 => "btree_bytes_written";
    /// The bytes of the B-tree that the file has room for, free pages included, checksums not.
    btree_bytes: u64 => "btree_bytes";
    /// How many of these the newest commit uses, when somebody looked last:
    /// [`Cloakroom::stats`](crate::Cloakroom::stats), a compaction, or the maintenance that decides
    /// about one. `None` when it was not looked at since the room was opened.
    btree_used_bytes: Option<u64> => "btree_used_bytes";
    /// How many of them were free then, and can be given back by a
    /// [compaction](crate::Cloakroom::compact).
    btree_free_bytes: Option<u64> => "btree_free_bytes";
    /// Checkpoints that moved a segment of the log into the B-tree.
    checkpoints: u64 => "checkpoints";
    /// How long each of these took, in nanoseconds, the wait for the log included.
    checkpoint_ns: Histogram => "checkpoint_ns";
    /// How long ago the last of them ended. `None` when there was none since the room was opened.
    since_checkpoint: Option<Duration> => "since_checkpoint_ns";
    /// Checkpoints that failed. Each is tried again.
    checkpoint_failures: u64 => "checkpoint_failures";
    /// Writers that found both log segments full: those that waited for one, and those that were
    /// refused.
    stalls: u64 => "stalls";
    /// How long those waited that did, together.
    stall_time: Duration => "stall_time_ns";
    /// Rows, and absences of rows, in memory and not yet in the B-tree, counted by version.
    memory_rows: u64 => "memory_rows";
    /// The length of the file in bytes.
    file_bytes: u64 => "file_bytes";
    /// How often the disk was too full to write or flush the log, which it is reserved for.
    disk_full_stalls: u64 => "disk_full_stalls";
    /// Whether it is now: new writes are refused until what was appended before is durable.
    disk_full: bool => "disk_full";
    /// Writes of the log that were made durable by a write and a flush, because the system refused
    /// the one call for both.
    durable_write_fallbacks: u64 => "durable_write_fallbacks";
    /// Flushes of every attribute of the file, because the system refused to flush the content
    /// alone.
    flush_fallbacks: u64 => "flush_fallbacks";
    /// New names whose directory the system refused to flush.
    directory_flush_fallbacks: u64 => "directory_flush_fallbacks";
    /// Growths of the file whose space the file system could not reserve.
    reservation_fallbacks: u64 => "reservation_fallbacks";
    /// Parts of the file that were read into memory, because the system refused to map them.
    map_fallbacks: u64 => "map_fallbacks";
    /// New names that were taken in two steps, because the system refused the one call for it.
    rename_fallbacks: u64 => "rename_fallbacks";
    /// Files that could not be opened a second time, so that the log and the B-tree flush one after
    /// the other.
    description_fallbacks: u64 => "description_fallbacks";
    /// Entries that the sweeper removed, by itself or when asked.
    swept: u64 => "swept";
    /// Entries that the sweeper found going on, and filed under another time.
    sweep_rescheduled: u64 => "sweep_rescheduled";
    /// Steps that the sweeper took: each is one transaction.
    sweep_slices: u64 => "sweep_slices";
    /// How often the sweeper went through everything that was due.
    sweep_rounds: u64 => "sweep_rounds";
    /// Watchers of changes ([`Cloakroom::watch`](crate::Cloakroom::watch)) that are open.
    watchers: u64 => "watchers";
    /// Changed rows that are kept for them because they have not taken them yet.
    watch_buffered: u64 => "watch_buffered";
    /// How far the one that is furthest behind is behind, in transactions of the room.
    watch_lag: u64 => "watch_lag";
    /// How often a watcher was too slow and missed transactions.
    watch_overtaken: u64 => "watch_overtaken";
    /// Whether the log failed, so that nothing can be written until the file is opened again.
    poisoned: bool => "poisoned";
}

fn collect(kernel: &Kernel) -> Result<EngineStats> {
    let view = kernel.view();
    let (log, btree) = (kernel.log.stats(), kernel.btree.stats());
    let counters = &kernel.counters;
    let checkpoint_ns = counters.checkpoint_ns.snapshot();
    let newest_lsn = kernel.log.appended();
    let fallbacks = kernel.storage.fallbacks();
    Ok(EngineStats {
        newest_lsn,
        durable_lsn: kernel.log.durable(),
        checkpoint_lsn: view.btree.lsn(),
        flushes: log.flush_ns.count(),
        flush_time: Duration::from_nanos(log.flush_ns.sum()),
        flush_ns: log.flush_ns,
        group_frames: log.group_frames,
        log_bytes_written: log.bytes_written,
        log_space: kernel.log.space(),
        btree_bytes_written: btree.bytes_written,
        btree_bytes: btree.len,
        btree_used_bytes: btree.space.map(|space| space.used_bytes),
        btree_free_bytes: btree.space.map(|space| space.free_bytes()),
        checkpoints: checkpoint_ns.count(),
        checkpoint_ns,
        since_checkpoint: counters.since_checkpoint(),
        checkpoint_failures: counters.checkpoint_failures.load(Ordering::Relaxed),
        stalls: counters.stalls.load(Ordering::Relaxed),
        stall_time: Duration::from_nanos(counters.stall_ns.load(Ordering::Relaxed)),
        memory_rows: view.rows_in_memory() as u64,
        file_bytes: kernel
            .storage
            .len()
            .map_err(|error| Error::io("asking for the length of the file", error))?,
        disk_full_stalls: kernel.log.disk_full_stalls(),
        disk_full: kernel.log.is_disk_full(),
        durable_write_fallbacks: fallbacks.durable_writes,
        flush_fallbacks: fallbacks.flushes,
        directory_flush_fallbacks: fallbacks.directory_flushes,
        reservation_fallbacks: fallbacks.reservations,
        map_fallbacks: fallbacks.maps,
        rename_fallbacks: fallbacks.renames,
        description_fallbacks: fallbacks.shared_descriptions,
        // The sweeper and the feed are not the engine's; their owner adds what they counted.
        swept: 0,
        sweep_rescheduled: 0,
        sweep_slices: 0,
        sweep_rounds: 0,
        watchers: 0,
        watch_buffered: 0,
        watch_lag: 0,
        watch_overtaken: 0,
        poisoned: kernel.log.failure().is_some(),
    })
}

impl HeldOpen<'_> {
    /// What was counted.
    pub(in crate::engine) fn stats(&self) -> Result<EngineStats> {
        collect(self.kernel)
    }
}
