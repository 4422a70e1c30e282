//! A locked file.
//!
//! Invariants:
//! 1. The whole file is locked for as long as a [`FileStorage`] lives, exclusively by a writer and
//!    shared by readers, and the path named this file when the lock was taken. So no other process
//!    that respects the lock writes to the file or truncates it.
//! 2. `len` is the length that this storage gave the file. A write is checked against it, because
//!    the system would silently extend the file instead.

use super::{Storage, StorageView, positioned};
use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often [`FileStorage::open`] retries because the file was replaced between opening and
/// locking it. Each retry needs another process that replaces the file in that moment, so a few
/// suffice.
const MAX_OPEN_ATTEMPTS: usize = 16;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading, together with other readers.
    Read,
    /// Reading and writing, exclusively.
    Write,
}

/// A file that is open and locked as a whole until it is closed or the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct FileStorage {
    shared: Arc<OpenFile>,
    /// The descriptor to flush through, if this is a separate handle.
    own: Option<Arc<File>>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    len: AtomicU64,
    /// Held while the length changes, so that two changes cannot interleave.
    resizing: Mutex<()>,
    /// Set for good when the system has refused a write with the data-sync flag.
    durable_writes_unsupported: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Closing the descriptor alone would keep the lock for as long as another process has
        // inherited it, for example between the fork and the exec of a child.
        let _ = self.file.unlock();
    }
}

impl FileStorage {
    /// Opens the file at `path`, which must exist, and locks it. Nothing is written to it.
    ///
    /// # Errors
    /// [`Error::Locked`] when it is open elsewhere, [`Error::NotCloakroom`] when it is not a
    /// regular file, and [`Error::Io`] otherwise; its source is `NotFound` when there is no such
    /// file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_for(path, Access::Write)
    }

    /// Opens the file at `path`, which must exist, for reading only, and locks it against writers.
    /// Any number of readers may have it open.
    ///
    /// # Errors
    /// As [`FileStorage::open`]; [`Error::Locked`] when it is open for writing elsewhere.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self> {
        Self::open_for(path, Access::Read)
    }

    fn open_for(path: &Path, access: Access) -> Result<Self> {
        for _ in 0..MAX_OPEN_ATTEMPTS {
            let file = open_regular(path, access)?;
            lock(&file, path, access)?;
            if is_named(&file, path) {
                return Self::from_locked(file, path);
            }
        }
        Err(Error::Locked { path: path.to_path_buf() })
    }

    /// Wraps a file that the caller has locked.
    pub(super) fn from_locked(file: File, path: &Path) -> Result<Self> {
        let len =
            file.metadata().map_err(|error| Error::io(context("examining", path), error))?.len();
        let shared = OpenFile {
            file,
            len: AtomicU64::new(len),
            resizing: Mutex::new(()),
            durable_writes_unsupported: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), own: None })
    }

    /// The descriptor through which this handle flushes.
    fn flushed(&self) -> &File {
        self.own.as_deref().unwrap_or(&self.shared.file)
    }

    /// The file itself, for its creation.
    pub(super) fn file(&self) -> &File {
        &self.shared.file
    }

    /// Asks the system to drop its cached pages of the file, so that the next read comes from the
    /// disk. Pages that are not flushed stay. Does nothing on systems without such a call.
    pub(crate) fn forget_cached(&self) {
        #[cfg(target_os = "linux")]
        {
            let _ = rustix::fs::fadvise(&self.shared.file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    /// Makes the bytes, the length and every other attribute of the file durable.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.shared.file.sync_all()
    }

    fn check_write(&self, offset: u64, len: usize) -> io::Result<()> {
        super::check_write(self.shared.len.load(Ordering::Acquire), offset, len)
    }
}

impl Storage for FileStorage {
    fn len(&self) -> io::Result<u64> {
        // Read from the system, to notice a file that was shortened in spite of the lock.
        Ok(self.shared.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // An offset that the system cannot express is beyond the end, like any other.
        super::check_read(i64::MAX as u64, offset, buf.len())?;
        positioned::read_exact(&self.shared.file, offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write(offset, data.len())?;
        positioned::write_all(&self.shared.file, offset, data)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write(offset, data.len())?;
        if !self.shared.durable_writes_unsupported.load(Ordering::Relaxed) {
            match positioned::write_all_durable(self.flushed(), offset, data) {
                // The flag is newer than the system call, and a filesystem may support neither.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
                    ) =>
                {
                    self.shared.durable_writes_unsupported.store(true, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        positioned::write_all(&self.shared.file, offset, data)?;
        self.flushed().sync_data()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.flushed().sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _resizing = self.shared.resizing.lock();
        let old_len = self.shared.file.metadata()?.len();
        if len < old_len {
            // `len` is reduced first, so that no write passes the check and extends the file again.
            self.shared.len.store(len, Ordering::Release);
            if let Err(error) = self.shared.file.set_len(len) {
                self.shared.len.store(old_len, Ordering::Release);
                return Err(error);
            }
        } else if len > old_len {
            reserve(&self.shared.file, old_len, len)?;
            self.shared.len.store(len, Ordering::Release);
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "a memory map needs it; the file lock makes it sound")]
    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        // A read of a map beyond the end of the file would fault.
        super::check_read(self.len()?, offset, len)?;
        if len == 0 {
            return Ok(StorageView::Owned(Vec::new()));
        }
        let mut options = memmap2::MmapOptions::new();
        options.offset(offset).len(len);
        // SAFETY: the map is read-only and is within the file (checked above). Its bytes do not
        // change and the file is not shortened while it lives: within this process by the contract
        // of `Storage::view`, and by others because the whole file is locked for as long as this
        // storage is open: exclusively, or shared with openers who cannot write.
        let map = unsafe { options.map(&self.shared.file) }?;
        Ok(StorageView::Mapped(map))
    }

    /// Linux reports a failed write-back once to each open file description. If two concurrent
    /// flushes shared one description, one of them would take lost writes for durable.
    fn separate(&self) -> io::Result<Option<Arc<dyn Storage>>> {
        let own = Arc::new(open_again(&self.shared.file)?);
        Ok(Some(Arc::new(Self { shared: Arc::clone(&self.shared), own: Some(own) })))
    }

    fn is_at(&self, path: &Path) -> bool {
        is_named(&self.shared.file, path)
    }

    fn close(&self) {
        // After an error the lock is released when the last clone is dropped.
        let _ = self.shared.file.unlock();
    }
}

/// The context of an error: the operation and the file.
pub(super) fn context(doing: &str, path: &Path) -> String {
    format!("{doing} {}", path.display())
}

/// Opens a regular file. The error says why it cannot be opened.
pub(super) fn open_regular(path: &Path, access: Access) -> Result<File> {
    let failed = |error| open_error(path, access, error);
    // Checked before opening, because opening some kinds of file (a tape, a serial line) has an
    // effect.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(not_regular(path, &metadata));
    }
    let file =
        OpenOptions::new().read(true).write(access == Access::Write).open(path).map_err(failed)?;
    // Checked again for the opened file, because the path may name another file by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(not_regular(path, &metadata));
    }
    Ok(file)
}

fn not_regular(path: &Path, metadata: &fs::Metadata) -> Error {
    let reason = if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" };
    Error::NotCloakroom { path: path.to_path_buf(), reason: reason.to_owned() }
}

fn open_error(path: &Path, access: Access, error: io::Error) -> Error {
    let advice = match (error.kind(), access) {
        (io::ErrorKind::PermissionDenied, Access::Write) => {
            " (a room needs read and write permission, unless it is opened read-only)"
        }
        (io::ErrorKind::ReadOnlyFilesystem, Access::Write) => {
            " (this filesystem is read-only; open the room read-only, or copy the file to a writable filesystem)"
        }
        _ => "",
    };
    Error::io(format!("{}{advice}", context("opening", path)), error)
}

/// Locks the whole file without waiting: exclusively to write, shared to read.
pub(super) fn lock(file: &File, path: &Path, access: Access) -> Result<()> {
    let locked = match access {
        Access::Read => file.try_lock_shared(),
        Access::Write => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(Error::io(context("locking", path), error)),
    }
}

/// Whether `path` names this file. A lock on a file that was renamed or removed in the meantime
/// protects nothing.
#[cfg(unix)]
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

/// Whether `path` names this file. On this system an open file can be neither renamed nor removed.
#[cfg(not(unix))]
pub(super) fn is_named(_file: &File, path: &Path) -> bool {
    path.exists()
}

/// Grows the file from `old_len` to `len`, reserving the space where the filesystem can.
#[cfg(target_os = "linux")]
fn reserve(file: &File, old_len: u64, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::{Errno, retry_on_intr};
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), old_len, len - old_len)) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(len),
        Err(errno) => {
            // A reservation that found the disk full may have extended the file in part. If undoing
            // that fails too, zeros stay at the end, and the next growth includes them.
            let _ = file.set_len(old_len);
            Err(errno.into())
        }
    }
}

/// Grows the file. This system cannot reserve space.
#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, _old_len: u64, len: u64) -> io::Result<()> {
    file.set_len(len)
}

/// Opens the same file again. The result is another open file description if the system can open it
/// whatever its path is by now, and otherwise another handle of the same description.
fn open_again(file: &File) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        if let Ok(again) = File::options().read(true).write(true).open(by_descriptor) {
            return Ok(again);
        }
    }
    file.try_clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn room(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn source_kind(error: &Error) -> io::ErrorKind {
        match error {
            Error::Io { source, .. } => source.kind(),
            other => panic!("not an I/O error: {other}"),
        }
    }

    #[test]
    fn a_file_storage_satisfies_the_contract_of_a_storage() {
        let (_dir, path) = room(b"");
        crate::storage::contract::check(&FileStorage::open(&path).unwrap());
    }

    #[test]
    fn durable_writes_fall_back_to_write_and_flush() {
        let (_dir, path) = room(&[0; 16]);
        let storage = FileStorage::open(&path).unwrap();
        storage.shared.durable_writes_unsupported.store(true, Ordering::Relaxed);
        storage.write_at_durable(4, b"abcd").unwrap();
        assert_eq!(&fs::read(&path).unwrap()[..10], b"\0\0\0\0abcd\0\0");
        assert_eq!(
            storage.write_at_durable(14, b"abcd").unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "the bound is checked before the fallback"
        );
        assert_eq!(fs::metadata(&path).unwrap().len(), 16);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_refused_write_out_of_bounds_does_not_switch_to_the_fallback() {
        let (_dir, path) = room(&[0; 16]);
        let storage = FileStorage::open(&path).unwrap();
        storage.write_at_durable(14, b"abcd").unwrap_err();
        assert!(!storage.shared.durable_writes_unsupported.load(Ordering::Relaxed));
    }

    #[test]
    fn readers_share_a_file_and_a_writer_has_it_exclusively() {
        let (_dir, path) = room(b"read by many");
        let locked = |outcome: Result<FileStorage>| matches!(outcome, Err(Error::Locked { .. }));
        let first = FileStorage::open_read_only(&path).unwrap();
        let second = FileStorage::open_read_only(&path).unwrap();
        assert!(locked(FileStorage::open(&path)));
        drop(first);
        assert!(locked(FileStorage::open(&path)), "the second reader still has it open");
        drop(second);
        let writer = FileStorage::open(&path).unwrap();
        assert!(locked(FileStorage::open_read_only(&path)));
        drop(writer);
        FileStorage::open_read_only(&path).unwrap();
    }

    #[test]
    fn the_system_refuses_to_change_a_file_opened_read_only() {
        let (_dir, path) = room(b"read only");
        let storage = FileStorage::open_read_only(&path).unwrap();
        storage.write_at(0, b"R").unwrap_err();
        storage.write_at_durable(0, b"R").unwrap_err();
        storage.set_len(4).unwrap_err();
        storage.set_len(4_096).unwrap_err();
        assert_eq!(&storage.view(0, 9).unwrap()[..], b"read only");
        assert_eq!(fs::read(&path).unwrap(), b"read only");
    }

    #[test]
    fn a_second_open_fails_with_the_path() {
        let (_dir, path) = room(b"x");
        let first = FileStorage::open(&path).unwrap();
        match FileStorage::open(&path) {
            Err(Error::Locked { path: named }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(FileStorage::open(&path).is_ok());
    }

    #[test]
    fn a_missing_file_is_not_found_and_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.cloak");
        let error = FileStorage::open(&path).unwrap_err();
        assert_eq!(source_kind(&error), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("none.cloak"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_or_a_device_is_not_a_room() {
        let dir = tempfile::tempdir().unwrap();
        let error = FileStorage::open(dir.path()).unwrap_err();
        assert!(
            matches!(&error, Error::NotCloakroom { reason, .. } if reason == "it is a directory"),
            "{error}"
        );
        #[cfg(unix)]
        {
            let error = FileStorage::open(Path::new("/dev/null")).unwrap_err();
            let expected = "it is not a regular file";
            assert!(
                matches!(&error, Error::NotCloakroom { reason, .. } if reason == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_may_not_be_written_is_refused_with_advice() {
        for (kind, advice) in [
            (io::ErrorKind::PermissionDenied, "read and write permission"),
            (io::ErrorKind::ReadOnlyFilesystem, "copy the file"),
        ] {
            let error = open_error(Path::new("edge.cloak"), Access::Write, kind.into());
            assert_eq!(source_kind(&error), kind);
            assert!(error.to_string().contains(advice), "{error}");
            assert!(error.to_string().contains("read-only"), "{error}");
            let reading = open_error(Path::new("edge.cloak"), Access::Read, kind.into());
            assert!(!reading.to_string().contains("read-only, "), "{reading}");
            assert!(!reading.to_string().contains(advice), "{reading}");
            assert!(error.to_string().contains("opening edge.cloak"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_replaced_is_no_longer_named_by_its_path() {
        let (_dir, path) = room(b"old");
        let file = open_regular(&path, Access::Write).unwrap();
        assert!(is_named(&file, &path));
        fs::rename(&path, path.with_extension("moved")).unwrap();
        assert!(!is_named(&file, &path));
        fs::write(&path, b"new").unwrap();
        assert!(!is_named(&file, &path));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn growth_reserves_its_blocks() {
        use std::os::unix::fs::MetadataExt;
        let (dir, path) = room(b"");
        let storage = FileStorage::open(&path).unwrap();
        // Another file shows whether this filesystem can reserve space.
        let probe = File::create(dir.path().join("probe")).unwrap();
        let flags = rustix::fs::FallocateFlags::empty();
        if rustix::fs::fallocate(&probe, flags, 0, 1 << 20).is_err() {
            return;
        }
        storage.set_len(1 << 20).unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn growth_that_fails_leaves_the_length() {
        let (_dir, path) = room(b"abc");
        let storage = FileStorage::open(&path).unwrap();
        assert!(storage.set_len(i64::MAX as u64).is_err());
        assert_eq!(storage.len().unwrap(), 3);
        assert!(
            storage.write_at(3, b"d").is_err(),
            "the length changed although the growth failed"
        );
        storage.write_at(0, b"x").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_separate_handle_sees_the_same_file_and_leaves_the_lock_to_the_first() {
        let (_dir, path) = room(&[0; 4096]);
        let first = FileStorage::open(&path).unwrap();
        let second = first.separate().unwrap().unwrap();
        second.set_len(8192).unwrap();
        second.write_at_durable(5000, b"second").unwrap();
        second.sync_data().unwrap();
        let mut read = [0; 6];
        first.read_at(5000, &mut read).unwrap();
        assert_eq!((&read, first.len().unwrap()), (b"second", 8192));
        first.write_at(0, b"first").unwrap();
        let mut read = [0; 5];
        second.read_at(0, &mut read).unwrap();
        assert_eq!(&read, b"first");
        assert!(matches!(FileStorage::open(&path), Err(Error::Locked { .. })));
        first.close();
        assert!(FileStorage::open(&path).is_ok());
    }

    #[test]
    fn views_are_maps_at_any_offset() {
        let bytes: Vec<u8> = (0..3 * 4096_u32).map(|index| (index % 251) as u8).collect();
        let (_dir, path) = room(&bytes);
        let storage = FileStorage::open(&path).unwrap();
        for offset in [0, 1, 4095, 4096, 5000] {
            let view = storage.view(offset as u64, 6000).unwrap();
            assert!(matches!(view, StorageView::Mapped(_)));
            assert_eq!(&view[..], &bytes[offset..offset + 6000]);
        }
    }
}
