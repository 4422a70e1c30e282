//! What to do after the log has failed: reopening is right after most failures, and wrong while a
//! room waits for space or when its file is no longer whole.

use std::io;

/// Why the content of a file is not whole any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the file has {found} bytes instead of {expected}: another program cut it short while it was open"
)]
pub(crate) struct CutFile {
    pub(crate) found: u64,
    pub(crate) expected: u64,
}

/// Whether that is what a call of the system, or a log, failed with.
pub(crate) fn is_cut(failure: &io::Error) -> bool {
    failure.get_ref().is_some_and(|inner| inner.is::<CutFile>())
}

/// Why callers wait for the log: the disk is too full for what was appended, which stays to be
/// written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FullDisk(pub(crate) String);

/// What a caller is told that waited for the log.
pub(super) fn unknown(failure: &io::Error) -> String {
    if failure.get_ref().is_some_and(|inner| inner.is::<FullDisk>()) {
        return format!(
            "the disk has been too full for the log for too long ({failure}); the change is visible, and durable as \
             soon as there is space: free some, the room goes on by itself"
        );
    }
    let way_on = if is_cut(failure) { poisoned(failure) } else { "reopen the file and check" };
    format!(
        "the log failed while this call waited for it ({failure}); the change may or may not survive; {way_on}"
    )
}

/// What a caller is told of a room whose log has failed.
pub(crate) fn poisoned(failure: &io::Error) -> &'static str {
    if is_cut(failure) {
        "close the room, and salvage the file or restore a backup"
    } else {
        "reopen the file to recover"
    }
}
