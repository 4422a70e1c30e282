//! Two handles of a storage that has only one, each of which is told of a failed flush.
//!
//! A system reports a failed write-back once to each open file description. Where the log and the
//! B-tree share one, the flush of one of them would take the report away from the other, which
//! would then take lost writes for durable.

use super::{FallbackCounts, Storage, StorageView};
use crate::sync::plain::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The failed flushes of both handles.
#[derive(Debug)]
struct FlushFailures {
    count: u64,
    kind: io::ErrorKind,
}

/// One of two handles.
#[derive(Debug)]
struct TwinStorage {
    inner: Arc<dyn Storage>,
    /// Held during a flush, so that a flush that begins after another one has failed knows it.
    failures: Arc<Mutex<FlushFailures>>,
    /// How many failures this handle was told of.
    told: AtomicU64,
}

/// Two handles of `storage`.
pub(crate) fn twins(storage: &Arc<dyn Storage>) -> [Arc<dyn Storage>; 2] {
    let failures = FlushFailures { count: 0, kind: io::ErrorKind::Other };
    let failures = Arc::new(Mutex::new(failures));
    [(); 2].map(|()| {
        let (inner, failures) = (Arc::clone(storage), Arc::clone(&failures));
        Arc::new(TwinStorage { inner, failures, told: AtomicU64::new(0) }) as Arc<dyn Storage>
    })
}

impl TwinStorage {
    fn flush(&self, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut failures = self.failures.lock();
        let outcome = call();
        if let Err(error) = &outcome {
            failures.count += 1;
            failures.kind = error.kind();
        }
        let told = self.told.swap(failures.count, Ordering::Relaxed);
        if outcome.is_ok() && told != failures.count {
            let detail = "a flush of another part of the file failed";
            return Err(io::Error::new(failures.kind, detail));
        }
        outcome
    }
}

impl Storage for TwinStorage {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, data)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.flush(|| self.inner.write_at_durable(offset, data))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.flush(|| self.inner.sync_data())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn grow_unreserved(&self, len: u64) -> io::Result<()> {
        self.inner.grow_unreserved(len)
    }

    fn data_len(&self, offset: u64, len: usize) -> usize {
        self.inner.data_len(offset, len)
    }

    fn release(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.release(offset, len)
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        self.inner.view(offset, len)
    }

    fn fill_holes(&self, offset: u64, len: u64) -> io::Result<u64> {
        self.inner.fill_holes(offset, len)
    }

    fn fallbacks(&self) -> FallbackCounts {
        self.inner.fallbacks()
    }

    fn begin_writing(&self) {
        let failures = self.failures.lock();
        self.told.store(failures.count, Ordering::Relaxed);
    }

    fn is_at(&self, path: &Path) -> bool {
        self.inner.is_at(path)
    }

    fn check_length(&self) -> io::Result<()> {
        self.inner.check_length()
    }

    fn lost_name(&self) -> Option<PathBuf> {
        self.inner.lost_name()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn abandon(&self) {
        self.inner.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::storage::FileStorage;
    use crate::storage::sim::{CallKind, Fault, SimStorage};

    #[test]
    fn a_file_that_is_lost_or_cut_short_is_lost_to_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        let file = FileStorage::create(&path, |file| {
            file.set_len(4_096).map_err(|error| Error::io("growing", error))
        });
        let both = twins(&(Arc::new(file.unwrap()) as Arc<dyn Storage>));
        for one in &both {
            one.check_length().unwrap();
            assert_eq!(one.lost_name(), None);
        }
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(9).unwrap();
        std::fs::remove_file(&path).unwrap();
        for one in &both {
            assert_eq!(one.check_length().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert!(one.lost_name().is_some_and(|lost| lost.ends_with("edge.cloak")));
        }
    }

    #[test]
    fn each_handle_is_told_once_of_every_failed_flush() {
        let sim = SimStorage::from_image(vec![0; 4_096], 1);
        let [log, btree] = twins(&(Arc::new(sim.clone()) as Arc<dyn Storage>));
        log.write_at(0, b"log").unwrap();
        sim.fail_call(CallKind::Sync, 0, Fault::Enospc);
        assert_eq!(btree.sync_data().unwrap_err().kind(), io::ErrorKind::StorageFull);
        btree.sync_data().unwrap();
        assert_eq!(log.sync_data().unwrap_err().kind(), io::ErrorKind::StorageFull);
        log.sync_data().unwrap();

        sim.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
        log.write_at_durable(0, b"LOG").unwrap_err();
        log.write_at_durable(0, b"LOG").unwrap();
        btree.sync_data().unwrap_err();
        btree.sync_data().unwrap();

        // What failed before a writer began is of no concern to it.
        sim.fail_call(CallKind::Sync, 0, Fault::Enospc);
        log.sync_data().unwrap_err();
        btree.begin_writing();
        btree.sync_data().unwrap();
    }
}
