//! Creating a file, and opening one: what a crash left becomes the state that was acknowledged.
//!
//! Opening only reads until it is known that nothing acknowledged is missing. Then, in this order:
//! 1. holes that a sparse copy left in the log are filled with the zeros that they read as, so that
//!    the log does not find the disk full; stale frames behind a torn tail are erased and the
//!    erasure is flushed, so that they can never be reached again;
//! 2. everything is flushed, because a process that was killed may have left what was replayed with
//!    the operating system only; what no later durable LSN covers is written again before, because
//!    after a failed flush the system takes it for flushed although the disk does not have it;
//! 3. a segment whose frames are all in the B-tree gets a new generation;
//! 4. a mark covers what was recovered.
//!
//! A crash between any two of these leaves a file for which the same decisions are made again.
//!
//! A read-only opening makes the same decisions and stops there: what it replays is in memory, and
//! the file stays as the crash left it.

use super::format::layout_of;
use super::recovery::recover;
use crate::btree::Btree;
use crate::clock::{Clock, ElapsedOrigin};
use crate::engine::kernel::time_line::{Moment, NewestEpoch, TimeLine};
use crate::engine::kernel::{CommitHook, Kernel, KernelParts, Snapshot};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::plan::Erase;
use crate::observe;
use crate::storage::{Storage, Superblock, boot_id, twins};
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
    /// How long a leap of the wall clock must hold before what it ended is removed.
    pub(in crate::engine) leap_hold: Duration,
    /// The newest epoch of the time line that a row names.
    pub(in crate::engine) newest_epoch: NewestEpoch,
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
    let KernelOptions { tables, cache_size, clock, leap_hold, newest_epoch, read_only, hook } =
        options;
    let superblock = Superblock::read(storage.as_ref(), path)?;
    let offset = superblock.btree_offset;
    // A failed flush of the B-tree must not hide one of the log, nor the other way round.
    let separate = if read_only {
        None
    } else {
        storage.separate().map_err(|error| Error::io("opening the file again", error))?
    };
    let [of_log, of_btree] = match separate {
        Some(separate) => [Arc::clone(&storage), separate],
        None => twins(&storage),
    };
    let btree = Btree::open(of_btree, offset, cache_size, tables)?;
    let layout = layout_of(&superblock);
    let recovered = recover(storage.as_ref(), &layout, tables, btree.view().lsn())?;
    let lsn = recovered.plan.next_lsn - 1;
    // All that an opening reads is read before it writes, so that a file that turns out to be
    // damaged stays as it was.
    let mut rows = Snapshot::new(Arc::new(recovered.view(&btree)), lsn, Moment::manual(0));
    let origin = origin_of(clock.as_ref());
    let time = TimeLine::open(&mut rows, Arc::clone(&clock), origin, leap_hold, newest_epoch)?;
    drop(rows);
    if !read_only {
        btree.begin_writing()?;
        recovered.settle(storage.as_ref(), &layout)?;
        superblock.repair(storage.as_ref())?;
    }

    let view = Arc::new(recovered.view(&btree));
    let plan = recovered.plan;
    let torn_bytes = |erase: &Erase| erase.to.saturating_sub(erase.from) as u64;
    let found = observe::Opened {
        lsn,
        btree_lsn: recovered.btree_lsn,
        replayed: plan.replay.len() as u64,
        torn_bytes: plan.erase.iter().map(torn_bytes).sum(),
        took: Duration::ZERO,
    };
    let log = Log::new(of_log, layout, &plan);
    if !read_only {
        // What was recovered is durable now, and no later frame covers it yet.
        let _ = log.mark_idle();
    }
    let kernel = Kernel::new(KernelParts {
        storage,
        superblock,
        log,
        btree,
        view,
        lsn,
        clock,
        time,
        read_only,
        hook,
    });
    Ok((kernel, found))
}

/// What the elapsed time of a clock is counted from, if anybody knows.
fn origin_of(clock: &dyn Clock) -> Option<[u8; 16]> {
    match clock.elapsed_origin() {
        ElapsedOrigin::Id(id) => Some(id),
        ElapsedOrigin::Boot => boot_id(),
        ElapsedOrigin::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    /// A clock of which nothing is known but its readings.
    #[derive(Debug)]
    struct BareClock;

    impl Clock for BareClock {
        fn now_ms(&self) -> u64 {
            1
        }

        fn elapsed_ms(&self) -> u64 {
            1
        }
    }

    #[test]
    fn elapsed_time_has_the_origin_that_its_clock_tells_and_no_other() {
        assert_eq!(origin_of(&BareClock), None);
        assert_eq!(origin_of(&SystemClock::new()), boot_id());
        let (one, other) = (ManualClock::new(0), ManualClock::new(0));
        assert!(origin_of(&one).is_some_and(|id| origin_of(&one) == Some(id)));
        assert_ne!(origin_of(&one), origin_of(&other));
    }
}
