//! Compaction: giving the room that the B-tree does not use back to the file system, while
//! everything goes on.
//!
//! Pages move in steps, each a transaction of the B-tree with the rows and the position of the last
//! checkpoint, between which checkpoints run and readers and writers never wait. The one exception
//! are rooms so small that moving all pages at once takes no time worth mentioning: see
//! [`Work::Whole`].

use crate::btree::Space;
use crate::engine::kernel::Kernel;
use crate::error::{Error, Result};
use crate::observe;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// Less free room than this is never worth the work.
const MIN_FREE_BYTES: u64 = 1 << 20;

/// The most that is used in a B-tree whose pages are all moved at once. That takes some tens of
/// flushes and as long as writing this much.
const MAX_WHOLE_BYTES: u64 = 4 << 20;

/// By itself a busy room is compacted only when the B-tree has written this many times its own size
/// since the last time, so that moving pages adds little to what is written anyway.
const BUSY_FACTOR: u64 = 2;

/// Moving pages between regions is given up after so many rounds; each but the last gives room
/// back.
const MAX_ROUNDS: usize = 32;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactReport {
    /// The length of the file before, in bytes.
    pub bytes_before: u64,
    /// The length of the file after, in bytes. Greater only when others wrote meanwhile.
    pub bytes_after: u64,
    /// Pages of rows that were moved. Zero when there was nothing worth moving, and when all pages
    /// were moved at once.
    pub pages_moved: u64,
}

/// The compactor, and when it looked last, and when there was last something to do.
#[derive(Debug)]
pub(in crate::engine) struct Compactor {
    kernel: Arc<Kernel>,
    state: Mutex<CompactionState>,
    /// One compaction at a time.
    running: Mutex<()>,
}

#[derive(Debug, Default, Clone, Copy)]
struct CompactionState {
    /// Bytes that the B-tree had written and the newest LSN when somebody looked last.
    looked: Option<(u64, u64)>,
    /// Bytes that the B-tree had written after the last compaction since the room was opened.
    compacted: Option<u64>,
}

/// What is worth doing about free room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Nothing,
    /// Moving pages out of the last regions.
    Move,
    /// Moving all pages at once: readers and writers wait for it.
    Whole,
}

/// What to do by itself about a B-tree that has written `written` bytes, `since` of them since the
/// last compaction.
fn by_itself(space: &Space, since: u64, idle: bool) -> Work {
    let mostly_free = space.free_bytes() > space.used_bytes.max(MIN_FREE_BYTES);
    if !mostly_free || (!idle && since < BUSY_FACTOR * space.present_bytes) {
        return Work::Nothing;
    }
    // No caller waits for what happens to an idle room.
    if idle && space.used_bytes <= MAX_WHOLE_BYTES { Work::Whole } else { Work::Move }
}

/// What to do when somebody asks for it.
fn by_hand(space: &Space) -> Work {
    match space {
        space if space.free_bytes() <= space.used_bytes / 8 + MIN_FREE_BYTES => Work::Nothing,
        space if space.used_bytes <= MAX_WHOLE_BYTES => Work::Whole,
        _ => Work::Move,
    }
}

impl Compactor {
    pub(super) fn new(kernel: Arc<Kernel>) -> Self {
        Self { kernel, state: Mutex::default(), running: Mutex::default() }
    }

    /// Gives back what is free, now.
    pub(in crate::engine) fn compact_now(&self) -> Result<CompactReport> {
        drop(self.kernel.take_turn()?);
        // What was deleted and is not in the B-tree yet takes its room until it is.
        self.kernel.checkpoint_now()?;
        let _one = self.running.lock();
        let before = self.file_bytes()?;
        let work = by_hand(&self.kernel.btree().space()?);
        let pages_moved = self.compact(work)?;
        Ok(CompactReport { bytes_before: before, bytes_after: self.file_bytes()?, pages_moved })
    }

    /// Gives back what is free if that is worth it. For the maintenance thread, from time to time.
    /// Says whether it is worth looking again soon, because there will be something to do if
    /// nothing is written until then.
    pub(super) fn compact_if_worthwhile(&self) -> Result<bool> {
        if self.kernel.is_closed() || self.kernel.log().failure().is_some() {
            return Ok(false);
        }
        let btree = self.kernel.btree();
        let Some(_one) = self.running.try_lock() else { return Ok(false) };
        let written = btree.stats().bytes_written;
        let state = *self.state.lock();
        let looked = Some((written, self.kernel.log().appended()));
        let idle = state.looked == looked;
        let space = match btree.stats().space {
            Some(space) if state.looked.is_some_and(|(at, _)| at == written) => space,
            _ => btree.space()?,
        };
        let since = written.saturating_sub(state.compacted.unwrap_or_default());
        let work = by_itself(&space, since, idle);
        self.state.lock().looked = looked;
        // What a compaction left is as good as it gets.
        if state.compacted == Some(written) {
            return Ok(false);
        }
        if work == Work::Nothing {
            return Ok(!idle && by_itself(&space, since, true) != Work::Nothing);
        }
        self.compact(work)?;
        *self.state.lock() =
            CompactionState { looked, compacted: Some(btree.stats().bytes_written) };
        Ok(false)
    }

    fn compact(&self, work: Work) -> Result<u64> {
        if work == Work::Nothing {
            return Ok(0);
        }
        let _span = observe::compacting();
        let (started, before) = (Instant::now(), self.file_bytes()?);
        let moved = self.move_pages(work)?;
        observe::compacted(before, self.file_bytes()?, moved, started.elapsed());
        Ok(moved)
    }

    fn move_pages(&self, work: Work) -> Result<u64> {
        let mut moved = 0;
        if work == Work::Whole && self.kernel.move_all_pages()? {
            self.kernel.cut_file()?;
            return Ok(moved);
        }
        // Where somebody reads, not all pages can be moved at once. Moving some does not disturb
        // that.
        let mut present = self.kernel.btree().stats().len;
        for _ in 0..MAX_ROUNDS {
            let mut plan = self.kernel.btree().plan_compaction()?;
            while plan.len() > 0 {
                moved += self.kernel.move_planned_pages(&mut plan)?;
            }
            let left = self.kernel.cut_file()?.present_bytes;
            if left >= present {
                break;
            }
            present = left;
        }
        Ok(moved)
    }

    fn file_bytes(&self) -> Result<u64> {
        self.kernel
            .storage()
            .len()
            .map_err(|error| Error::io("asking for the length of the file", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_room_is_compacted_by_itself_when_most_of_it_is_free_and_that_is_much() {
        for (present_bytes, used_bytes, since, idle, expected) in [
            (10 * MIB, 6 * MIB, 100 * MIB, true, Work::Nothing),
            (100 * MIB, 49 * MIB, 0, true, Work::Move),
            (100 * MIB, 51 * MIB, 0, true, Work::Nothing),
            (100 * MIB, 49 * MIB, 199 * MIB, false, Work::Nothing),
            (100 * MIB, 49 * MIB, 200 * MIB, false, Work::Move),
            (8 * MIB, 3 * MIB, 0, true, Work::Whole),
            (8 * MIB, 3 * MIB, 16 * MIB, false, Work::Move),
            (MIB, 4096, 16 * MIB, true, Work::Nothing),
            (2 * MIB, 4096, 16 * MIB, true, Work::Whole),
        ] {
            let space = Space { present_bytes, used_bytes, ..Space::default() };
            assert_eq!(by_itself(&space, since, idle), expected, "{space:?} {since} {idle}");
        }
    }

    #[test]
    fn by_hand_less_is_worth_it() {
        for (present_bytes, used_bytes, expected) in [
            (10 * MIB, 9 * MIB, Work::Nothing),
            (100 * MIB, 80 * MIB, Work::Move),
            (5 * MIB, 3 * MIB, Work::Whole),
            (MIB, 4096, Work::Nothing),
        ] {
            let space = Space { present_bytes, used_bytes, ..Space::default() };
            assert_eq!(by_hand(&space), expected, "{space:?}");
        }
    }
}
