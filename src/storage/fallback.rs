//! How often the system did not do what it was asked for first, and something else did as well.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the other ways that were taken. Each works as well as the first one, and costs more.
#[derive(Debug, Default)]
pub(super) struct Fallbacks {
    durable_writes: AtomicU64,
    flushes: AtomicU64,
    directory_flushes: AtomicU64,
    reservations: AtomicU64,
    maps: AtomicU64,
    renames: AtomicU64,
    shared_descriptions: AtomicU64,
}

/// The other ways that a storage took, because the system refused the first one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FallbackCounts {
    /// Writes that were made durable by a write and a flush instead of one call for both.
    pub durable_writes: u64,
    /// Flushes of the content that had to flush every attribute of the file, too.
    pub flushes: u64,
    /// New names whose directory could not be flushed.
    pub directory_flushes: u64,
    /// Growths of the file whose space could not be reserved.
    pub reservations: u64,
    /// Parts of the file that were read into memory instead of being mapped.
    pub maps: u64,
    /// New names that were taken in two steps instead of one.
    pub renames: u64,
    /// Files that could not be opened a second time, so that the log and the B-tree flush one after
    /// the other.
    pub shared_descriptions: u64,
}

/// A way that was taken instead of the first one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fallback {
    DurableWrite,
    Flush,
    DirectoryFlush,
    Reservation,
    Map,
    Rename,
    SharedDescription,
}

impl Fallbacks {
    pub(super) fn count(&self, fallback: Fallback) {
        let counter = match fallback {
            Fallback::DurableWrite => &self.durable_writes,
            Fallback::Flush => &self.flushes,
            Fallback::DirectoryFlush => &self.directory_flushes,
            Fallback::Reservation => &self.reservations,
            Fallback::Map => &self.maps,
            Fallback::Rename => &self.renames,
            Fallback::SharedDescription => &self.shared_descriptions,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> FallbackCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FallbackCounts {
            durable_writes: read(&self.durable_writes),
            flushes: read(&self.flushes),
            directory_flushes: read(&self.directory_flushes),
            reservations: read(&self.reservations),
            maps: read(&self.maps),
            renames: read(&self.renames),
            shared_descriptions: read(&self.shared_descriptions),
        }
    }
}
