//! A file that fails, lies or is looked at while a new room is written to it.

use crate::storage::{FileStorage, Storage, StorageView};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What becomes of the calls that change something.
pub(super) enum Trouble {
    /// From this one on, counted from 0, all of them fail.
    FailsFrom(u64, io::ErrorKind),
    /// This one has a bit flipped on its way to the disk, if it is a write.
    Flips(u64),
    /// Before each of them this is called with its number.
    Watched(Box<dyn Fn(u64) + Send + Sync>),
}

/// A storage whose changes are counted and meet trouble.
pub(super) struct Faulty {
    inner: FileStorage,
    trouble: Trouble,
    changes: Arc<AtomicU64>,
}

impl Faulty {
    /// Wraps a file. `changes` counts.
    pub(super) fn wrap(
        inner: FileStorage,
        trouble: Trouble,
        changes: &Arc<AtomicU64>,
    ) -> Arc<dyn Storage> {
        Arc::new(Self { inner, trouble, changes: Arc::clone(changes) })
    }

    /// What is to be written, when the call is to be made.
    fn turn(&self, data: &[u8]) -> io::Result<Vec<u8>> {
        let number = self.changes.fetch_add(1, Ordering::SeqCst);
        let mut data = data.to_vec();
        match &self.trouble {
            Trouble::FailsFrom(first, kind) if number >= *first => return Err((*kind).into()),
            Trouble::Flips(chosen) if number == *chosen => {
                let middle = data.len() / 2;
                data.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 0x10);
            }
            Trouble::Watched(watch) => watch(number),
            Trouble::FailsFrom(..) | Trouble::Flips(_) => {}
        }
        Ok(data)
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Storage for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, &self.turn(data)?)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at_durable(offset, &self.turn(data)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.turn(&[])?;
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.turn(&[])?;
        self.inner.set_len(len)
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        self.inner.view(offset, len)
    }

    fn is_at(&self, path: &Path) -> bool {
        self.inner.is_at(path)
    }
}
