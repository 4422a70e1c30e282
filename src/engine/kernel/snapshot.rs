//! Reads of the newest state, or of an earlier one that is kept.

use super::access::{PageSize, Reader, RowPage, RowRange, Value};
use super::merge;
use super::time_line::Moment;
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
    moment: Moment,
    depends_on_lsn: u64,
}

impl Snapshot {
    pub(in crate::engine) fn new(view: Arc<View>, lsn: u64, moment: Moment) -> Self {
        Self { view, lsn, moment, depends_on_lsn: 0 }
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

    /// What the B-tree holds at `key`, which is not in memory.
    pub(super) fn btree_get(&self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        self.view.btree.get(table, key, self.lsn)
    }

    /// The B-tree below.
    pub(super) fn btree(&self) -> &Arc<BtreeView> {
        &self.view.btree
    }
}

impl Reader for Snapshot {
    fn moment(&self) -> Moment {
        self.moment.clone()
    }

    fn wall_ms(&self) -> u64 {
        self.moment.wall_ms()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        match self.in_memory(table, key) {
            Some(value) => Ok(value),
            None => self.btree_get(table, key),
        }
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        merge::read_page(&self.view, self.lsn, None, range, size, &mut self.depends_on_lsn)
    }
}
