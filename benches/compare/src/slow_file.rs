//! A file whose flushes take longer than the disk's, so that a room can be measured as if on a
//! slower disk.

use cloakroom::testing::{Storage, StorageView};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::disk::{Flush, write_durable};

/// Does what a room's own file does, in the same calls of the system, and sleeps after each flush.
#[derive(Debug)]
pub struct SlowFile {
    file: File,
    delay: Duration,
}

impl SlowFile {
    /// Opens the file at `path`, creating it empty when it is missing.
    pub fn open(path: &Path, delay: Duration) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, delay })
    }
}

impl Storage for SlowFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write_durable(&self.file, offset, data, Flush::Dsync, self.delay)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        std::thread::sleep(self.delay);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(StorageView::Owned(bytes))
    }
}
