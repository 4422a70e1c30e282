//! What can go wrong, and what each failure leaves behind.

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
/// Every variant says what it leaves behind: *not applied* (as if the call had never been made), or
/// *unknown* (only [`Error::OutcomeUnknown`]: the change may or may not survive).
///
/// Errors are cheap to clone, because one failed flush answers everybody who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another handle, in this process or another, has the file open. Nothing was touched.
    #[error("{}: already open elsewhere; close the other opener, or work on a copy of the file", path.display())]
    Locked {
        /// The file that is locked.
        path: PathBuf,
    },

    /// The file exists but is not a cloakroom file. Nothing was written to it.
    #[error("{}: not a cloakroom file ({reason}); nothing was written to it", path.display())]
    NotCloakroom {
        /// The file that was refused.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },

    /// The target of a backup is another room, which is not replaced. Nothing was written to it.
    #[error(
        "{}: this is another room; a backup replaces only earlier backups of the same room \
         (nothing was written to it)",
        path.display()
    )]
    DifferentRoom {
        /// The file that was left as it is.
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
        /// The version its superblock names.
        found: u32,
        /// The newest version this build reads.
        supported: u32,
    },

    /// The file is of an older format version, and this opener may not make one of the present
    /// version out of it. Nothing was written to it.
    #[error(
        "{}: format version {found} is older than {current}; open the file once for writing with this cloakroom, \
         which brings it to version {current} (or do so with a copy); nothing was written to it",
        path.display()
    )]
    OutdatedVersion {
        /// The file that was refused.
        path: PathBuf,
        /// The version its superblock names.
        found: u32,
        /// The version this build writes.
        current: u32,
    },

    /// The file is of a format version so old that this version of the crate does not know it any
    /// more. Nothing was written to it.
    #[error(
        "{}: format version {found} is older than {oldest}, the oldest this version can migrate; \
         open it with an earlier cloakroom first (nothing was written to it)",
        path.display()
    )]
    VersionTooOld {
        /// The file that was refused.
        path: PathBuf,
        /// The version its superblock names.
        found: u32,
        /// The oldest version this build migrates.
        oldest: u32,
    },

    /// Bytes on the disk are not what was written there. Reads of other, intact rows go on.
    #[error("corrupted: {location}: {detail}")]
    Corrupted {
        /// Where in the file, as exactly as it is known.
        location: String,
        /// What is wrong there.
        detail: String,
    },

    /// The operating system failed a call. A write that answers this was not applied.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, and to what.
        context: String,
        /// The system's own error.
        source: Arc<io::Error>,
    },

    /// The disk is full and the log has no room left to wait in. The write was not applied; nothing
    /// that was acknowledged is lost. Free some space: the next checkpoint heals the room without
    /// reopening it.
    #[error("disk full: {context}; free some space and try again, there is no need to reopen")]
    DiskFull {
        /// What could not be written.
        context: String,
    },

    /// Both log segments stayed full for longer than a writer waits. The write was not applied.
    #[error("the log is full and no checkpoint freed it within {waited:?} ({cause})")]
    LogFull {
        /// How long the writer waited.
        waited: Duration,
        /// What the checkpointer last said.
        cause: String,
    },

    /// A key, value or batch is over its limit. Nothing was applied.
    #[error("{what} has {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The most that is allowed, in bytes.
        limit: u64,
    },

    /// A live record with this key exists. It is untouched.
    #[error("a live record with this key exists already; it was left as it is")]
    AlreadyExists,

    /// An import met a row in its room, which must have none. Nothing was changed.
    #[error("the room is not empty, there are rows in its table {table}; import into a new file")]
    NotEmpty {
        /// The first table with a row.
        table: &'static str,
    },

    /// An import stopped at a line. The entries before that line are in the room, durably, and
    /// nothing else of the import is; but when the source is [`Error::OutcomeUnknown`], entries of
    /// this line and some behind it may be, too.
    #[error("line {line}: {detail}")]
    Import {
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with it, or what went wrong when it was to be written.
        detail: String,
        /// The failure, when it was not the line's fault: a full disk, for one.
        source: Option<Arc<Error>>,
    },

    /// A configuration contradicts itself or the file. Nothing was applied.
    #[error("invalid configuration: {0}")]
    InvalidConfig(String),

    /// A value could not be encoded. Nothing was applied.
    #[error("the value cannot be encoded: {0}")]
    Encode(String),

    /// The log failed while this call waited for it. The change **may or may not** survive: reopen
    /// and look.
    #[error(
        "outcome unknown: the log failed while this call waited for it ({source}); \
         the change may or may not survive, reopen the file and look"
    )]
    OutcomeUnknown {
        /// The failure of the write or flush.
        source: Arc<io::Error>,
    },

    /// The log failed earlier, so nothing can be made durable any more. Not applied. Reads of
    /// durable state go on; reopening the file recovers everything that was acknowledged.
    #[error("poisoned: the log failed earlier ({source}); reopen the file to recover")]
    Poisoned {
        /// The failure that poisoned the room.
        source: Arc<io::Error>,
    },

    /// The room or store was closed before this call. Not applied.
    #[error("closed: this call came after the room or store was closed")]
    Closed,

    /// The room was opened for reading only. Not applied; nothing is ever written to the file
    /// through such a room.
    #[error("read-only: this room was opened for reading; open it for writing to change anything")]
    ReadOnly,

    /// A write was made through a room or store handle from inside `atomically`, where it would
    /// wait for itself for ever. Not applied; use the transaction that the closure was given.
    #[error(
        "a transaction of this room is already running on this thread; use the transaction it was given"
    )]
    NestedTransaction,

    /// The store of agent state refused an operation inside a transaction of several stores, and
    /// says why. Not applied.
    #[error(transparent)]
    State(Box<StateError>),
}

impl Error {
    /// Wraps a system error, saying what was being done. A full disk becomes [`Error::DiskFull`].
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

/// Whether the system says that there is no space (or no quota) left.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
