//! A room that is only looked at: recovered in memory, row by row, with nothing written to it.
//!
//! This is how a new file is checked before it gets its name, and how the file of an older version
//! is read.

use super::format::layout_of;
use super::recovery::recover;
use crate::btree::Btree;
use crate::engine::kernel::cursor::RowCursor;
use crate::engine::kernel::time_line::Moment;
use crate::engine::kernel::{Snapshot, View};
use crate::error::Result;
use crate::storage::{Storage, Superblock};
use crate::tables::{Catalogue, Table};
use std::sync::Arc;

/// The content of a room, as an opening would find it.
#[derive(Debug)]
pub(in crate::engine) struct RecoveredImage {
    view: Arc<View>,
    lsn: u64,
    /// Whether recovery would have nothing to do: no frames to replay, nothing to erase.
    is_settled: bool,
    // Kept because the view reads through it.
    _base: Btree,
}

impl RecoveredImage {
    /// Reads what an opening of the room with this superblock would recover.
    ///
    /// # Errors
    /// As those of an opening: [`Corrupted`](crate::Error::Corrupted) and [`Io`](crate::Error::Io).
    pub(in crate::engine) fn open(
        storage: &Arc<dyn Storage>,
        superblock: &Superblock,
        cache_size: usize,
        tables: Catalogue,
    ) -> Result<Self> {
        let offset = superblock.btree_offset;
        let btree = Btree::open(Arc::clone(storage), offset, cache_size, tables)?;
        let layout = layout_of(superblock);
        let recovered = recover(storage.as_ref(), &layout, tables, btree.view().lsn())?;
        let plan = &recovered.plan;
        let is_settled = plan.replay.is_empty() && plan.erase.is_empty() && plan.recycle.is_empty();
        let lsn = plan.next_lsn - 1;
        Ok(Self { view: Arc::new(recovered.view(&btree)), lsn, is_settled, _base: btree })
    }

    /// The position of its last frame.
    pub(in crate::engine) fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Whether the B-tree has everything, and the log nothing.
    pub(in crate::engine) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Gives every row of every table, in order, to `each`.
    ///
    /// # Errors
    /// Those of `each`, [`Corrupted`](crate::Error::Corrupted) for a damaged block, and
    /// [`Io`](crate::Error::Io).
    pub(in crate::engine) fn for_each(
        &self,
        mut each: impl FnMut(Table, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut rows = Snapshot::new(Arc::clone(&self.view), self.lsn, Moment::manual(0));
        for &table in self.view.btree.tables().all() {
            let mut cursor = RowCursor::all(table);
            while let Some((key, value)) = cursor.next(&mut rows)? {
                each(table, &key, &value)?;
            }
        }
        Ok(())
    }
}
