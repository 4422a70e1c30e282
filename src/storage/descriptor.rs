//! How a forked child gives up a file that its parent has open.

use std::fs::File;

/// Makes the descriptor of `file` lead nowhere. The child's copy of it keeps the parent's lock, and
/// the file itself, for as long as the child lives; giving up the lock would take it from the
/// parent, because both share it. It cannot simply be closed while values refer to it that nothing
/// drops: those of threads that the child does not have.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "only a forked child does this, where no thread uses the descriptor"
)]
pub(super) fn lead_nowhere(file: &File) {
    use rustix::io::{FdFlags, dup2, fcntl_setfd};
    use std::mem::ManuallyDrop;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let Ok(nowhere) = File::open("/dev/null").or_else(|_| File::open("/")) else { return };
    // SAFETY: the descriptor is open, because `file` owns it, and the second owner is never
    // dropped. Nothing relies on what it refers to: in a forked child every call of the storage
    // is refused before it uses the descriptor.
    let mut descriptor = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(file.as_raw_fd()) });
    if dup2(&nowhere, &mut descriptor).is_ok() {
        let _ = fcntl_setfd(&*descriptor, FdFlags::CLOEXEC);
    }
}

/// This system has no forked children.
#[cfg(not(unix))]
pub(super) fn lead_nowhere(_file: &File) {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_file_is_no_longer_behind_the_descriptor_and_its_lock_stays_with_the_other_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        std::fs::write(&path, b"content").unwrap();
        let parent = File::open(&path).unwrap();
        parent.try_lock().unwrap();
        // As after a fork, both have one description and so one lock.
        let mut child = parent.try_clone().unwrap();
        lead_nowhere(&child);
        let mut read = Vec::new();
        assert!(child.read_to_end(&mut read).is_err() || read.is_empty());
        drop(child);
        assert!(File::open(&path).unwrap().try_lock().is_err(), "the lock was given up");
        drop(parent);
        File::open(&path).unwrap().try_lock().unwrap();
    }
}
