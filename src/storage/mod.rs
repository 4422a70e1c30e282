//! The only folder that accesses files.
//!
//! Everything above works on a [`Storage`]: a flat range of bytes that can be read, written,
//! flushed and resized. [`FileStorage`] is a locked file, [`MemoryStorage`] a buffer, and the
//! simulated storage (feature `testing`) injects faults and yields every state that a crash could
//! legally leave.

mod access;
mod boot;
mod create;
mod descriptor;
mod directory;
mod fallback;
mod file;
mod holes;
mod in_place;
mod length;
mod lock;
mod memory;
mod name;
mod positioned;
#[cfg(test)]
pub(crate) mod recording;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod sim;
mod superblock;
mod system_call;
mod twin;
mod unreadable;

pub(crate) use boot::boot_id;
pub(crate) use create::{Creation, Replace, check_vacant};
pub use fallback::FallbackCounts;
pub(crate) use file::FileStorage;
pub(crate) use memory::MemoryStorage;
#[cfg(test)]
pub(crate) use superblock::OLDEST_VERSION;
pub(crate) use superblock::{FORMAT_VERSION, Superblock};
#[cfg(any(test, feature = "testing"))]
pub use system_call::{Injected, Injection, SystemCall, inject};
pub(crate) use twin::twins;
pub(crate) use unreadable::UnreadableBlock;

/// For the fuzzers, which do not access files themselves.
#[cfg(any(test, feature = "testing"))]
pub(crate) use tempfile::tempdir;

use crate::error::CutFile;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A flat, resizable range of bytes with explicit durability.
///
/// # Requirements of an implementation
/// 1. Every later read through the same storage sees a write that has returned.
/// 2. What was written before a [`sync_data`](Storage::sync_data) began is durable when it returns
///    `Ok`, and so are the length and the bytes of a
///    [`write_at_durable`](Storage::write_at_durable) that returned `Ok`.
/// 3. A crash keeps, of each write that was not flushed, any subset of its 512-byte sectors, each
///    either old or new.
/// 4. After a failed flush nothing is known about the writes that it covered. It is never retried
///    on the same handle.
#[cfg_attr(
    any(test, feature = "testing"),
    expect(clippy::len_without_is_empty, reason = "an empty storage has no meaning")
)]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` on. A read past the end is `UnexpectedEof`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, within the length. Not durable until flushed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset` and returns when these bytes (not those of earlier writes)
    /// are durable.
    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes everything that was written, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Changes the length. New bytes are zero, and their space is reserved, so that a write into
    /// them does not find the disk full.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The same for a length that is greater than the one before, but the new bytes need no space
    /// yet: a write into them may find the disk full.
    fn grow_unreserved(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    /// How many of `len` bytes from `offset` on have to be read to know all of them: what follows
    /// is a hole of the file, which reads as zeros.
    fn data_len(&self, _offset: u64, len: usize) -> usize {
        len
    }

    /// Gives the space of `len` bytes from `offset` on back to the file system, if both know how.
    /// The bytes are zeros afterwards, or what they were.
    fn release(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// A read-only view of `len` bytes from `offset` on. The caller makes sure that nothing writes
    /// to that range while the view lives.
    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView>;

    /// Another handle of the same bytes, if the storage has handles: an operating system that
    /// reports a failed flush once per handle then reports it to both. Closing is left to the
    /// first. See `twins` for a storage that has none.
    fn separate(&self) -> io::Result<Option<Arc<dyn Storage>>> {
        Ok(None)
    }

    /// Gives the holes among `len` bytes from `offset` on space of their own, by writing the zeros
    /// that they read as, so that a later write does not find the disk full. Not durable until
    /// flushed. Answers how many bytes were written. Where a filesystem does not tell its holes,
    /// or every write takes new space anyway, nothing is done.
    fn fill_holes(&self, _offset: u64, _len: u64) -> io::Result<u64> {
        Ok(0)
    }

    /// How often the system refused the first way to do something, and another one was taken.
    fn fallbacks(&self) -> FallbackCounts {
        FallbackCounts::default()
    }

    /// A writer begins that has nothing of its own to be flushed: a flush that failed before is no
    /// failure of what it writes.
    fn begin_writing(&self) {}

    /// Whether this is the file at `path`.
    fn is_at(&self, _path: &std::path::Path) -> bool {
        false
    }

    /// Whether it still has the length that it was given here: an error of the kind `UnexpectedEof`
    /// says that another program cut it short, and any other tells nothing.
    fn check_length(&self) -> io::Result<()> {
        Ok(())
    }

    /// The path under which it was opened, when that certainly leads to it no longer.
    fn lost_name(&self) -> Option<PathBuf> {
        None
    }

    /// Releases the lock, so that others can open it. Nothing is read or written afterwards.
    fn close(&self) {}

    /// Gives up the file in a forked child, and leaves its lock to the parent. Nothing is read or
    /// written afterwards.
    fn abandon(&self) {}
}

/// Bytes lent by [`Storage::view`]: a memory map, or a copy.
#[derive(Debug)]
pub enum StorageView {
    /// A read-only memory map.
    Mapped(memmap2::Mmap),
    /// A copy.
    Owned(Vec<u8>),
}

impl Deref for StorageView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            StorageView::Mapped(map) => map,
            StorageView::Owned(bytes) => bytes,
        }
    }
}

/// Refuses a read of `len` bytes at `offset` beyond the end of a storage of `end` bytes.
fn check_read(end: u64, offset: u64, len: usize) -> io::Result<()> {
    if offset.checked_add(len as u64).is_some_and(|read_end| read_end <= end) {
        return Ok(());
    }
    let detail = format!("a read of {len} bytes at offset {offset} goes beyond the end at {end}");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail))
}

/// Refuses to go on with a file of `found` bytes that should have `expected`, because another
/// program cut it short: it lacks what was acknowledged, and a write would extend it with zeros.
fn check_not_cut(expected: &AtomicU64, found: u64) -> io::Result<()> {
    let expected = expected.load(Ordering::Acquire);
    if found >= expected {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, CutFile { found, expected }))
}

/// Refuses a write of `len` bytes at `offset` beyond the end of a storage of `end` bytes.
fn check_write(end: u64, offset: u64, len: usize) -> io::Result<()> {
    if offset.checked_add(len as u64).is_some_and(|write_end| write_end <= end) {
        return Ok(());
    }
    let detail = format!("a write of {len} bytes at offset {offset} goes beyond the end at {end}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, detail))
}

/// The contract of [`Storage`], checked for each implementation.
#[cfg(test)]
mod contract {
    use super::*;

    /// Checks the contract with an empty storage.
    pub(super) fn check(storage: &dyn Storage) {
        let read = |offset: u64, len: usize| {
            let mut buf = vec![0xEE; len];
            storage.read_at(offset, &mut buf).map(|()| buf)
        };
        assert_eq!(storage.len().unwrap(), 0);

        // Growth adds zeros. A write is visible at once.
        storage.set_len(10_000).unwrap();
        assert_eq!(storage.len().unwrap(), 10_000);
        assert_eq!(read(0, 10_000).unwrap(), vec![0; 10_000]);
        storage.write_at(4_090, b"across a page").unwrap();
        assert_eq!(read(4_089, 15).unwrap(), b"\0across a page\0");
        storage.write_at_durable(9_996, b"tail").unwrap();
        assert_eq!(read(9_996, 4).unwrap(), b"tail");
        storage.sync_data().unwrap();

        // No call goes beyond the end, and a refused write changes nothing.
        assert_eq!(read(9_997, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(u64::MAX, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let refused = |outcome: io::Result<()>| outcome.unwrap_err().kind();
        assert_eq!(refused(storage.write_at(9_997, b"past")), io::ErrorKind::InvalidInput);
        assert_eq!(refused(storage.write_at_durable(9_997, b"past")), io::ErrorKind::InvalidInput);
        assert_eq!(refused(storage.write_at(u64::MAX, b"past")), io::ErrorKind::InvalidInput);
        assert_eq!(storage.len().unwrap(), 10_000);
        assert_eq!(read(9_996, 4).unwrap(), b"tail");

        // Views show exactly their range.
        assert_eq!(&storage.view(4_090, 13).unwrap()[..], b"across a page");
        assert_eq!(&storage.view(10_000, 0).unwrap()[..], b"");
        assert_eq!(storage.view(9_997, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(storage.view(u64::MAX, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        // Bytes that were cut off do not return.
        storage.set_len(4_095).unwrap();
        assert_eq!(read(4_090, 5).unwrap(), b"acros");
        assert_eq!(refused(storage.write_at(4_095, b"x")), io::ErrorKind::InvalidInput);
        storage.set_len(4_103).unwrap();
        assert_eq!(read(4_090, 13).unwrap(), b"acros\0\0\0\0\0\0\0\0");
        storage.set_len(0).unwrap();
        assert_eq!(storage.len().unwrap(), 0);
        storage.write_at(0, b"").unwrap();
    }
}
