//! Compaction: returns unused space of the B-tree to the file system while it is read and written.
//!
//! redb's own `compact` needs exclusive access, and moves up to a million pages in a transaction.
//! Here pages move in small transactions, and readers keep their snapshots:
//!
//! 1. A walk over the newest commit finds how many blocks are in use, and which leaves are beyond
//!    the position where the file would end if the used blocks had no gaps ([`Plan`]).
//! 2. Each step rewrites one row of each of some of these leaves. redb never changes a page in
//!    place, so the leaf and the branches above it move to free pages, and redb takes the lowest
//!    ones of the size.
//! 3. When nothing is left to move, the file is cut after the last used block ([`Window::trim`]).
//!
//! Within a region of redb's storage pages do not move to the beginning, because redb prefers the
//! smallest free range that is large enough. So up to one region may stay free. If that is much
//! compared with what is used, redb's own `compact` does the rest ([`Btree::compact_whole`]):
//! readers wait for it, but not for long, because there are few pages.
//!
//! A step is a transaction like that of a checkpoint, with the same LSN and the same rows, so a
//! crash at any point leaves the same content. The file does not grow: a step moves at most a
//! fraction of what is free.
//!
//! [`Window::trim`]: super::window::Window::trim

use super::fault::{WindowFailure, from_io};
use super::pages::{Depth, PageSpan, Pages, Tables, Visit};
use super::redb_call::{from_panic, from_redb};
use super::redb_tables::definition;
use super::space::Space;
use super::view::BtreeDatabase;
use super::window::Mode;
use super::{ApplyError, Btree, BtreeView};
use crate::error::{Error, Result};
use crate::fault::DeliberateFault;
use crate::limits::BLOCK_SIZE;
use crate::tables::{Catalogue, Table};
use redb::ReadableTable;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The most leaves in one plan. Their keys are held in memory.
const MAX_PLANNED: usize = 16 * 1024;

/// A step moves at most this many blocks, so that a checkpoint waits only briefly for it.
const STEP_BLOCKS: u64 = 512;

/// Blocks that stay free after the used ones, because the next transactions need them: a fraction
/// of the used blocks, plus a constant.
const SLACK_DIVISOR: u64 = 16;
const SLACK_BLOCKS: u64 = 128;

/// Which leaves to move next.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    space: Space,
    /// In the order of the file.
    moves: Vec<LeafMove>,
}

/// A leaf to move, or a leaf below a branch to move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LeafMove {
    /// The first block of the page to move: the leaf or the branch.
    block: u64,
    blocks: u64,
    table: Table,
    /// Every key in the leaf is greater than this one.
    after: Option<Vec<u8>>,
}

impl Plan {
    /// The number of leaves left to move.
    pub(crate) fn len(&self) -> usize {
        self.moves.len()
    }
}

impl Btree {
    /// How much is used. Reads the branches of the tree, and no leaves. Waits for a running
    /// checkpoint.
    ///
    /// # Errors
    /// [`Corrupted`](crate::Error::Corrupted) when a branch is damaged, so that it is unknown what
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
        // The last leaves in the file, the first of them on top.
        let mut last: BinaryHeap<Reverse<LeafMove>> = BinaryHeap::new();
        let mut branch: Option<u64> = None;
        survey(self.shared.tables, &pages, &mut |table, place, is_leaf, after| {
            if !is_leaf {
                branch = branch.max(Some(place.block)).filter(|block| *block >= end);
                return;
            }
            // A branch moves with the first leaf below it.
            let Some(block) = branch.take().max(Some(place.block)).filter(|block| *block >= end)
            else {
                return;
            };
            let (blocks, after) = (place.blocks, after.map(<[u8]>::to_vec));
            last.push(Reverse(LeafMove { block, blocks, table, after }));
            if last.len() > MAX_PLANNED {
                last.pop();
            }
        })?;
        let mut moves: Vec<LeafMove> = last.into_iter().map(|Reverse(next)| next).collect();
        moves.sort();
        Ok(Plan { space, moves })
    }

    /// Moves some of the planned leaves, in one transaction. Returns the new view, which has the
    /// same rows as the current one, and how many leaves were moved.
    ///
    /// After an error everything is unchanged; with `flush_failed` the state is unknown.
    pub(crate) fn compact_step(
        &self,
        plan: &mut Plan,
    ) -> Result<(Arc<BtreeView>, usize), ApplyError> {
        // What moves needs as much free space, and the pages that it leaves can be reused only in
        // the step after the next.
        let mut space = STEP_BLOCKS.min(plan.space.free_bytes() / BLOCK_SIZE as u64 / 8).max(1);
        let mut step = Vec::new();
        while let Some(next) = plan.moves.pop_if(|next| next.blocks <= space || step.is_empty()) {
            space = space.saturating_sub(next.blocks);
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

    /// Runs redb's own compaction of all pages, if no older view is still read. Readers and the
    /// writer wait for it, so call it only when there are few pages. Returns the new view, or
    /// `None` if it did not run.
    ///
    /// After an error everything is unchanged; with `flush_failed` the state is unknown.
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
            BtreeDatabase::open(window, shared.cache_size, shared.tables)?.compact()?;
            shared.reopen(Mode::Writable)?;
            if shared.gauges.flush_failed.load(Ordering::SeqCst) {
                // redb does not report what fails while it closes.
                let failed = std::io::Error::other("a flush failed while redb closed");
                return Err(Error::io("compacting the B-tree", failed).into());
            }
            Ok(())
        });
        compacted.map_err(|failure| shared.give_up(&mut writer, failure))?;
        Ok(Some(self.view()))
    }

    /// Returns the space after the last used block to the file system. Does nothing while an older
    /// view is still read, because its pages may be there. Returns what remains.
    ///
    /// After an error nothing is lost; with `flush_failed` the state is unknown.
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
            let cut_off = u64::from(DeliberateFault::CutBelowLastBlock.is_on());
            let trimmed = window.trim(space.used_end - cut_off * BLOCK_SIZE as u64);
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

/// Called for a page with its table, its position, whether it is a leaf, and a key that is less
/// than every key below it.
type OnPage<'a> = dyn FnMut(Table, PageSpan, bool, Option<&[u8]>) + 'a;

/// Shows every page of this crate's tables, and counts those and redb's own.
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

/// Rewrites the first row of each leaf.
fn rewrite(
    window: &super::window::Window,
    db: &redb::Database,
    step: &[LeafMove],
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
            // A leaf that no longer exists has nothing to move.
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
