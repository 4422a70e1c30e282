//! The lock of a whole file, by which one room has one writer.

use crate::error::{Error, Result};
use std::fs::File;
use std::io;
use std::path::Path;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading, together with other readers.
    Read,
    /// Reading and writing, exclusively.
    Write,
}

/// The context of an error: the operation and the file.
pub(super) fn context(doing: &str, path: &Path) -> String {
    format!("{doing} {}", path.display())
}

/// Locks the whole file without waiting: exclusively to write, shared to read.
///
/// # Errors
/// [`Error::Locked`], and [`Error::Io`] on a file system that cannot lock.
pub(super) fn lock(file: &File, path: &Path, access: Access) -> Result<()> {
    try_lock(file, access).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { path: path.to_path_buf() },
        _ => lock_error(path, error),
    })
}

fn lock_error(path: &Path, error: io::Error) -> Error {
    /// "No locks available": of a network file system without a lock service.
    const ENOLCK: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 37 } else { 77 };
    let cannot_lock =
        error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK);
    let advice = if cannot_lock {
        " (this file system does not lock files, and without a lock two programs could write one room; \
         keep it on a file system that does, such as a local disk)"
    } else {
        ""
    };
    Error::io(format!("{}{advice}", context("locking", path)), error)
}

/// The standard library's lock is not used, because on Android it was missing before Rust 1.98.
#[cfg(unix)]
fn try_lock(file: &File, access: Access) -> io::Result<()> {
    use rustix::fs::{FlockOperation, flock};
    let operation = match access {
        Access::Read => FlockOperation::NonBlockingLockShared,
        Access::Write => FlockOperation::NonBlockingLockExclusive,
    };
    Ok(rustix::io::retry_on_intr(|| flock(file, operation))?)
}

#[cfg(not(unix))]
fn try_lock(file: &File, access: Access) -> io::Result<()> {
    match access {
        Access::Read => file.try_lock_shared(),
        Access::Write => file.try_lock(),
    }
    .map_err(io::Error::from)
}

/// Gives the lock up, for every descriptor that a child has inherited, too.
#[cfg(unix)]
pub(super) fn unlock(file: &File) {
    let _ =
        rustix::io::retry_on_intr(|| rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock));
}

/// Gives the lock up.
#[cfg(not(unix))]
pub(super) fn unlock(file: &File) {
    let _ = file.unlock();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers_have_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        std::fs::write(&path, b"").unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        let refused = |access| matches!(lock(&second, &path, access), Err(Error::Locked { .. }));
        lock(&first, &path, Access::Read).unwrap();
        assert!(refused(Access::Write));
        lock(&second, &path, Access::Read).unwrap();
        unlock(&second);
        unlock(&first);
        lock(&first, &path, Access::Write).unwrap();
        assert!(refused(Access::Read) && refused(Access::Write));
        // It excludes users of the standard library's lock, too.
        #[cfg(unix)]
        assert!(second.try_lock().is_err());
        unlock(&first);
        lock(&second, &path, Access::Write).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_refused_with_advice() {
        #[cfg(target_os = "linux")]
        for errno in
            [rustix::io::Errno::NOLCK, rustix::io::Errno::NOSYS, rustix::io::Errno::OPNOTSUPP]
        {
            let error = lock_error(Path::new("edge.cloak"), errno.into());
            assert!(error.to_string().contains("local disk"), "{error}");
            assert!(error.to_string().contains("edge.cloak"), "{error}");
        }
        let other = lock_error(Path::new("edge.cloak"), io::Error::other("broken"));
        assert!(!other.to_string().contains("local disk"), "{other}");
    }
}
