//! A room in a file that exists already and is empty, as `touch` and helpers for temporary files
//! make it. It stays the same file, with its owner, its permissions and its mounts.
//!
//! Until its superblock is written the file is no room, and must not pass for somebody's file
//! either. So a mark is written first, and made durable; an opener that finds it after a crash
//! begins anew. The second copy of the superblock is written before the first, which replaces the
//! mark: a file with the mark and an intact second copy is whole.

use super::directory::{split, sync_dir};
use super::file::FileStorage;
use super::lock::context;
use super::superblock::Superblock;
use super::{Storage, fallback::Fallback};
use crate::error::{Error, Result};
use std::io;
use std::path::Path;

/// What an unfinished file begins with.
const MARK: &[u8; 64] = b"This file is becoming a cloakroom file. Opening it begins anew.\n";

/// Whether a file, which is locked, is to be filled: it is empty, or a crash has interrupted that.
pub(super) fn awaits_content(storage: &FileStorage, path: &Path) -> Result<bool> {
    let failed = |error| Error::io(context("reading", path), error);
    let len = storage.len().map_err(failed)?;
    if len == 0 {
        return Ok(true);
    }
    let mut head = [0; MARK.len()];
    if len < MARK.len() as u64 {
        return Ok(false);
    }
    match storage.read_at(0, &mut head) {
        Ok(()) => {}
        // The superblock has a second copy, and says so.
        Err(_) => return Ok(false),
    }
    // The length may be durable before the mark is.
    let is_unmarked = len == MARK.len() as u64 && head == [0; MARK.len()];
    let [_, second] = Superblock::read_copies(storage);
    Ok(is_unmarked || (head == *MARK && second.is_err()))
}

/// Makes the file what `init` writes.
///
/// # Errors
/// Those of `init`, [`Error::Io`] and [`Error::DiskFull`]. The file is empty then.
pub(super) fn fill(
    storage: &FileStorage,
    path: &Path,
    init: impl FnOnce(&FileStorage) -> Result<()>,
) -> Result<()> {
    let filled = mark(storage, path).map_err(|error| Error::io(context("creating", path), error));
    let filled = filled.and_then(|()| init(storage)).and_then(|()| {
        storage.sync_all().map_err(|error| Error::io(context("flushing the new", path), error))
    });
    if filled.is_err() {
        let _ = storage.set_len(0);
    }
    filled
}

/// Begins: the mark, and the name of the file, are durable before anything else is written.
fn mark(storage: &FileStorage, path: &Path) -> io::Result<()> {
    storage.set_len(0)?;
    storage.set_len(MARK.len() as u64)?;
    storage.write_at(0, MARK)?;
    storage.sync_all()?;
    let (dir, _) = split(path)?;
    if !sync_dir(dir)? {
        storage.count(Fallback::DirectoryFlush);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BLOCK_SIZE;
    use std::fs;
    use std::path::PathBuf;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.cloak");
        (dir, path)
    }

    fn superblock() -> Superblock {
        Superblock::new(crate::limits::MIN_LOG_CAPACITY / 2, 7, [9; 16])
    }

    fn init(storage: &FileStorage) -> Result<()> {
        storage.set_len(10 * BLOCK_SIZE as u64).unwrap();
        superblock().write(storage)
    }

    fn awaits(path: &Path) -> bool {
        awaits_content(&FileStorage::open(path).unwrap(), path).unwrap()
    }

    #[test]
    fn an_empty_file_is_filled_and_stays_the_same_file() {
        let (_dir, path) = place();
        fs::write(&path, b"").unwrap();
        let kept = fs::File::open(&path).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let storage = FileStorage::open(&path).unwrap();
        assert!(awaits_content(&storage, &path).unwrap());
        fill(&storage, &path, init).unwrap();
        assert!(superblock().is_whole_on(&storage).unwrap());
        drop(storage);
        assert!(!awaits(&path));
        assert_eq!(kept.metadata().unwrap().len(), 10 * BLOCK_SIZE as u64);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        }
    }

    #[test]
    fn what_a_crash_leaves_on_the_way_is_filled_anew_and_what_is_whole_is_not() {
        let (_dir, path) = place();
        fs::write(&path, b"").unwrap();
        let storage = FileStorage::open(&path).unwrap();
        fill(&storage, &path, init).unwrap();
        drop(storage);
        let whole = fs::read(&path).unwrap();
        let marked = [MARK, &whole[MARK.len()..]].concat();
        let torn_second = |at: usize| {
            let mut bytes = marked.clone();
            bytes[BLOCK_SIZE + at] ^= 1;
            bytes
        };
        let rest = whole[2 * BLOCK_SIZE..].to_vec();
        let unwritten = [&MARK[..], &vec![0; 2 * BLOCK_SIZE - MARK.len()], &rest].concat();
        for (left, expected) in [
            (MARK.to_vec(), true),
            (vec![0; MARK.len()], true),
            ([&MARK[..], &[0; 100]].concat(), true),
            (unwritten, true),
            (torn_second(0), true),
            (torn_second(BLOCK_SIZE - 1), true),
            (marked.clone(), false),
            (whole.clone(), false),
            // Somebody's.
            (vec![0; MARK.len() + 1], false),
            (vec![0; MARK.len() - 1], false),
            (vec![0; 8_192], false),
            (b"x".to_vec(), false),
            (MARK[..63].to_vec(), false),
        ] {
            fs::write(&path, &left).unwrap();
            assert_eq!(awaits(&path), expected, "{} bytes", left.len());
        }
    }

    #[test]
    fn after_a_failure_the_file_is_empty() {
        let (_dir, path) = place();
        fs::write(&path, b"").unwrap();
        let storage = FileStorage::open(&path).unwrap();
        let failed = fill(&storage, &path, |storage| {
            init(storage)?;
            Err(Error::Closed)
        });
        assert!(matches!(failed, Err(Error::Closed)));
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
