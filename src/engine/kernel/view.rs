//! What readers look into: the in-memory tables and the B-tree, as of one position.

use super::access::{PageSize, Reader, RowPage, RowRange, Value};
use super::merge;
use crate::btree::BtreeView;
use crate::error::Result;
use crate::memtable::{Found, Memtable};
use crate::tables::Table;
use std::sync::Arc;

/// The tables that together hold every row: newer ones hide older ones.
#[derive(Debug)]
pub(in crate::engine) struct View {
    /// Takes the rows of new frames.
    pub(in crate::engine) active: Arc<Memtable>,
    /// The rows of the segment that is being moved into the B-tree.
    pub(in crate::engine) frozen: Option<Arc<Memtable>>,
    /// Everything older.
    pub(in crate::engine) btree: Arc<BtreeView>,
}

impl View {
    /// Shows the same rows in another state of the B-tree. Answers what was shown before.
    pub(super) fn replace_btree(self: &mut Arc<Self>, btree: Arc<BtreeView>) -> Arc<Self> {
        let (active, frozen) = (Arc::clone(&self.active), self.frozen.clone());
        std::mem::replace(self, Arc::new(View { active, frozen, btree }))
    }

    /// The newest version of a row at or before `lsn` that is in memory.
    pub(in crate::engine) fn in_memory(&self, table: Table, key: &[u8], lsn: u64) -> Option<Found> {
        self.active
            .get(table, key, lsn)
            .or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.get(table, key, lsn)))
    }
}

/// A consistent state: every frame up to one position, none after.
#[derive(Debug)]
pub(crate) struct Snapshot {
    view: Arc<View>,
    lsn: u64,
    now_ms: u64,
    depends_on_lsn: u64,
}

impl Snapshot {
    pub(in crate::engine) fn new(view: Arc<View>, lsn: u64, now_ms: u64) -> Self {
        Self { view, lsn, now_ms, depends_on_lsn: 0 }
    }

    /// The greatest position among the versions that were read, or zero when all came from the
    /// B-tree.
    pub(in crate::engine) fn depends_on_lsn(&self) -> u64 {
        self.depends_on_lsn
    }

    /// The row or its absence, if that is in memory.
    pub(super) fn in_memory(&mut self, table: Table, key: &[u8]) -> Option<Option<Value>> {
        let found = self.view.in_memory(table, key, self.lsn)?;
        self.depends_on_lsn = self.depends_on_lsn.max(found.lsn);
        Some(found.value)
    }

    /// The B-tree below.
    pub(super) fn btree(&self) -> &Arc<BtreeView> {
        &self.view.btree
    }
}

impl Reader for Snapshot {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        match self.in_memory(table, key) {
            Some(value) => Ok(value),
            None => self.view.btree.get(table, key),
        }
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        merge::read_page(&self.view, self.lsn, None, range, size, &mut self.depends_on_lsn)
    }
}
