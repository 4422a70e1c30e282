//! The one place that touches a disk.
//!
//! Everything above works on a [`Storage`]: a flat range of bytes that can be read, written, flushed and resized.
//! [`FileStorage`] is a locked file, [`MemoryStorage`] a buffer, and the fault-injecting twin (feature `testing`)
//! records what it is told and yields every state that a crash could legally leave.

use std::fmt;
use std::io;
use std::ops::Deref;

/// A flat, resizable range of bytes with explicit durability.
///
/// # What is assumed of an implementation
/// 1. A write that returned is seen by every later read through the same storage.
/// 2. What was written before a [`sync_data`](Storage::sync_data) began is durable when it returns `Ok`, and so are
///    the length and the bytes of a [`write_at_durable`](Storage::write_at_durable) that returned `Ok`.
/// 3. A crash keeps, of each write that was not flushed, any subset of its 512-byte sectors, each either old or new.
/// 4. After a failed flush nothing is known about the writes it covered; it is never retried on the same handle.
#[expect(clippy::len_without_is_empty, reason = "a storage is never meaningfully empty")]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` on; a read past the end is `UnexpectedEof`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, which lies within the length. Not durable until flushed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset` and returns when these bytes (not those of earlier writes) are durable.
    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes everything that was written, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Changes the length. New bytes are zero, and their space is reserved, so that a write into them does not
    /// find the disk full.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// A read-only view of `len` bytes from `offset` on, as they are now. Nobody writes to that range while the
    /// view lives.
    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView>;
}

/// Bytes lent by [`Storage::view`]: a memory map, or a copy.
#[derive(Debug)]
pub enum StorageView {
    /// A read-only memory map and where in it the bytes begin.
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
