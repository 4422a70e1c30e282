//! Creating a file, and opening one: what a crash left becomes the state that was acknowledged.
//!
//! Opening only reads until it is known that nothing acknowledged is missing. Then, in this order:
//! 1. stale frames behind a torn tail are erased and the erasure is flushed, so that they can never
//!    be reached again;
//! 2. everything is flushed, because a process that was killed may have left what was replayed with
//!    the operating system only; what no later durable LSN covers is written again before, because
//!    after a failed flush the system takes it for flushed although the disk does not have it;
//! 3. a segment whose frames are all in the B-tree gets a new generation.
//!
//! A crash between any two of these leaves a file for which the same decisions are made again.
//!
//! A read-only opening makes the same decisions and stops there: what it replays is in memory, and
//! the file stays as the crash left it.

use super::format::layout_of;
use super::recovery::recover;
use crate::btree::Btree;
use crate::clock::Clock;
use crate::engine::kernel::{CommitHook, Kernel, KernelParts, View};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::plan::Erase;
use crate::observe;
use crate::storage::{Storage, Superblock};
use crate::tables::Catalogue;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How to open a kernel.
#[derive(Debug)]
pub(in crate::engine) struct KernelOptions {
    /// Every table of the stores.
    pub(in crate::engine) tables: Catalogue,
    pub(in crate::engine) cache_size: usize,
    pub(in crate::engine) clock: Arc<dyn Clock>,
    pub(in crate::engine) read_only: bool,
    /// What is told of every transaction.
    pub(in crate::engine) hook: CommitHook,
}

/// Recovers what a storage holds, and settles it unless it is to be read only; `path` names it in
/// errors. Says what was found, the time that it took aside.
pub(in crate::engine) fn open_kernel(
    storage: Arc<dyn Storage>,
    path: &Path,
    options: KernelOptions,
) -> Result<(Kernel, observe::Opened)> {
    let KernelOptions { tables, cache_size, clock, read_only, hook } = options;
    let superblock = Superblock::read(storage.as_ref(), path)?;
    let offset = superblock.btree_offset;
    let btree = if read_only {
        Btree::open_read_only(Arc::clone(&storage), offset, cache_size, tables)?
    } else {
        // A failed flush of the B-tree must not hide one of the log, nor the other way round.
        let separate =
            storage.separate().map_err(|error| Error::io("opening the file again", error))?;
        let of_btree = separate.unwrap_or_else(|| Arc::clone(&storage));
        Btree::open(of_btree, offset, cache_size, tables)?
    };
    let layout = layout_of(&superblock);
    let recovered = recover(storage.as_ref(), &layout, tables, btree.view().lsn())?;
    if !read_only {
        recovered.settle(storage.as_ref(), &layout)?;
        superblock.repair(storage.as_ref())?;
    }

    let plan = recovered.plan;
    let torn_bytes = |erase: &Erase| erase.to.saturating_sub(erase.from) as u64;
    let lsn = plan.next_lsn - 1;
    let found = observe::Opened {
        lsn,
        btree_lsn: recovered.btree_lsn,
        replayed: plan.replay.len() as u64,
        torn_bytes: plan.erase.iter().map(torn_bytes).sum(),
        took: Duration::ZERO,
    };
    let log = Log::new(Arc::clone(&storage), layout, &plan);
    let view = View {
        active: Arc::new(recovered.active),
        frozen: recovered.frozen.map(Arc::new),
        btree: btree.view(),
    };
    let kernel = Kernel::new(KernelParts {
        storage,
        superblock,
        log,
        btree,
        view,
        lsn,
        clock,
        read_only,
        hook,
    });
    Ok((kernel, found))
}
