//! Rooms as earlier versions wrote them, for tests of migrations.

use super::access::Writer;
use super::lifecycle::RecoveredImage;
use super::{CommitHook, Engine, EngineOptions, Migration, Threads};
use crate::clock::ManualClock;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::storage::{FileStorage, MemoryStorage, Storage, Superblock};
use crate::tables::Catalogue;
use std::path::Path;
use std::sync::Arc;

/// Bytes of page cache for each of the two B-trees.
const CACHE_SIZE: usize = 8 << 20;

/// Writes a room file of an older version to `to`: the rows of the room at `from`, each turned into
/// what `row` emits. Half of them are in the log, as a process leaves them that is killed. For
/// tests of migrations.
///
/// # Errors
/// Those of reading and creating.
pub(crate) fn write_older(
    from: &Path,
    to: &Path,
    tables: Catalogue,
    older: Migration,
) -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(from)?);
    let superblock = Superblock::read(storage.as_ref(), from)?;
    let image = RecoveredImage::open(&storage, &superblock, CACHE_SIZE, tables)?;
    let options = EngineOptions {
        tables,
        log_capacity: 2 * superblock.segment_size,
        cache_size: CACHE_SIZE,
        clock: Arc::new(ManualClock::new(superblock.created_at_ms)),
        leap_hold: crate::engine::time_line::DEFAULT_LEAP_HOLD,
        newest_epoch: |_| Ok(None),
        threads: Threads::None,
        maintenance: None,
        read_only: false,
        log_stall: crate::limits::DEFAULT_LOG_STALL,
        migrations: &[],
        hook: CommitHook::default(),
    };
    let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let engine = Engine::create_on(Arc::clone(&memory), options)?;
    let mut written = 0_u64;
    for in_log in [false, true] {
        let mut nth = 0_u64;
        image.for_each(|table, key, value| {
            (older.row)(table, key, value, &mut |table, key, value| {
                nth += 1;
                // What is in the log hides what is in the B-tree.
                if nth.is_multiple_of(2) != in_log {
                    return Ok(());
                }
                written += 1;
                let put = engine.transact(Durability::Sync, &[], |tx| {
                    tx.put(table, key, value.to_vec());
                    Ok::<_, Error>(())
                });
                put.wait()
            })
        })?;
        if !in_log {
            engine.checkpoint()?;
        }
    }
    let failed = |error| Error::io("copying a room", error);
    let len = memory.len().map_err(failed)?;
    let image = memory.view(0, usize::try_from(len).unwrap_or(usize::MAX)).map_err(failed)?;
    let superblock = Superblock::read(memory.as_ref(), to)?;
    FileStorage::create(to, |file| {
        file.set_len(len).map_err(failed)?;
        file.write_at(0, &image).map_err(failed)?;
        Superblock { version: older.from, ..superblock }.write(file)
    })
    .map(drop)
}
