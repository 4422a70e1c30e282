//! Errors, and the state that each one leaves.

mod state;

pub use state::StateError;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The result of most operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a room, a store or the engine behind them.
///
/// Every variant says what state it leaves: *not applied* (as if the call had never been made), or
/// *unknown* (only [`Error::OutcomeUnknown`]: the change may or may not survive).
///
/// Errors are cheap to clone, because every caller that waited for a failed flush gets one.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another handle, in this process or another, has the file open. Nothing was changed.
    #[error("{}: already open in another handle or process; close that one, or use a copy of the file", path.display())]
    Locked {
        /// The file that is locked.
        path: PathBuf,
    },

    /// The file exists but is not a cloakroom file. Nothing was written to it.
    #[error("{}: not a cloakroom file ({reason}); nothing was written to it", path.display())]
    NotCloakroom {
        /// The file that was refused.
        path: PathBuf,
        /// Why it is not one.
        reason: String,
    },

    /// The target of a backup is a different room, which a backup does not replace. Nothing was
    /// written to it.
    #[error(
        "{}: this is a different room, and a backup replaces only earlier backups of the same room; \
         choose another path (nothing was written to it)",
        path.display()
    )]
    DifferentRoom {
        /// The file, which is unchanged.
        path: PathBuf,
    },

    /// The file was written by a newer version of this crate. Nothing was written to it.
    #[error(
        "{}: format version {found} is newer than {supported}, the newest this version reads; \
         open it with a newer cloakroom (nothing was written to it)",
        path.display()
    )]
    UnsupportedVersion {
        /// The file that was refused.
        path: PathBuf,
        /// The version in its superblock.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },

    /// The file has an older format version, and this call may not migrate it to the current one.
    /// Nothing was written to it.
    #[error(
        "{}: format version {found} is older than {current}; open the file, or a copy of it, once for writing with \
         this cloakroom, which migrates it to version {current} (nothing was written to it)",
        path.display()
    )]
    OutdatedVersion {
        /// The file that was refused.
        path: PathBuf,
        /// The version in its superblock.
        found: u32,
        /// The version this build writes.
        current: u32,
    },

    /// The file has a format version that is too old for this version of the crate to migrate.
    /// Nothing was written to it.
    #[error(
        "{}: format version {found} is older than {oldest}, the oldest this version can migrate; \
         open it with an earlier cloakroom first (nothing was written to it)",
        path.display()
    )]
    VersionTooOld {
        /// The file that was refused.
        path: PathBuf,
        /// The version in its superblock.
        found: u32,
        /// The oldest version this build migrates.
        oldest: u32,
    },

    /// Bytes on the disk are not those that were written there. Other, intact rows stay readable.
    #[error("corrupted: {location}: {detail}")]
    Corrupted {
        /// Where in the file, as exactly as is known.
        location: String,
        /// What is wrong there.
        detail: String,
    },

    /// A system call failed. A write that returns this was not applied.
    #[error("{context}: {source}")]
    Io {
        /// The operation, and the file.
        context: String,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },

    /// The disk is full and the log has no space left. The write was not applied; nothing that was
    /// acknowledged is lost. Free some space: the next checkpoint then succeeds, and there is no
    /// need to reopen the room.
    #[error("disk full: {context}; free some space and try again, there is no need to reopen")]
    DiskFull {
        /// What could not be written.
        context: String,
    },

    /// Both log segments were full for longer than a writer waits. The write was not applied.
    #[error(
        "the log is full and no checkpoint freed a segment within {waited:?} ({cause}); try again"
    )]
    LogFull {
        /// How long the writer waited.
        waited: Duration,
        /// The last error of the checkpointer, or that it is still running.
        cause: String,
    },

    /// A key, value or batch is over its limit. Nothing was applied.
    #[error("{what} has {size} bytes, over the limit of {limit} bytes")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// A live record with this key already exists. It is unchanged.
    #[error("a live record with this key already exists; it is unchanged")]
    AlreadyExists,

    /// The room of an import has a row, and must be empty. Nothing was changed.
    #[error("the room is not empty: there are rows in its table {table}; import into a new file")]
    NotEmpty {
        /// The first table with a row.
        table: &'static str,
    },

    /// An import stopped at a line. The entries before that line are durable in the room, and
    /// nothing else of the import is; but if the source is [`Error::OutcomeUnknown`], entries of
    /// this line and of some lines after it may be, too.
    #[error("line {line}: {detail}")]
    Import {
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with the line, or why it could not be written.
        detail: String,
        /// The failure, if the line itself is not at fault. For example a full disk.
        source: Option<Arc<Error>>,
    },

    /// A configuration contradicts itself or the file. Nothing was applied.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),

    /// A value could not be encoded. Nothing was applied.
    #[error("the value cannot be encoded: {0}")]
    Encode(String),

    /// The log failed while this call waited for it. The change **may or may not** survive: reopen
    /// the file and check.
    #[error(
        "outcome unknown: the log failed while this call waited for it ({source}); \
         the change may or may not survive; reopen the file and check"
    )]
    OutcomeUnknown {
        /// The error of the write or flush.
        source: Arc<io::Error>,
    },

    /// The log failed earlier, so nothing can be made durable any more. Not applied. Durable state
    /// stays readable; reopening the file recovers everything that was acknowledged.
    #[error("poisoned: the log failed earlier ({source}); reopen the file to recover")]
    Poisoned {
        /// The error that poisoned the room.
        source: Arc<io::Error>,
    },

    /// The room or store was closed before this call. Not applied.
    #[error("closed: the room or store was closed before this call")]
    Closed,

    /// The room was opened for reading only. Not applied; nothing is ever written to the file
    /// through such a room.
    #[error("read-only: this room was opened for reading; open it for writing to change anything")]
    ReadOnly,

    /// A write through a room or store handle inside `atomically`, where it would wait for itself
    /// for ever. Not applied; use the transaction that was passed to the closure.
    #[error(
        "a transaction of this room is already running on this thread; use the transaction that was passed to its closure"
    )]
    NestedTransaction,

    /// The store of agent state refused an operation inside a transaction of several stores, and
    /// says why. Not applied.
    #[error(transparent)]
    State(Box<StateError>),
}

impl Error {
    /// Wraps an error of the operating system. A full disk becomes [`Error::DiskFull`].
    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        let context = context.into();
        if is_disk_full(&source) {
            return Error::DiskFull { context: format!("{context}: {source}") };
        }
        Error::Io { context, source: Arc::new(source) }
    }

    /// Damage found at `location`.
    pub(crate) fn corrupted(location: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Corrupted { location: location.into(), detail: detail.into() }
    }
}

/// Whether the error means that no space, or no quota, is left.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
