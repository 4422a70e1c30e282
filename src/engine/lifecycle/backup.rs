//! Hot backup: the room as of one durable position, as a room file of its own, made while writing
//! goes on.
//!
//! 1. What has the target's name is looked at first: nothing, or an earlier backup of this room,
//!    which is locked until it is replaced. Anything else is refused untouched.
//! 2. A position is made durable and its rows are copied into a new file beside the target
//!    ([`super::durable_snapshot`], [`super::new_file`]), page by page.
//! 3. The new file is read back through its own bytes and compared with what was copied.
//! 4. Only then does it get the target's name, in one step.

use super::durable_snapshot::DurableSnapshot;
use super::format::Geometry;
use super::new_file::NewFile;
use crate::engine::kernel::Kernel;
use crate::error::{Error, Result};
use crate::observe;
use crate::storage::{FileStorage, Replace, Storage, Superblock, check_vacant};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of page cache for the B-tree of the new file. Its rows come in order, so little of it is
/// needed.
const CACHE_SIZE: usize = 8 << 20;

/// After how many rows progress is told.
const PROGRESS_EVERY: u64 = 1_024;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The position (LSN) it was taken at: every transaction up to it is in the backup, and none
    /// after it.
    pub lsn: u64,
    /// How many rows were copied, over all tables of the file, those of indexes included.
    pub rows: u64,
    /// The length of the backup in bytes.
    pub bytes: u64,
}

/// Copies the room to `path`. `progress` is told how many rows are done and about how many
/// there are.
///
/// # Errors
/// Those of [`Cloakroom::backup`](crate::Cloakroom::backup). Whatever they are, no temporary is
/// left, and what has the name is as it was.
pub(in crate::engine) fn back_up(
    kernel: &Arc<Kernel>,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackupReport> {
    let _span = observe::backing_up(path);
    let started = Instant::now();
    let replace = replaceable(kernel, path)?;
    let mut read = DurableSnapshot::take(kernel)?;
    let expected = read.estimate()?;
    let like = Geometry::of(kernel.superblock(), read.lsn());
    let mut new = NewFile::create(path, like, CACHE_SIZE, read.tables())?;
    progress(0, expected);
    read.for_each(|table, key, value| {
        new.put(table, key, value)?;
        if new.rows().is_multiple_of(PROGRESS_EVERY) {
            progress(new.rows(), expected.max(new.rows()));
        }
        Ok(())
    })?;
    let (lsn, rows) = (read.lsn(), new.rows());
    // From here on the room keeps nothing for the backup.
    drop(read);
    let whole = new.seal()?;
    whole.verify()?;
    let bytes = whole.len()?;
    whole.publish(replace)?;
    progress(rows, rows);
    observe::backed_up(lsn, rows, bytes, started.elapsed());
    Ok(BackupReport { lsn, rows, bytes })
}

/// What a backup of this room at `path` would take the place of.
fn replaceable(kernel: &Kernel, path: &Path) -> Result<Replace> {
    if kernel.storage().is_at(path) {
        let path = path.display();
        return Err(Error::InvalidConfig(format!(
            "{path} is the room itself; back it up to another file"
        )));
    }
    let old = match FileStorage::open(path) {
        Ok(old) => old,
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            check_vacant(path)?;
            return Ok(Replace::Nothing);
        }
        Err(error) => return Err(error),
    };
    // A file that was made to decide whose the backup is.
    if old.len().is_ok_and(|len| len == 0) {
        return Ok(Replace::This(old));
    }
    // An earlier backup may be of an earlier version.
    if Superblock::read_any(&old, path)?.file_id != kernel.superblock().file_id {
        return Err(Error::DifferentRoom { path: path.to_path_buf() });
    }
    Ok(Replace::This(old))
}
