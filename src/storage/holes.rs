//! The holes of a file, as a sparse copy (`cp --sparse`, `rsync -S`, `tar -S`) leaves them where
//! the original has zeros.

use std::fs::File;
use std::io;

/// How much is written at a time.
#[cfg(target_os = "linux")]
const ZERO_CHUNK: usize = 256 << 10;

/// Filesystems that write every block to a new place: btrfs, bcachefs, ZFS and NILFS. Filling a
/// hole of theirs reserves nothing, and some keep zeros as holes.
#[cfg(target_os = "linux")]
const COPY_ON_WRITE: [u64; 4] = [0x9123_683E, 0xCA45_1A4E, 0x2FC1_2FC1, 0x3434];

/// Writes zeros into the holes among `len` bytes from `offset` on. Answers how many.
#[cfg(target_os = "linux")]
pub(super) fn fill(
    file: &File,
    offset: u64,
    len: u64,
    write: impl Fn(u64, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let (mut at, end, mut written) = (offset, offset.saturating_add(len), 0);
    while let Some((from, to)) = next_hole(file, at, end) {
        if written == 0 && is_copy_on_write(file) {
            break;
        }
        let zeros = vec![0; ZERO_CHUNK];
        let mut hole = from;
        while hole < to {
            let left = usize::try_from(to - hole).unwrap_or(usize::MAX);
            let part = zeros.get(..left.min(ZERO_CHUNK)).unwrap_or(&zeros);
            write(hole, part)?;
            hole += part.len() as u64;
        }
        written += to - from;
        at = to;
    }
    Ok(written)
}

/// This system does not tell holes.
#[cfg(not(target_os = "linux"))]
pub(super) fn fill(
    _file: &File,
    _offset: u64,
    _len: u64,
    _write: impl Fn(u64, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    Ok(0)
}

/// The first hole from `at` to `end`. `None` when there is none, or the filesystem does not say.
#[cfg(target_os = "linux")]
pub(super) fn next_hole(file: &File, at: u64, end: u64) -> Option<(u64, u64)> {
    use super::system_call::{SystemCall, admit};
    use rustix::fs::{SeekFrom, seek};
    if at >= end {
        return None;
    }
    admit(SystemCall::Lseek, 0).ok()?;
    let from = seek(file, SeekFrom::Hole(at)).ok().filter(|&from| from < end)?;
    // Behind the last data there is no more, which is an error of its own.
    let to = seek(file, SeekFrom::Data(from)).unwrap_or(end);
    Some((from, to.min(end))).filter(|(from, to)| from < to)
}

/// This system does not tell holes.
#[cfg(not(target_os = "linux"))]
pub(super) fn next_hole(_file: &File, _at: u64, _end: u64) -> Option<(u64, u64)> {
    None
}

/// The first part from `at` to `end` that is no hole, or all of it where holes are not told.
#[cfg(target_os = "linux")]
pub(super) fn next_data(file: &File, at: u64, end: u64) -> Option<(u64, u64)> {
    use super::system_call::{SystemCall, admit};
    use rustix::fs::{SeekFrom, seek};
    if at >= end {
        return None;
    }
    if admit(SystemCall::Lseek, 0).is_err() {
        return Some((at, end));
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(from) if from < end => {
            let to = seek(file, SeekFrom::Hole(from)).unwrap_or(end);
            Some((from, if to > from { to.min(end) } else { end }))
        }
        // Behind the last data there is no more, which is an error of its own.
        Ok(_) | Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some((at, end)),
    }
}

/// This system does not tell holes.
#[cfg(not(target_os = "linux"))]
pub(super) fn next_data(_file: &File, at: u64, end: u64) -> Option<(u64, u64)> {
    (at < end).then_some((at, end))
}

/// Makes a hole of `len` bytes from `offset` on, where the file system has holes.
#[cfg(target_os = "linux")]
pub(super) fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use super::system_call::{SystemCall, admit};
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    admit(SystemCall::PunchHole, 0)?;
    Ok(fallocate(file, flags, offset, len)?)
}

/// This system has another call for it, or none.
#[cfg(not(target_os = "linux"))]
pub(super) fn punch(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn is_copy_on_write(file: &File) -> bool {
    let kind = rustix::fs::fstatfs(file).map(|found| u64::try_from(found.f_type).unwrap_or(0));
    kind.is_ok_and(|kind| COPY_ON_WRITE.contains(&kind))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::super::Storage;
    use super::super::file::FileStorage;
    use super::super::system_call::{Injected, SystemCall, inject};
    use std::fs;
    use std::io;
    use std::os::unix::fs::{FileExt, MetadataExt};

    /// A file of a mebibyte with data in two places, or `None` where holes are not told.
    fn sparse(dir: &std::path::Path) -> Option<FileStorage> {
        let path = dir.join("sparse");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[7; 4096], 65_536).unwrap();
        file.write_all_at(&[8; 4096], 524_288).unwrap();
        file.sync_all().unwrap();
        let told = super::next_hole(&file, 0, 1 << 20).is_some() && !super::is_copy_on_write(&file);
        drop(file);
        told.then(|| FileStorage::open(&path).unwrap())
    }

    #[test]
    fn holes_get_space_and_keep_their_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let Some(storage) = sparse(dir.path()) else { return };
        let blocks = || fs::metadata(dir.path().join("sparse")).unwrap().blocks() * 512;
        let before = fs::read(dir.path().join("sparse")).unwrap();
        let filled = storage.fill_holes(8_192, 600_000).unwrap();
        assert!((500_000..600_000).contains(&filled), "{filled}");
        storage.sync_data().unwrap();
        assert!(blocks() >= 590_000, "{}", blocks());
        assert!(blocks() < 1 << 20, "what was not asked for was filled too");
        assert_eq!(fs::read(dir.path().join("sparse")).unwrap(), before);
        assert_eq!(storage.fill_holes(8_192, 600_000).unwrap(), 0);
    }

    #[test]
    fn a_full_disk_is_an_error_and_holes_that_are_not_told_stay() {
        let dir = tempfile::tempdir().unwrap();
        let Some(storage) = sparse(dir.path()) else { return };
        let full = inject(SystemCall::Pwrite, 0, 1, Injected::Errno(28));
        let error = storage.fill_holes(0, 1 << 20).unwrap_err();
        assert_eq!((error.kind(), full.met()), (io::ErrorKind::StorageFull, 1));
        drop(full);
        let untold = inject(SystemCall::Lseek, 0, 9, Injected::Errno(22));
        assert_eq!(storage.fill_holes(0, 1 << 20).unwrap(), 0);
        drop(untold);
        assert!(storage.fill_holes(0, 1 << 20).unwrap() > 0);
    }
}
