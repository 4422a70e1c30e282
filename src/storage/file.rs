//! A locked file.
//!
//! Invariants:
//! 1. The whole file is locked for as long as a [`FileStorage`] lives, exclusively by a writer and
//!    shared by readers, and the path named this file when the lock was taken. So no other process
//!    that respects the lock writes to the file or truncates it.
//! 2. `len` is the length that this storage gave the file. A write is checked against it, because
//!    the system would silently extend the file instead.

use super::descriptor::lead_nowhere;
use super::fallback::{Fallback, FallbackCounts, Fallbacks};
use super::lock::{Access, context, lock, unlock};
use super::name::{FileName, is_named};
use super::system_call::{SystemCall, admit};
use super::unreadable::read_or_name_the_block;
use super::{Storage, StorageView, holes, length, positioned};
use crate::error::{Error, Result};
use crate::process::HomeProcess;
use crate::sync::plain::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// How often [`FileStorage::open`] retries because the file was replaced between opening and
/// locking it. Each retry needs another process that replaces the file in that moment, so a few
/// suffice.
const MAX_OPEN_ATTEMPTS: usize = 16;

/// How much is read at a time by a read whose bytes are not kept.
const READ_THROUGH_BYTES: usize = 256 << 10;

/// How often a reservation of space is tried again that a signal interrupted. Some filesystems
/// begin from the start then, so that a process with a timer would never get to the end.
#[cfg(target_os = "linux")]
const MAX_INTERRUPTIONS: usize = 16;

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
    /// Set for good when the system has refused to flush the content alone.
    data_flushes_unsupported: AtomicBool,
    fallbacks: Fallbacks,
    name: FileName,
    /// The process that has it open. A fork of it has the descriptors, too, and uses none.
    home: HomeProcess,
    /// The descriptors of the separate handles.
    separate: Mutex<Vec<Weak<File>>>,
    /// Whether a forked child has given it up.
    abandoned: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Closing the descriptor alone would keep the lock for as long as another process has
        // inherited it, for example between the fork and the exec of a child. A forked child only
        // closes its copy, because the lock is the parent's.
        if !self.home.has_forked() {
            unlock(&self.file);
        }
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
            name: FileName::new(&file, path),
            file,
            len: AtomicU64::new(len),
            resizing: Mutex::new(()),
            durable_writes_unsupported: AtomicBool::new(false),
            data_flushes_unsupported: AtomicBool::new(false),
            fallbacks: Fallbacks::default(),
            home: HomeProcess::current(),
            separate: Mutex::default(),
            abandoned: AtomicBool::new(false),
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
        self.here()?;
        admit(SystemCall::Fsync, 0)?;
        self.shared.file.sync_all()
    }

    /// Counts another way that was taken for this file.
    pub(super) fn count(&self, fallback: Fallback) {
        self.shared.fallbacks.count(fallback);
    }

    /// Makes the bytes and the length durable, and every other attribute too if the system knows
    /// no less.
    fn flush(&self) -> io::Result<()> {
        let shared = &self.shared;
        if !shared.data_flushes_unsupported.load(Ordering::Relaxed) {
            match admit(SystemCall::Fdatasync, 0).and_then(|_| self.flushed().sync_data()) {
                Err(error) if positioned::is_refused(&error) => {
                    shared.data_flushes_unsupported.store(true, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        self.count(Fallback::Flush);
        admit(SystemCall::Fsync, 0)?;
        self.flushed().sync_all()
    }

    /// Reads a part of the file and keeps none of it.
    fn read_through(&self, offset: u64, len: usize) -> io::Result<()> {
        let mut part = vec![0; len.min(READ_THROUGH_BYTES)];
        let (mut at, end) = (offset, offset + len as u64);
        // What no disk has cannot be unreadable.
        while let Some((from, to)) = holes::next_data(&self.shared.file, at, end) {
            at = from;
            while at < to {
                let left = usize::try_from(to - at).unwrap_or(usize::MAX);
                let step = part.len().min(left);
                self.read_at(at, part.get_mut(..step).unwrap_or_default())?;
                at += step as u64;
            }
        }
        Ok(())
    }

    /// Changes the length. `grow` makes the file of the length before longer.
    fn resize(&self, len: u64, grow: impl FnOnce(&File, u64) -> io::Result<()>) -> io::Result<()> {
        self.here()?;
        let _resizing = self.shared.resizing.lock();
        let old_len = length::of(&self.shared.file)?;
        super::check_not_cut(&self.shared.len, old_len)?;
        if len < old_len {
            // `len` is reduced first, so that no write passes the check and extends the file again.
            self.shared.len.store(len, Ordering::Release);
            if let Err(error) = set_file_len(&self.shared.file, len) {
                self.shared.len.store(old_len, Ordering::Release);
                return Err(error);
            }
        } else if len > old_len {
            grow(&self.shared.file, old_len)?;
            self.shared.len.store(len, Ordering::Release);
        }
        Ok(())
    }

    /// Reads a part of the file. Too little memory is an error, not an abort.
    fn read_into_memory(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(len, 0);
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Refuses a call in a fork of the process that opened the file.
    fn here(&self) -> io::Result<()> {
        self.shared.home.check_call()
    }

    fn check_write(&self, offset: u64, len: usize) -> io::Result<()> {
        self.here()?;
        super::check_write(self.shared.len.load(Ordering::Acquire), offset, len)
    }
}

impl FileStorage {
    /// Whether the file still has its length. A change of the length that is under way is waited
    /// for before it is taken for a fault.
    fn check_not_cut(&self) -> io::Result<()> {
        let OpenFile { file, len, resizing, .. } = &*self.shared;
        let check = || super::check_not_cut(len, length::of(file)?);
        check().or_else(|_| {
            let _resizing = resizing.lock();
            check()
        })
    }
}

impl Storage for FileStorage {
    fn len(&self) -> io::Result<u64> {
        self.here()?;
        // Read from the system, to notice a file that was shortened in spite of the lock.
        length::of(&self.shared.file)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.here()?;
        // An offset that the system cannot express is beyond the end, like any other.
        super::check_read(i64::MAX as u64, offset, buf.len())?;
        let file = &self.shared.file;
        read_or_name_the_block(offset, buf, |at, part| positioned::read_exact(file, at, part))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write(offset, data.len())?;
        positioned::write_all(&self.shared.file, offset, data)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write(offset, data.len())?;
        self.check_not_cut()?;
        if !self.shared.durable_writes_unsupported.load(Ordering::Relaxed) {
            match positioned::write_all_durable(self.flushed(), offset, data) {
                // The flag is newer than the system call, a filesystem may support neither, and a
                // filter of system calls may know neither.
                Err(error) if positioned::is_refused(&error) => {
                    self.shared.durable_writes_unsupported.store(true, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        self.count(Fallback::DurableWrite);
        positioned::write_all(&self.shared.file, offset, data)?;
        self.flush()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.here()?;
        self.check_not_cut()?;
        self.flush()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len, |file, old_len| {
            if !reserve(file, old_len, len)? {
                self.count(Fallback::Reservation);
            }
            Ok(())
        })
    }

    fn grow_unreserved(&self, len: u64) -> io::Result<()> {
        self.resize(len, |file, _| set_file_len(file, len))
    }

    fn data_len(&self, offset: u64, len: usize) -> usize {
        let (mut at, end) = (offset, offset.saturating_add(len as u64));
        let mut data_end = offset;
        while let Some((_, to)) = holes::next_data(&self.shared.file, at, end) {
            (at, data_end) = (to, to);
        }
        usize::try_from(data_end - offset).unwrap_or(len)
    }

    fn release(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        holes::punch(&self.shared.file, offset, len)
    }

    #[expect(unsafe_code, reason = "a memory map needs it; the file lock makes it sound")]
    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        // A read of a map beyond the end of the file would fault.
        super::check_read(self.len()?, offset, len)?;
        if len == 0 {
            return Ok(StorageView::Owned(Vec::new()));
        }
        // So would a read of a sector that the disk cannot read. Reading it now makes that an
        // error, and leaves the bytes in the system's cache, from which the map has them.
        self.read_through(offset, len)?;
        // So would a look at a hole of a tmpfs that is full, because the map needs a page for it.
        if holes::next_hole(&self.shared.file, offset, offset + len as u64).is_some() {
            self.count(Fallback::Map);
            return Ok(StorageView::Owned(self.read_into_memory(offset, len)?));
        }
        let mut options = memmap2::MmapOptions::new();
        options.offset(offset).len(len);
        // SAFETY: the map is read-only and is within the file (checked above). Its bytes do not
        // change and the file is not shortened while it lives: within this process by the contract
        // of `Storage::view`, and by others because the whole file is locked for as long as this
        // storage is open: exclusively, or shared with openers who cannot write.
        let map =
            admit(SystemCall::Mmap, 0).and_then(|_| unsafe { options.map(&self.shared.file) });
        let Ok(map) = map else {
            // Filesystems without maps, filters of system calls, and too little address space.
            self.count(Fallback::Map);
            return Ok(StorageView::Owned(self.read_into_memory(offset, len)?));
        };
        // A process that ignores the lock may have shortened the file meanwhile.
        super::check_read(self.len()?, offset, len)?;
        Ok(StorageView::Mapped(map))
    }

    fn fill_holes(&self, offset: u64, len: u64) -> io::Result<u64> {
        holes::fill(&self.shared.file, offset, len, |at, zeros| self.write_at(at, zeros))
    }

    fn fallbacks(&self) -> FallbackCounts {
        self.shared.fallbacks.counts()
    }

    /// Linux reports a failed write-back once to each open file description. If two concurrent
    /// flushes shared one description, one of them would take lost writes for durable.
    fn separate(&self) -> io::Result<Option<Arc<dyn Storage>>> {
        let Some(own) = open_again(&self.shared.file)? else {
            self.count(Fallback::SharedDescription);
            return Ok(None);
        };
        let own = Arc::new(own);
        self.shared.separate.lock().push(Arc::downgrade(&own));
        Ok(Some(Arc::new(Self { shared: Arc::clone(&self.shared), own: Some(own) })))
    }

    fn is_at(&self, path: &Path) -> bool {
        is_named(&self.shared.file, path)
    }

    fn check_length(&self) -> io::Result<()> {
        self.here()?;
        self.check_not_cut()
    }

    fn lost_name(&self) -> Option<PathBuf> {
        self.shared.name.lost(&self.shared.file)
    }

    fn close(&self) {
        // After an error the lock is released when the last clone is dropped.
        if !self.shared.home.has_forked() {
            unlock(&self.shared.file);
        }
    }

    fn abandon(&self) {
        let shared = &*self.shared;
        if !shared.home.has_forked() || shared.abandoned.swap(true, Ordering::Relaxed) {
            return;
        }
        lead_nowhere(&shared.file);
        // A thread that the child does not have may hold the lock for ever.
        let separate = shared.separate.try_lock();
        for file in separate.iter().flat_map(|files| files.iter().filter_map(Weak::upgrade)) {
            lead_nowhere(&file);
        }
    }
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

/// Grows the file from `old_len` to `len`. Answers whether its space is reserved; the filesystem
/// may not be able to.
#[cfg(target_os = "linux")]
fn reserve(file: &File, old_len: u64, len: u64) -> io::Result<bool> {
    use rustix::fs::{FallocateFlags, fallocate};
    let mut interruptions = 0;
    loop {
        let reserved = admit(SystemCall::Fallocate, 0)
            .and_then(|_| Ok(fallocate(file, FallocateFlags::empty(), old_len, len - old_len)?));
        match reserved {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                interruptions += 1;
                if interruptions < MAX_INTERRUPTIONS {
                    continue;
                }
            }
            Err(error) if positioned::is_refused(&error) => {}
            Err(error) => {
                // A reservation that found the disk full may have extended the file in part. If
                // undoing that fails too, zeros stay at the end, and the next growth includes them.
                let _ = set_file_len(file, old_len);
                return Err(error);
            }
        }
        return set_file_len(file, len).map(|()| false);
    }
}

/// Grows the file. This system cannot reserve space.
#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, _old_len: u64, len: u64) -> io::Result<bool> {
    set_file_len(file, len).map(|()| false)
}

fn set_file_len(file: &File, len: u64) -> io::Result<()> {
    admit(SystemCall::Ftruncate, 0)?;
    file.set_len(len)
}

/// Opens the same file again: another open file description of it. `None` when the system cannot
/// open it whatever its path is by now.
#[cfg(target_os = "linux")]
fn open_again(file: &File) -> io::Result<Option<File>> {
    use std::os::fd::AsRawFd;
    let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = admit(SystemCall::Reopen, 0)
        .and_then(|_| File::options().read(true).write(true).open(by_descriptor));
    Ok(opened.ok())
}

/// Another handle of the same file. How this system reports a failed flush is not documented.
#[cfg(not(target_os = "linux"))]
fn open_again(file: &File) -> io::Result<Option<File>> {
    file.try_clone().map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::system_call::{Injected, inject};
    use super::super::unreadable::UnreadableBlock;
    use super::*;

    const EPERM: i32 = 1;
    const EINTR: i32 = 4;
    const EIO: i32 = 5;
    const EAGAIN: i32 = 11;
    const ENOMEM: i32 = 12;
    const EACCES: i32 = 13;
    const ENODEV: i32 = 19;
    const EINVAL: i32 = 22;
    const ENOSPC: i32 = 28;
    const ENOSYS: i32 = 38;
    const EOPNOTSUPP: i32 = 95;

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
    fn a_durable_write_that_the_system_refuses_is_a_write_and_a_flush_from_then_on() {
        for errno in [EPERM, EACCES, EINVAL, ENOSYS, EOPNOTSUPP] {
            let (_dir, path) = room(&[0; 16]);
            let storage = FileStorage::open(&path).unwrap();
            let refused = inject(SystemCall::Pwritev2, 0, 9, Injected::Errno(errno));
            let flushed = inject(SystemCall::Fdatasync, 0, 9, Injected::Short(0));
            storage.write_at_durable(4, b"abcd").unwrap();
            storage.write_at_durable(8, b"efgh").unwrap();
            assert_eq!((refused.met(), flushed.met()), (1, 2), "{errno}");
            assert_eq!(storage.fallbacks().durable_writes, 2);
            assert_eq!(&fs::read(&path).unwrap(), b"\0\0\0\0abcdefgh\0\0\0\0");
        }
        for errno in [EIO, ENOSPC] {
            let (_dir, path) = room(&[0; 16]);
            let storage = FileStorage::open(&path).unwrap();
            let _failed = inject(SystemCall::Pwritev2, 0, 1, Injected::Errno(errno));
            storage.write_at_durable(4, b"abcd").unwrap_err();
            assert_eq!(storage.fallbacks(), FallbackCounts::default());
        }
    }

    #[test]
    fn a_flush_of_the_content_that_the_system_refuses_flushes_everything() {
        for errno in [EPERM, EINVAL, ENOSYS, EOPNOTSUPP] {
            let (_dir, path) = room(&[0; 16]);
            let storage = FileStorage::open(&path).unwrap();
            let refused = inject(SystemCall::Fdatasync, 0, 9, Injected::Errno(errno));
            storage.sync_data().unwrap();
            storage.sync_data().unwrap();
            assert_eq!((refused.met(), storage.fallbacks().flushes), (1, 2), "{errno}");
        }
        let (_dir, path) = room(&[0; 16]);
        let storage = FileStorage::open(&path).unwrap();
        let failed = inject(SystemCall::Fdatasync, 0, 9, Injected::Errno(EIO));
        storage.sync_data().unwrap_err();
        assert_eq!((failed.met(), storage.fallbacks()), (1, FallbackCounts::default()));
    }

    #[test]
    fn short_interrupted_and_busy_calls_are_made_again() {
        let (_dir, path) = room(&[0; 64]);
        let storage = FileStorage::open(&path).unwrap();
        let text = b"a write that is made in many parts";
        let mut read = vec![0; text.len()];
        for answer in [
            Injected::Short(1),
            Injected::Short(7),
            Injected::Errno(EINTR),
            Injected::Errno(EAGAIN),
            Injected::Errno(ENOMEM),
        ] {
            let answers = [SystemCall::Pwrite, SystemCall::Pwritev2, SystemCall::Pread]
                .map(|call| inject(call, 0, 5, answer));
            storage.write_at(3, text).unwrap();
            storage.write_at_durable(5, text).unwrap();
            storage.read_at(5, &mut read).unwrap();
            assert_eq!(read, text, "{answer:?}");
            assert!(answers[0].met() >= 5 && answers[2].met() >= 5, "{answer:?}");
        }
        let _busy = inject(SystemCall::Pwrite, 0, 1_000, Injected::Errno(EAGAIN));
        assert_eq!(storage.write_at(3, text).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let _nothing = inject(SystemCall::Pread, 0, 1, Injected::Short(0));
        assert_eq!(storage.read_at(5, &mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_that_cannot_be_mapped_is_read_into_memory() {
        for errno in [EPERM, EAGAIN, ENOMEM, EACCES, ENODEV, EINVAL, ENOSYS] {
            let (_dir, path) = room(b"not to be mapped");
            let storage = FileStorage::open(&path).unwrap();
            let _refused = inject(SystemCall::Mmap, 0, 1, Injected::Errno(errno));
            let view = storage.view(4, 5).unwrap();
            assert!(matches!(view, StorageView::Owned(_)), "{errno}");
            assert_eq!((&view[..], storage.fallbacks().maps), (&b"to be"[..], 1));
        }
    }

    #[test]
    fn a_block_that_cannot_be_read_is_found_before_it_is_mapped() {
        let (_dir, path) = room(&[7; 5 * 4096]);
        let storage = FileStorage::open(&path).unwrap();
        // The whole range, then block by block up to the third.
        let _first = inject(SystemCall::Pread, 0, 1, Injected::Errno(EIO));
        let _third = inject(SystemCall::Pread, 3, 1, Injected::Errno(EIO));
        let error = storage.view(100, 20_000).unwrap_err();
        assert_eq!(UnreadableBlock::of(&error).unwrap().offset, 8192, "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn growth_without_a_reservation_is_counted_and_a_full_disk_leaves_the_length() {
        for (errno, times) in [(EPERM, 1), (EINVAL, 1), (ENOSYS, 1), (EOPNOTSUPP, 1), (EINTR, 99)] {
            let (_dir, path) = room(b"abc");
            let storage = FileStorage::open(&path).unwrap();
            let _refused = inject(SystemCall::Fallocate, 0, times, Injected::Errno(errno));
            storage.set_len(9000).unwrap();
            assert_eq!((storage.len().unwrap(), storage.fallbacks().reservations), (9000, 1));
        }
        let (_dir, path) = room(b"abc");
        let storage = FileStorage::open(&path).unwrap();
        let _interrupted = inject(SystemCall::Fallocate, 0, 5, Injected::Errno(EINTR));
        storage.set_len(9000).unwrap();
        assert_eq!(storage.fallbacks(), FallbackCounts::default());
        for call in [SystemCall::Fallocate, SystemCall::Ftruncate] {
            let _full = inject(call, 0, 1, Injected::Errno(ENOSPC));
            let to = if call == SystemCall::Fallocate { 20_000 } else { 5 };
            assert_eq!(storage.set_len(to).unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(storage.len().unwrap(), 9000);
            storage.write_at(8_999, b"x").unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_second_description_that_cannot_be_opened_is_counted() {
        let (_dir, path) = room(&[0; 16]);
        let storage = FileStorage::open(&path).unwrap();
        let refused = inject(SystemCall::Reopen, 0, 1, Injected::Errno(EACCES));
        assert!(storage.separate().unwrap().is_none());
        assert_eq!((refused.met(), storage.fallbacks().shared_descriptions), (1, 1));
        assert!(storage.separate().unwrap().is_some());
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

    #[test]
    #[cfg(target_os = "linux")]
    fn holes_are_read_and_not_mapped() {
        let (_dir, path) = room(&[7; 4 * 65_536]);
        let storage = FileStorage::open(&path).unwrap();
        storage.release(65_536, 65_536).unwrap();
        let is_map =
            |offset, len| matches!(storage.view(offset, len).unwrap(), StorageView::Mapped(_));
        let mut expected = vec![7; 4 * 65_536];
        if storage.data_len(65_536, 65_536) == 0 {
            expected[65_536..2 * 65_536].fill(0);
            assert!(!is_map(0, 4 * 65_536) && !is_map(65_536, 1) && !is_map(131_071, 2));
            assert_eq!(storage.fallbacks().maps, 3);
        }
        assert!(is_map(0, 65_536) && is_map(131_072, 65_536));
        assert_eq!(&storage.view(0, 4 * 65_536).unwrap()[..], &expected[..]);
    }
}
