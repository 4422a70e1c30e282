//! What readers look into: the in-memory tables and the B-tree, as of one position.

use crate::btree::BtreeView;
use crate::memtable::{HashedKey, Memtable, VersionFound};
use crate::tables::Table;
use std::sync::Arc;

/// The tables that together hold every row: newer ones hide older ones.
#[derive(Debug)]
pub(in crate::engine) struct View {
    /// Takes the rows of new frames.
    pub(in crate::engine) active: Arc<Memtable>,
    /// While frames are queued: the rows of the segments that are moved into the B-tree after that,
    /// the next one first.
    pub(in crate::engine) full: Vec<Arc<Memtable>>,
    /// The rows of the segment that is being moved into the B-tree.
    pub(in crate::engine) frozen: Option<Arc<Memtable>>,
    /// Everything older.
    pub(in crate::engine) btree: Arc<BtreeView>,
}

impl View {
    /// Shows the same rows in another state of the B-tree. Answers what was shown before.
    pub(super) fn replace_btree(self: &mut Arc<Self>, btree: Arc<BtreeView>) -> Arc<Self> {
        let (active, full) = (Arc::clone(&self.active), self.full.clone());
        let frozen = self.frozen.clone();
        std::mem::replace(self, Arc::new(View { active, full, frozen, btree }))
    }

    /// The newest version of a row at or before `lsn` that is in memory.
    pub(in crate::engine) fn in_memory(
        &self,
        table: Table,
        key: &[u8],
        lsn: u64,
    ) -> Option<VersionFound> {
        let key = HashedKey::new(table, key);
        self.active
            .get(key, lsn)
            .or_else(|| self.full.iter().rev().find_map(|full| full.get(key, lsn)))
            .or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.get(key, lsn)))
    }

    /// How many row versions are in memory.
    pub(in crate::engine) fn rows_in_memory(&self) -> usize {
        let older = self.full.iter().chain(&self.frozen);
        self.active.len() + older.map(|table| table.len()).sum::<usize>()
    }
}
