//! Reads of the newest state, or of an earlier one that is kept.

use super::access::{PageSize, Reader, RowPage, RowRange, Value};
use super::merge;
use super::view::View;
use crate::btree::BtreeView;
use crate::error::Result;
use crate::tables::Table;
use std::sync::Arc;

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
