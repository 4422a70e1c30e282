//! The directory of a file, and the names in it.

#[cfg(unix)]
use super::positioned::is_refused;
#[cfg(unix)]
use super::system_call::{SystemCall, admit};
use std::ffi::OsStr;
#[cfg(unix)]
use std::fs::File;
use std::io;
use std::path::Path;

/// The directory and the name of the file within it.
pub(super) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name")
    })?;
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((dir, name))
}

/// Makes the names in a directory durable. `false` when the system refuses that: some filesystems
/// have no flush of a directory, and a directory may be closed to readers.
#[cfg(unix)]
pub(super) fn sync_dir(dir: &Path) -> io::Result<bool> {
    /// "Bad file descriptor", the answer of filesystems that cannot flush what is open for reading.
    const EBADF: i32 = 9;
    let flushed = admit(SystemCall::FsyncDirectory, 0).and_then(|_| File::open(dir)?.sync_all());
    match flushed {
        Ok(()) => Ok(true),
        Err(error)
            if is_refused(&error)
                || error.kind() == io::ErrorKind::IsADirectory
                || error.raw_os_error() == Some(EBADF) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Makes the names in a directory durable. This system does so by itself.
#[cfg(not(unix))]
pub(super) fn sync_dir(_dir: &Path) -> io::Result<bool> {
    Ok(true)
}
