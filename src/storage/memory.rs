//! A buffer that behaves like a file, for rooms in memory.

use super::{Storage, StorageView, check_read, check_write};
use crate::sync::plain::RwLock;
use std::fmt;
use std::io;

/// A buffer in memory. Everything in it is as durable as the process.
#[derive(Default)]
pub(crate) struct MemoryStorage {
    bytes: RwLock<Vec<u8>>,
}

/// Shows nothing of the bytes.
impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").finish_non_exhaustive()
    }
}

impl MemoryStorage {
    /// An empty storage.
    pub(crate) fn new() -> Self {
        Self::default()
    }
}

impl From<Vec<u8>> for MemoryStorage {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(slice(&self.bytes.read(), offset, buf.len())?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        slice_mut(&mut self.bytes.write(), offset, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        resize(&mut self.bytes.write(), len)
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        Ok(StorageView::Owned(slice(&self.bytes.read(), offset, len)?.to_vec()))
    }
}

/// The bytes of a range, or `UnexpectedEof`.
pub(super) fn slice(bytes: &[u8], offset: u64, len: usize) -> io::Result<&[u8]> {
    check_read(bytes.len() as u64, offset, len)?;
    let found =
        usize::try_from(offset).ok().and_then(|start| bytes.get(start..start.checked_add(len)?));
    found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The bytes of a range to write to, or `InvalidInput`.
pub(super) fn slice_mut(bytes: &mut [u8], offset: u64, len: usize) -> io::Result<&mut [u8]> {
    check_write(bytes.len() as u64, offset, len)?;
    let found = usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get_mut(start..start.checked_add(len)?));
    found.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Truncates the buffer or extends it with zeros. Too little memory is an error, not an abort.
pub(super) fn resize(bytes: &mut Vec<u8>, len: u64) -> io::Result<()> {
    let out_of_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
    let len = usize::try_from(len).map_err(|_| out_of_memory())?;
    bytes.try_reserve(len.saturating_sub(bytes.len())).map_err(|_| out_of_memory())?;
    bytes.resize(len, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_storage_satisfies_the_contract_of_a_storage() {
        crate::storage::contract::check(&MemoryStorage::new());
    }

    #[test]
    fn a_view_does_not_change_with_the_storage() {
        let storage = MemoryStorage::from(b"abc".to_vec());
        let view = storage.view(0, 3).unwrap();
        storage.write_at(0, b"xyz").unwrap();
        assert_eq!(&view[..], b"abc");
    }

    #[test]
    fn an_absurd_length_is_an_error_and_changes_nothing() {
        let storage = MemoryStorage::from(b"abc".to_vec());
        assert_eq!(storage.set_len(u64::MAX).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(storage.len().unwrap(), 3);
    }
}
