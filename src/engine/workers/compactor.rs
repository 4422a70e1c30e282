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
use crate::sync::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// Less free room than this is never worth the work.
const MIN_FREE_BYTES: u64 = 1 << 20;

/// The most that is used in a B-tree whose pages are all moved at once. That takes some tens of
/// flushes and as long as writing this much.
const MAX_WHOLE_BYTES: u64 = 4 << 20;

/// By itself a busy room is compacted only when the B-tree has written this many times what would
/// be moved since the last time, so that moving pages adds little to what is written anyway. What
/// the file had when it was opened counts as written.
const BUSY_FACTOR: u64 = 4;

/// Moving pages between regions is given up after so many rounds; each but the last gives room
/// back.
const MAX_ROUNDS: usize = 32;

/// A busy room is compacted so many steps at a time, each of which moves up to 2 MiB and may wait
/// for a checkpoint, so that the sweeper goes on between them.
const BUSY_STEPS: usize = 8;

/// A room that is closed gives back what is free when that is more than this, and more than what is
/// used.
const CLOSING_FREE_BYTES: u64 = 8 << 20;

/// What closing moves at the most, in steps of up to 2 MiB: closing waits for it.
const CLOSING_STEPS: usize = 32;

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
    /// The length of the B-tree when it was opened.
    opened_bytes: u64,
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

/// How far a compaction came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Compacted {
    /// Pages of rows that were moved.
    moved: u64,
    /// Whether nothing is left to do: not when it ran out of steps, nor when the file could not be
    /// cut because somebody reads an older state.
    is_complete: bool,
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

/// What to do by itself about a B-tree that has written `since` bytes since the last compaction.
fn by_itself(space: &Space, since: u64, idle: bool) -> Work {
    let mostly_free = space.free_bytes() > space.used_bytes.max(MIN_FREE_BYTES);
    if !mostly_free || (!idle && since < BUSY_FACTOR * space.used_bytes.max(MIN_FREE_BYTES)) {
        return Work::Nothing;
    }
    // No caller waits for what happens to an idle room.
    if idle && space.used_bytes <= MAX_WHOLE_BYTES { Work::Whole } else { Work::Move }
}

/// What to do when the room is closed: a file that is not opened for a while is small.
fn at_closing(space: &Space) -> Work {
    if space.free_bytes() > space.used_bytes.max(CLOSING_FREE_BYTES) {
        by_itself(space, u64::MAX, true)
    } else {
        Work::Nothing
    }
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
        let opened_bytes = kernel.btree().stats().len;
        Self { kernel, opened_bytes, state: Mutex::default(), running: Mutex::default() }
    }

    /// Gives back what is free, now.
    pub(in crate::engine) fn compact_now(&self) -> Result<CompactReport> {
        drop(self.kernel.take_turn()?);
        // What was deleted and is not in the B-tree yet takes its room until it is.
        self.kernel.checkpoint_now()?;
        let _one = self.running.lock();
        let before = self.file_bytes()?;
        let work = by_hand(&self.kernel.btree().space()?);
        let pages_moved = self.compact(work, usize::MAX)?.moved;
        Ok(CompactReport { bytes_before: before, bytes_after: self.file_bytes()?, pages_moved })
    }

    /// Gives back what is free if that is worth it. For the maintenance thread, from time to time.
    /// Says whether it is worth looking again soon, because there will be something to do if
    /// nothing is written until then.
    pub(in crate::engine) fn compact_if_worthwhile(&self) -> Result<bool> {
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
        // What a file had when it was opened was written before.
        let since = match state.compacted {
            Some(at) => written.saturating_sub(at),
            None => written.saturating_add(self.opened_bytes.saturating_mul(BUSY_FACTOR)),
        };
        let work = by_itself(&space, since, idle);
        self.state.lock().looked = looked;
        // What a compaction left is as good as it gets.
        if state.compacted == Some(written) {
            return Ok(false);
        }
        if work == Work::Nothing {
            return Ok(!idle && by_itself(&space, since, true) != Work::Nothing);
        }
        let done = self.compact(work, if idle { usize::MAX } else { BUSY_STEPS })?;
        if done.is_complete {
            *self.state.lock() =
                CompactionState { looked, compacted: Some(btree.stats().bytes_written) };
        }
        Ok(!done.is_complete)
    }

    /// Gives back what is free if that is much, before the kernel closes. What fails here is tried
    /// again at the next opening.
    pub(in crate::engine) fn compact_before_closing(&self) {
        let kernel = &self.kernel;
        if kernel.is_closed() || kernel.is_read_only() || kernel.log().failure().is_some() {
            return;
        }
        let compacted = self.compact_if_much_is_free();
        let _ = compacted.inspect_err(observe::compaction_failed);
    }

    fn compact_if_much_is_free(&self) -> Result<()> {
        // Nothing that is too small for it is looked at.
        if self.kernel.btree().stats().len <= CLOSING_FREE_BYTES {
            return Ok(());
        }
        // What was deleted and is not in the B-tree yet takes its room until it is. Closing would
        // run this checkpoint, too.
        self.kernel.checkpoint_now()?;
        let _one = self.running.lock();
        let work = at_closing(&self.kernel.btree().space()?);
        self.compact(work, CLOSING_STEPS).map(drop)
    }

    /// Does the work, or as much of it as so many steps do.
    fn compact(&self, work: Work, steps: usize) -> Result<Compacted> {
        if work == Work::Nothing {
            return Ok(Compacted { moved: 0, is_complete: true });
        }
        let _span = observe::compacting();
        let (started, before) = (Instant::now(), self.file_bytes()?);
        let done = self.move_pages(work, steps)?;
        observe::compacted(before, self.file_bytes()?, done.moved, started.elapsed());
        Ok(done)
    }

    fn move_pages(&self, work: Work, mut steps: usize) -> Result<Compacted> {
        let (mut moved, is_busy) = (0, steps == BUSY_STEPS);
        if work == Work::Whole && self.kernel.move_all_pages()? {
            let is_complete = self.kernel.cut_file()?.is_cut();
            return Ok(Compacted { moved, is_complete });
        }
        // Where somebody reads, not all pages can be moved at once. Moving some does not disturb
        // that.
        let mut present = self.kernel.btree().stats().len;
        for _ in 0..MAX_ROUNDS {
            let mut plan = self.kernel.btree().plan_compaction()?;
            while plan.len() > 0 && steps > 0 {
                moved += self.kernel.move_planned_pages(&mut plan)?;
                steps -= 1;
                if is_busy && !self.kernel.log().spare_is_free() {
                    // The next step would wait for a checkpoint.
                    steps = 0;
                }
            }
            let left = self.kernel.cut_file()?;
            if steps == 0 || !left.is_cut() {
                return Ok(Compacted { moved, is_complete: false });
            }
            if left.present_bytes >= present {
                break;
            }
            present = left.present_bytes;
        }
        Ok(Compacted { moved, is_complete: true })
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
            (100 * MIB, 49 * MIB, 195 * MIB, false, Work::Nothing),
            (100 * MIB, 49 * MIB, 196 * MIB, false, Work::Move),
            (600 * MIB, 20 * MIB, 80 * MIB, false, Work::Move),
            (600 * MIB, 20 * MIB, u64::MAX, false, Work::Move),
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
    fn a_room_is_compacted_when_it_closes_if_most_of_it_is_free_and_that_is_very_much() {
        for (present_bytes, used_bytes, expected) in [
            (8 * MIB, MIB / 2, Work::Nothing),
            (9 * MIB, MIB / 2, Work::Whole),
            (600 * MIB, 4096, Work::Whole),
            (600 * MIB, 18 * MIB, Work::Move),
            (600 * MIB, 301 * MIB, Work::Nothing),
        ] {
            let space = Space { present_bytes, used_bytes, ..Space::default() };
            assert_eq!(at_closing(&space), expected, "{space:?}");
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
