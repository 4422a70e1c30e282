//! Giving back what the B-tree does not use any more, while it is read and written.
//!
//! redb has a `compact` of its own, which may run only while nobody reads, in transactions of up to
//! a million pages. Here pages move in small transactions, and readers keep their snapshots:
//!
//! 1. A walk over the newest commit finds how many blocks are in use, and which leaves lie behind
//!    the place where the file would end if the used blocks lay without gaps ([`Plan`]).
//! 2. Each step writes one row of each of some of these leaves over itself. redb never changes a
//!    page in place, so the leaf, and what is above it, moves to free pages, and it takes the
//!    lowest ones of the size.
//! 3. When nothing is left to move, the file is cut behind the last used block ([`Window::trim`]).
//!
//! Within a region of redb's storage pages do not move to the beginning, because redb prefers the
//! smallest free piece that is large enough. So up to a region may stay free. Where that is much
//! for what is used, redb's own `compact` does the rest ([`Btree::compact_whole`]): readers wait
//! for it, and there are so few pages that they do not wait for long.
//!
//! A step is a transaction like a checkpoint's, with the same LSN and the same rows, so a crash at
//! any point leaves the same content. The file does not grow from it: a step moves no more than a
//! fraction of what is free.
//!
//! [`Window::trim`]: super::window::Window::trim

use super::pages::{Depth, Pages, Place, Tables, Visit};
use super::view::Generation;
use super::window::Mode;
use super::{
    ApplyError, Btree, BtreeView, WindowFailure, definition, from_io, from_panic, from_redb,
};
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::tables::{Catalogue, Table};
use redb::ReadableTable;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The most leaves that are planned for at once; their keys are held in memory.
const MAX_PLANNED: usize = 16 * 1024;

/// A step moves at most this many blocks, so that a checkpoint which waits for it waits for little.
const STEP_BLOCKS: u64 = 512;

/// Blocks that stay free behind the used ones: what the next transactions need anyway. A part of
/// those that are used, and a few.
const SLACK_DIVISOR: u64 = 16;
const SLACK_BLOCKS: u64 = 128;

/// The smallest region: redb begins with a little more than a mebibyte.
const MIN_REGION_BLOCKS: u64 = 512;

/// The largest region that redb can have.
const MAX_REGION_BLOCKS: u64 = 1 << 20;

/// How many blocks a region of redb's storage shall have, so that a row of this size fits one. redb
/// takes free pages from the first region that has one of the size, but within a region not from
/// its beginning: so pages move towards the beginning of the file only as far as regions are small.
pub(super) fn region_blocks(max_row_bytes: u64) -> u32 {
    // A page has a power of two of blocks, and a few bytes more than its row.
    let blocks = (max_row_bytes.saturating_add(64)).div_ceil(BLOCK_SIZE as u64).next_power_of_two();
    u32::try_from(blocks.clamp(MIN_REGION_BLOCKS, MAX_REGION_BLOCKS)).unwrap_or(1 << 20)
}

/// What the blocks of the B-tree are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Space {
    /// Bytes of the B-tree that the file has room for, without checksums and headers.
    pub(crate) present_bytes: u64,
    /// Those of them that the newest commit uses.
    pub(crate) used_bytes: u64,
    /// Where the last used byte is.
    pub(crate) used_end: u64,
}

impl Space {
    /// Whether the file ends near the last used block.
    pub(crate) fn is_cut(&self) -> bool {
        self.present_bytes <= self.used_end
    }

    /// Bytes that the newest commit does not use.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.present_bytes.saturating_sub(self.used_bytes)
    }
}

/// Which leaves to move next.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    space: Space,
    /// The last one of the file is the last one here.
    moves: Vec<Move>,
}

/// A leaf that is to move, or below a branch that is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    /// The block for whose sake it moves.
    block: u64,
    blocks: u64,
    table: Table,
    /// Every key in the leaf is greater than this one.
    after: Option<Vec<u8>>,
}

impl Plan {
    /// How many leaves are left to move.
    pub(crate) fn len(&self) -> usize {
        self.moves.len()
    }
}

impl Btree {
    /// What the blocks are used for. Reads the branches of the tree, and no leaves; it waits for a
    /// checkpoint under way.
    ///
    /// # Errors
    /// [`Corrupted`](crate::Error::Corrupted) when a branch is damaged, so that nobody knows what
    /// is below it.
    pub(crate) fn space(&self) -> Result<Space> {
        let _writer = self.shared.writer.lock();
        let space = survey(self.shared.tables, &newest(&self.view())?, &mut |_, _, _, _| {})?;
        *self.shared.last_space.lock() = Some(space);
        Ok(space)
    }

    /// Plans which leaves to move.
    pub(crate) fn plan_compaction(&self) -> Result<Plan> {
        let _writer = self.shared.writer.lock();
        let view = self.view();
        let pages = newest(&view)?;
        let space = survey(self.shared.tables, &pages, &mut |_, _, _, _| {})?;
        let used = space.used_bytes / BLOCK_SIZE as u64;
        let end = 1 + used + used / SLACK_DIVISOR + SLACK_BLOCKS;
        // The last of the leaves in the file, the first of them on top.
        let mut last: BinaryHeap<Reverse<Move>> = BinaryHeap::new();
        let mut branch: Option<u64> = None;
        survey(self.shared.tables, &pages, &mut |table, place, is_leaf, after| {
            if !is_leaf {
                branch = branch.max(Some(place.block)).filter(|block| *block >= end);
                return;
            }
            // The first leaf below a branch stands for it.
            let Some(block) = branch.take().max(Some(place.block)).filter(|block| *block >= end)
            else {
                return;
            };
            let (blocks, after) = (place.blocks, after.map(<[u8]>::to_vec));
            last.push(Reverse(Move { block, blocks, table, after }));
            if last.len() > MAX_PLANNED {
                last.pop();
            }
        })?;
        let mut moves: Vec<Move> = last.into_iter().map(|Reverse(next)| next).collect();
        moves.sort();
        Ok(Plan { space, moves })
    }

    /// Moves some of the planned leaves, in one transaction. Returns the view to go on with, which
    /// has the same rows as the current one, and how many leaves were moved.
    ///
    /// After an error everything is as before, unless `flush_failed` says that nobody knows.
    pub(crate) fn compact_step(
        &self,
        plan: &mut Plan,
    ) -> Result<(Arc<BtreeView>, usize), ApplyError> {
        // What moves needs as much room, and what it left cannot be used before the step after the
        // next.
        let mut room = STEP_BLOCKS.min(plan.space.free_bytes() / BLOCK_SIZE as u64 / 8).max(1);
        let mut step = Vec::new();
        while let Some(next) = plan.moves.pop_if(|next| next.blocks <= room || step.is_empty()) {
            room = room.saturating_sub(next.blocks);
            step.push(next);
        }
        step.sort_by(|a, b| (a.table, &a.after).cmp(&(b.table, &b.after)));
        let moved = step.len();
        let view = self.write(None, |generation| {
            let window = &generation.window;
            let db = generation.db()?;
            catch_unwind(AssertUnwindSafe(|| rewrite(window, db, &step))).unwrap_or_else(|panic| {
                window.seal();
                Err(from_panic(window, panic.as_ref()))
            })
        })?;
        Ok((view, moved))
    }

    /// Has redb move all pages together, if nobody reads an older view. Everybody waits for it, so
    /// there should be few. Returns the view to go on with, if it did so.
    ///
    /// After an error everything is as before, unless `flush_failed` says that nobody knows.
    pub(crate) fn compact_whole(&self) -> Result<Option<Arc<BtreeView>>, ApplyError> {
        let shared = &self.shared;
        let mut writer = shared.writer.lock();
        if let Some(error) = &writer.flush_failure {
            return Err(ApplyError { error: error.clone(), flush_failed: true });
        }
        if shared.older_views_live(self.view().snapshot()) {
            return Ok(None);
        }
        let compacted = shared.writable().and_then(|current| {
            let window = current.window.succeed(Mode::Compacting).map_err(from_io)?;
            Generation::open(window, shared.cache_size, shared.tables)?.compact()?;
            shared.reopen(Mode::Writable)?;
            if shared.gauges.flush_failed.load(Ordering::SeqCst) {
                // redb says nothing of what fails while it closes.
                let failed = std::io::Error::other("a flush failed while redb closed");
                return Err(Error::io("compacting the B-tree", failed).into());
            }
            Ok(())
        });
        compacted.map_err(|failure| shared.give_up(&mut writer, failure))?;
        Ok(Some(self.view()))
    }

    /// Gives the room behind the last used block back to the file system. Does nothing while an
    /// older view is still read, because what it shows may lie there. Returns what is left.
    ///
    /// After an error nothing is lost, unless `flush_failed` says that nobody knows.
    pub(crate) fn trim(&self) -> Result<Space, ApplyError> {
        let shared = &self.shared;
        let mut writer = shared.writer.lock();
        let view = self.view();
        let surveyed =
            newest(&view).and_then(|pages| survey(shared.tables, &pages, &mut |_, _, _, _| {}));
        let mut space = surveyed.map_err(|error| ApplyError { error, flush_failed: false })?;
        let window = &view.snapshot().generation.window;
        if writer.flush_failure.is_none()
            && window.accepts_writes()
            && !shared.older_views_live(view.snapshot())
        {
            let trimmed = window.trim(space.used_end);
            space.present_bytes =
                trimmed.map_err(|error| shared.give_up(&mut writer, from_io(error)))?;
        }
        *shared.last_space.lock() = Some(space);
        Ok(space)
    }
}

/// The pages of the newest commit. The caller holds the writer lock, so that it stays the newest.
fn newest(view: &Arc<BtreeView>) -> Result<Pages<'_>> {
    let snapshot = view.snapshot();
    Pages::newest(&snapshot.generation.window)
}

/// Is shown a page: its table, where it lies, whether it is a leaf, and the key that all keys below
/// it are greater than.
type OnPage<'a> = dyn FnMut(Table, Place, bool, Option<&[u8]>) + 'a;

/// Shows every page of our tables, and counts those and redb's own.
fn survey(tables: Catalogue, pages: &Pages<'_>, visitor: &mut OnPage<'_>) -> Result<Space> {
    // Block 0 is redb's header.
    let (mut blocks, mut end) = (1, 1);
    for of in [Tables::User, Tables::System] {
        let mut count = |visit: &Visit<'_>| match visit {
            Visit::Page { place, .. } => {
                blocks += place.blocks;
                end = end.max(place.end());
                Ok(())
            }
            Visit::Row { .. } => Ok(()),
            Visit::Lost { error, .. } => Err(error.clone()),
        };
        for root in pages.tables(of, &mut |visit| count(&visit))? {
            let table = if of == Tables::User { tables.named(&root.name) } else { None };
            pages.visit(&root, Depth::LeafNumbers, &mut |visit| {
                if let (Some(table), Visit::Page { place, is_leaf, after }) = (table, &visit) {
                    visitor(table, *place, *is_leaf, *after);
                }
                count(&visit)
            })?;
        }
    }
    let present_bytes = pages.present_len();
    Ok(Space {
        present_bytes,
        used_bytes: blocks * BLOCK_SIZE as u64,
        used_end: end * BLOCK_SIZE as u64,
    })
}

/// Writes the first row of each leaf over itself.
fn rewrite(
    window: &super::window::Window,
    db: &redb::Database,
    step: &[Move],
) -> Result<(), WindowFailure> {
    let redb = |error: redb::Error| from_redb(window, error);
    let mut transaction = db.begin_write().map_err(|error| redb(error.into()))?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    for moves in step.chunk_by(|a, b| a.table == b.table) {
        let Some(first) = moves.first() else { continue };
        let mut table =
            transaction.open_table(definition(first.table)).map_err(|error| redb(error.into()))?;
        for next in moves {
            let from = next.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let row = table
                .range::<&[u8]>((from, Bound::Unbounded))
                .and_then(|mut rows| rows.next().transpose())
                .map_err(|error| redb(error.into()))?
                .map(|(key, value)| (key.value().to_vec(), value.value().to_vec()));
            // A leaf that is gone has nothing to move.
            if let Some((key, value)) = row {
                table
                    .insert(key.as_slice(), value.as_slice())
                    .map(drop)
                    .map_err(|error| redb(error.into()))?;
            }
        }
    }
    transaction.commit().map_err(|error| redb(error.into()))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]
mod tests;
