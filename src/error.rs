//! Errors, and the state that each one leaves.

mod advice;
mod state;

pub(crate) use advice::{CutFile, FullDisk, is_cut, poisoned as after_failure};
pub use state::StateError;

use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The result of most operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a room, a store or the engine behind them.
///
/// Every variant says what state it leaves: *not applied* (as if the call had never been made), or
/// *unknown* ([`Error::OutcomeUnknown`]: the change may or may not survive, and
/// [`Error::Unanswered`] of a driver outside this crate).
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
    #[error(
        "corrupted: {location}: {detail}; verify the file to list all damage, and salvage it or restore a backup"
    )]
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

    /// The disk is full, and the log has no space left or cannot be written. The write was not
    /// applied; nothing that was acknowledged is lost. Free some space: what waits for it is then
    /// written by itself, and a room that is open goes on by itself.
    #[error(
        "disk full: {context}; free some space and try again; a room that is open goes on by itself"
    )]
    DiskFull {
        /// What could not be written.
        context: String,
    },

    /// Both log segments are full. A call that answers this was refused, because too much waits for
    /// space already or the checkpoint that makes some has failed: its write was not applied. An
    /// answer that waited says that the write is applied and visible (`is_applied`), is queued, and
    /// becomes durable when there is space; until then a crash of the process takes it away.
    #[error(
        "the log is full: {cause}; the write waited {waited:.1?} and {}",
        if *is_applied {
            "is applied: do not repeat it, it becomes durable when the log has space".to_owned()
        } else {
            format!("was not applied, try it again in {retry_after:.1?}")
        }
    )]
    LogFull {
        /// How long the writer waited. A call does not wait; its answer does.
        waited: Duration,
        /// When it is worth trying again.
        retry_after: Duration,
        /// Whether the write was applied: it must not be made again.
        is_applied: bool,
        /// Why no segment became free: how the checkpoint failed, or that it has not ended.
        cause: String,
    },

    /// The file was removed, or another file has its path, while the room was open. What the room
    /// holds is gone when it is closed, so nothing more is called durable: writes are not applied,
    /// and a caller that waits for the disk gets this, too (what it wrote is in the room, but no
    /// one will find it in a file). Answers that need no flush go on, and
    /// [`Cloakroom::backup`](crate::Cloakroom::backup) saves what the room holds. Moving an open
    /// file counts as removing it, because the next opener of its path would begin an empty room.
    #[error(
        "{}: unlinked: this file was removed or replaced while it was open, so what is written to it would be lost; \
         back the room up to another path to keep what it holds, close it, and open the path again",
        path.display()
    )]
    Unlinked {
        /// The path that no longer leads to the file.
        path: PathBuf,
    },

    /// The room was opened before this process was forked, and stays with the process that opened
    /// it: the two would write one log. Nothing was applied, and neither the file nor its lock was
    /// touched. For an answer that was pending at the fork: the parent gets it.
    #[error(
        "forked: this room was opened by another process, of which this one is a fork, and stays open there; \
         open rooms after the fork, in the process that uses them"
    )]
    Forked,

    /// A key, value or batch is over its limit. Nothing was applied.
    #[error("{what} has {size} bytes, over the limit of {limit} bytes; nothing was applied")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// A live record with this key already exists. It is unchanged.
    #[error("a live record with this key already exists; it is unchanged, use another key")]
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
    /// the file and check. If the source says that the disk is full, the room goes on: the change
    /// is visible, and it becomes durable as soon as there is space, unless the room ends before.
    /// The message says which of the two it is.
    #[error("outcome unknown: {}", advice::unknown(source))]
    OutcomeUnknown {
        /// The error of the write or flush.
        source: Arc<io::Error>,
    },

    /// The log failed earlier, so nothing can be made durable any more. Not applied. Durable state
    /// stays readable; reopening the file recovers everything that was acknowledged.
    #[error("poisoned: the log failed earlier ({source}); {}", advice::poisoned(source))]
    Poisoned {
        /// The error that poisoned the room.
        source: Arc<io::Error>,
    },

    /// A driver dropped the [`Answer`](crate::Answer) of this call, because its thread panicked or
    /// its task was cancelled. The change **may or may not** have been made: ask the driver's
    /// store.
    #[error(
        "unanswered: the driver gave up this call (a panic, or a cancelled task); the change may or may not have been \
         made; read it back and check"
    )]
    Unanswered,

    /// The room or store was closed before this call. Not applied.
    #[error("closed: the room or store was closed before this call; open it again")]
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

    /// A handle was asked for its view `within` a transaction of another room. Not applied; the
    /// transaction can go on.
    #[error(
        "the handle is of another room than the transaction; use a handle of the room whose `atomically` runs it"
    )]
    ForeignTransaction,

    /// The store of agent state refused an operation inside a transaction of several stores, and
    /// says why. Not applied.
    #[error(transparent)]
    State(Box<StateError>),
}

// What an error of the system carries is not changed once it is here.
impl UnwindSafe for Error {}
impl RefUnwindSafe for Error {}

impl Error {
    /// Wraps an error of the operating system. A full disk becomes [`Error::DiskFull`].
    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        let context = context.into();
        if source.get_ref().is_some_and(|inner| inner.is::<ForkedProcess>()) {
            return Error::Forked;
        }
        if is_disk_full(&source) {
            return Error::DiskFull { context: format!("{context}: {source}") };
        }
        Error::Io { context, source: Arc::new(source) }
    }

    /// Wraps an error of reading `what`, a part of the file. A file that ends before it was cut
    /// off, which is damage and not a failure of the system.
    pub(crate) fn reading(what: impl Into<String>, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return Self::corrupted(what, "the file ends before it: it was cut off");
        }
        Self::io(format!("reading {}", what.into()), source)
    }

    /// What failed, as the source of another error: without advice, which the other error gives.
    pub(crate) fn into_cause(self) -> io::Error {
        match self {
            Error::DiskFull { context } => io::Error::new(io::ErrorKind::StorageFull, context),
            Error::Io { ref source, .. } => io::Error::new(source.kind(), self),
            Error::Corrupted { .. } => io::Error::new(io::ErrorKind::InvalidData, self.cause()),
            other => io::Error::other(other),
        }
    }

    /// What failed, as a part of another text: without advice.
    pub(crate) fn cause(&self) -> String {
        match self {
            Error::Corrupted { location, detail } => format!("corrupted: {location}: {detail}"),
            Error::DiskFull { context } => format!("disk full: {context}"),
            other => other.to_string(),
        }
    }

    /// What a caller is told after the log has failed because the file has lost its name.
    pub(crate) fn unlinked(failure: &io::Error) -> Option<Self> {
        unlinked_path(failure).map(|path| Error::Unlinked { path: path.clone() })
    }

    /// What a reader is told after it was noticed that the file has lost its name, or its end.
    pub(crate) fn lost(failure: &io::Error) -> Option<Self> {
        let cut = || Self::corrupted("the file", failure.to_string());
        Self::unlinked(failure).or_else(|| is_cut(failure).then(cut))
    }

    /// What a caller is told that waited for the log when it failed.
    pub(crate) fn unknown_outcome(source: Arc<io::Error>) -> Self {
        Self::unlinked(&source).unwrap_or(Error::OutcomeUnknown { source })
    }

    /// What a caller is told after the log has failed.
    pub(crate) fn poisoned(source: Arc<io::Error>) -> Self {
        Self::unlinked(&source).unwrap_or(Error::Poisoned { source })
    }

    /// Damage found at `location`.
    pub(crate) fn corrupted(location: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Corrupted { location: location.into(), detail: detail.into() }
    }
}

/// Why nothing that is written to a file can be called durable: the path leads to it no longer.
#[derive(Debug, thiserror::Error)]
#[error("{}: this file was removed or replaced while it was open", path.display())]
pub(crate) struct UnlinkedFile {
    pub(crate) path: PathBuf,
}

/// The path of a file that was removed or replaced, if that is what a log failed with.
pub(crate) fn unlinked_path(failure: &io::Error) -> Option<&PathBuf> {
    failure.get_ref()?.downcast_ref::<UnlinkedFile>().map(|unlinked| &unlinked.path)
}

/// Why a call of the system was not made: this process is a fork of the one that opened the file.
#[derive(Debug, thiserror::Error)]
#[error("this process is a fork of the one that opened the file")]
pub(crate) struct ForkedProcess;

/// Whether the error means that no space, or no quota, is left, or that files may not be as long.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests;
