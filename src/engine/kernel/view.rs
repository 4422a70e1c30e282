//! What readers look into: the in-memory tables and the B-tree, as of one position.

use crate::btree::BtreeView;
use crate::memtable::{Memtable, VersionFound};
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
    pub(in crate::engine) fn in_memory(
        &self,
        table: Table,
        key: &[u8],
        lsn: u64,
    ) -> Option<VersionFound> {
        self.active
            .get(table, key, lsn)
            .or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.get(table, key, lsn)))
    }
}
