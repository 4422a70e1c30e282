//! A storage that takes down where a file gets bytes, space and holes.

use super::sim::SimStorage;
use super::{Storage, StorageView};
use crate::sync::plain::Mutex;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A call that changes what the file has, with its offset and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Write(u64, u64),
    FillHoles(u64, u64),
    Release(u64, u64),
}

/// A simulated storage whose changes are taken down.
#[derive(Debug)]
pub(crate) struct Recording {
    inner: SimStorage,
    changes: Mutex<Vec<Change>>,
    lost_name: Mutex<Option<PathBuf>>,
}

impl Recording {
    pub(crate) fn new(inner: SimStorage) -> Arc<Self> {
        Arc::new(Self { inner, changes: Mutex::default(), lost_name: Mutex::default() })
    }

    /// The storage below.
    pub(crate) fn inner(&self) -> &SimStorage {
        &self.inner
    }

    /// The changes so far, in order.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.lock().clone()
    }

    /// From now on the file has lost this name.
    pub(crate) fn lose_name(&self, name: &str) {
        *self.lost_name.lock() = Some(name.into());
    }

    fn note(&self, change: Change) {
        self.changes.lock().push(change);
    }
}

impl Storage for Recording {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Change::Write(offset, data.len() as u64));
        self.inner.write_at(offset, data)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Change::Write(offset, data.len() as u64));
        self.inner.write_at_durable(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn data_len(&self, offset: u64, len: usize) -> usize {
        self.inner.data_len(offset, len)
    }

    fn fill_holes(&self, offset: u64, len: u64) -> io::Result<u64> {
        self.note(Change::FillHoles(offset, len));
        self.inner.fill_holes(offset, len)
    }

    fn release(&self, offset: u64, len: u64) -> io::Result<()> {
        self.note(Change::Release(offset, len));
        self.inner.release(offset, len)
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        self.inner.view(offset, len)
    }

    fn lost_name(&self) -> Option<PathBuf> {
        self.lost_name.lock().clone()
    }
}
