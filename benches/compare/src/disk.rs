//! The disk alone: a preallocated file written over in place, flushed by `fdatasync` or by the
//! write itself.

use anyhow::{Context, Result};
use rustix::io::{ReadWriteFlags, pwritev2, retry_on_intr};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How a write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// `pwrite`, then `fdatasync`.
    Fdatasync,
    /// One `pwritev2` with `RWF_DSYNC`, which is what a file opened with `O_DSYNC` does with every
    /// write.
    Dsync,
}

/// A new file of `len` bytes, every block of it written once and on the disk, so that a later flush
/// changes no metadata.
pub fn prewritten(path: &Path, len: u64) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let part = zeros.len().min(usize::try_from(len - offset)?);
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    file.sync_all()?;
    Ok(file)
}

/// Writes `data` at `offset` and makes it durable. `delay` is added to simulate a slower disk.
pub fn write_durable(
    file: &File,
    offset: u64,
    data: &[u8],
    how: Flush,
    delay: Duration,
) -> io::Result<()> {
    match how {
        Flush::Fdatasync => {
            file.write_all_at(data, offset)?;
            file.sync_data()?;
        }
        Flush::Dsync => {
            let (mut data, mut offset) = (data, offset);
            while !data.is_empty() {
                let slices = [IoSlice::new(data)];
                let written =
                    retry_on_intr(|| pwritev2(file, &slices, offset, ReadWriteFlags::DSYNC))?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                data = &data[written..];
                offset += written as u64;
            }
        }
    }
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
    Ok(())
}

/// Blocks of 4 KiB in the file that is overwritten again and again.
const RAW_BLOCKS: u64 = 1024;

/// The file for [`raw_flushes`]; it has no name any more.
pub fn raw_file(dir: &Path) -> Result<File> {
    let path = dir.join("raw");
    let file = prewritten(&path, RAW_BLOCKS * 4096).context("preparing the raw flush")?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Flushes by one thread that overwrites 4 KiB again and again: how many, and how many a second.
pub fn raw_flushes(file: &File, how: Flush, delay: Duration, span: Duration) -> Result<(u32, f64)> {
    let block = [0x5A; 4096];
    let started = Instant::now();
    let mut flushes = 0_u32;
    while started.elapsed() < span {
        write_durable(file, u64::from(flushes) % RAW_BLOCKS * 4096, &block, how, delay)?;
        flushes += 1;
    }
    Ok((flushes, f64::from(flushes) / started.elapsed().as_secs_f64()))
}

/// Starts a cell from a quiet disk: everything the filesystem still owes is written first.
pub fn settle(dir: &Path) -> Result<()> {
    rustix::fs::syncfs(File::open(dir)?)?;
    Ok(())
}

/// The block device under a directory, as the system counts its traffic. The count is the device's,
/// so whatever else writes meanwhile is in it too; what a process is said to write cannot be used
/// instead, because a page cache that works in large folios counts a whole folio for every byte
/// that changes in it.
pub struct Device {
    number: Option<(u32, u32)>,
}

impl Device {
    pub fn of(dir: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::metadata(dir).ok().map(|metadata| metadata.dev());
        Self { number: device.map(|dev| (rustix::fs::major(dev), rustix::fs::minor(dev))) }
    }

    /// `None` when it is no block device, such as memory.
    pub fn bytes_written(&self) -> Option<u64> {
        let (major, minor) = self.number?;
        let table = std::fs::read_to_string("/proc/diskstats").ok()?;
        table.lines().find_map(|line| {
            let mut columns = line.split_whitespace();
            let here = columns.next()?.parse() == Ok(major) && columns.next()?.parse() == Ok(minor);
            // The name, four counts of reads, then writes completed, merged, and sectors of 512
            // bytes.
            let sectors: u64 = columns.nth(7).filter(|_| here)?.parse().ok()?;
            Some(sectors * 512)
        })
    }
}
