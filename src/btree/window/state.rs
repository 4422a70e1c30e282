//! The state of a window, shared by its handles.

use super::super::checksums::Checksums;
use super::super::layout::{BLOCK, HEADER_LEN, HeaderCopy};
use crate::error::Error;
use crate::storage::Storage;
use crate::sync::plain::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::thread::ThreadId;

/// What may be done through a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::btree) enum Mode {
    /// Everything.
    Writable,
    /// Everything, and redb's storage gets regions of this many blocks. redb writes the size of a
    /// region into its header when it creates a database, and reads it from there afterwards. It
    /// has no option for it, so the window sets the field.
    Creating { region_blocks: u32 },
    /// Everything, and a header is written only when everything that it may refer to is durable:
    /// redb's own compaction commits in one phase.
    Compacting,
    /// Only reads, until [`Window::admit_writes`](super::Window::admit_writes). What redb writes to
    /// its header when it opens stays in memory until then.
    Frozen,
}

/// The header known to be durable, with which another window on the same storage continues.
#[derive(Debug, Clone)]
pub(in crate::btree) struct DurableHeader {
    pub(super) copy: HeaderCopy,
    /// Which of the two copies on disk has it.
    pub(super) slot: u64,
}

#[derive(Debug)]
pub(super) struct WindowState {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) offset: u64,
    pub(super) mode: Mode,
    /// Whether nothing is written: the mode is [`Mode::Frozen`] and writes were not admitted.
    pub(super) frozen: AtomicBool,
    /// The length of redb's storage in bytes.
    pub(super) len: AtomicU64,
    /// How many of its first bytes the file has space for. Bytes beyond were never written.
    pub(super) present: AtomicU64,
    /// The end of the last block written since the last flush.
    pub(super) unflushed_end: AtomicU64,
    pub(super) header: Mutex<HeaderState>,
    pub(super) checksums: Checksums,
    /// One of [`LIVE`], [`SEALED`] and [`DEAD`].
    pub(super) life: AtomicU8,
    /// Held shared during writes, so that sealing waits for running writes.
    pub(super) writes: RwLock<()>,
    /// Which reads of a damaged block fail, instead of returning a page that redb rejects.
    pub(super) strict: Mutex<DamagePolicy>,
    /// Held exclusively during the writer's turn. A reader that found damage waits for it.
    pub(super) turn: RwLock<()>,
    pub(super) tainted: AtomicBool,
    /// The damage found so far: block and detail.
    pub(super) damage: Mutex<BTreeMap<u64, String>>,
    pub(super) gauges: Arc<WindowGauges>,
}

/// What is counted over all windows of a B-tree.
#[derive(Debug, Default)]
pub(in crate::btree) struct WindowGauges {
    /// Bytes written to the storage.
    pub(in crate::btree) written: AtomicU64,
    /// Whether a flush of the storage failed. Then nothing is known about the writes that it
    /// covered.
    pub(in crate::btree) flush_failed: AtomicBool,
    /// Whether a header that is not durable may be on the disk, because it could not be written or
    /// flushed. The next window that writes replaces it first.
    pub(super) header_in_doubt: AtomicBool,
    /// The greatest sequence number of a header that was written, durable or not.
    pub(super) last_sequence: AtomicU64,
    /// The header that the latest window made durable.
    pub(super) durable: Mutex<Option<DurableHeader>>,
    /// How many bytes of redb's storage the file needs space for, when the disk was too full for
    /// them. Otherwise 0.
    pub(super) wanted: AtomicU64,
}

/// Reads and writes are allowed.
pub(super) const LIVE: u8 = 0;
/// Only reads are allowed.
pub(super) const SEALED: u8 = 1;
/// Nothing is allowed: another window has replaced this one.
pub(super) const DEAD: u8 = 2;

/// The smallest growth of the file, in bytes of the B-tree, so that it does not grow for every
/// block.
pub(super) const MIN_GROWTH: u64 = 16 * BLOCK;

/// The file grows by this fraction of the B-tree: one part in this many.
pub(super) const GROWTH_DIVISOR: u64 = 16;

/// The most damaged blocks kept for error messages.
pub(super) const MAX_DAMAGE_NOTED: usize = 8;

#[derive(Debug)]
pub(super) struct HeaderState {
    /// What redb wrote last.
    pub(super) pending: [u8; HEADER_LEN],
    /// Whether `pending` or a length differs from what is durable.
    pub(super) dirty: bool,
    pub(super) durable: DurableHeader,
    /// The length of the window in the file. At least what the present part needs.
    pub(super) physical: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DamagePolicy {
    /// All reads fail: redb is being opened.
    AllFail,
    /// The first view is being made, which reads the roots of the tables. That does not taint the
    /// window: the page for a damaged block is dangerous only because the writer could merge it
    /// with a sibling, and a root has none. Reading below it fails for the writer as for readers.
    Roots,
    /// Reads of this thread fail: it has the writer's turn.
    ThreadFails(ThreadId),
    /// No read fails.
    NoneFails,
}

/// A system error that carries this crate's own error, so that it can be extracted from redb's.
pub(super) fn in_context(context: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Error::io(context, error))
}

/// The same for a read of `what`. A file that ends before it is damaged.
pub(super) fn while_reading(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Error::reading(what, error))
}

pub(super) fn corrupted(location: String, detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Error::corrupted(location, detail))
}
