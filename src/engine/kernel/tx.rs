//! A transaction: reads of the newest state, and staged rows that become one frame.

use super::access::{PageSize, Reader, RowPage, RowRange, Value, Writer};
use super::merge;
use super::prefetch::Prefetched;
use super::staged::{Changes, Staged, Unseen};
use super::time_line::Moment;
use super::view::View;
use crate::durability::Durability;
use crate::error::Result;
use crate::tables::Table;
use std::sync::Arc;

/// The transaction that holds the serial lock.
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    view: Arc<View>,
    prefetched: &'a Prefetched<'a>,
    moment: Moment,
    staged: Staged,
    /// Every change to a row that somebody may wait for, in order.
    changes: Changes,
    unseen: Unseen,
    depends_on_lsn: u64,
    durability: Durability,
}

impl<'a> Tx<'a> {
    pub(super) fn new(view: Arc<View>, prefetched: &'a Prefetched<'a>, moment: Moment) -> Self {
        Self {
            view,
            prefetched,
            moment,
            staged: Staged::new(),
            changes: Changes::new(),
            unseen: Unseen::new(),
            depends_on_lsn: 0,
            durability: Durability::Os,
        }
    }

    /// The greatest position among the versions that were read.
    pub(in crate::engine) fn depends_on_lsn(&self) -> u64 {
        self.depends_on_lsn
    }

    /// The durability that was asked for inside it.
    pub(super) fn required(&self) -> Durability {
        self.durability
    }

    /// How many rows were staged, absences too.
    pub(crate) fn staged_rows(&self) -> usize {
        self.staged.len()
    }

    /// What is to be applied, every change that somebody may wait for, and what changes nothing of
    /// an entry.
    pub(super) fn into_parts(self) -> (Staged, Changes, Unseen) {
        (self.staged, self.changes, self.unseen)
    }

    fn stage(&mut self, table: Table, key: &[u8], value: Option<Value>) {
        let at = (table, key.to_vec());
        if !self.unseen.is_empty() {
            self.unseen.remove(&at);
        }
        self.stage_at(at, value);
    }

    /// Stages a row that the change feed does not show, unless the transaction has changed it
    /// before.
    fn stage_unseen(&mut self, table: Table, key: &[u8], value: Option<Value>) {
        let at = (table, key.to_vec());
        if !self.staged.contains_key(&at) {
            self.unseen.insert(at.clone());
        }
        self.stage_at(at, value);
    }

    fn stage_at(&mut self, at: (Table, Vec<u8>), value: Option<Value>) {
        let (table, _) = at;
        if table.is_waited_for() {
            self.changes.push((at.clone(), value.clone()));
        }
        self.staged.insert(at, value);
    }
}

impl Reader for Tx<'_> {
    fn moment(&self) -> Moment {
        self.moment.clone()
    }

    fn wall_ms(&self) -> u64 {
        self.moment.wall_ms()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        if !self.staged.is_empty()
            && let Some(staged) = self.staged.get(&(table, key.to_vec()))
        {
            return Ok(staged.clone());
        }
        if let Some(found) = self.view.in_memory(table, key, u64::MAX) {
            self.depends_on_lsn = self.depends_on_lsn.max(found.lsn);
            return Ok(found.value);
        }
        if let Some(row) = self.prefetched.get(&self.view.btree, table, key) {
            return Ok(row);
        }
        self.view.btree.get(table, key, u64::MAX)
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        let staged = Some(&self.staged).filter(|staged| !staged.is_empty());
        let depends_on_lsn = &mut self.depends_on_lsn;
        merge::read_page(&self.view, u64::MAX, staged, range, size, depends_on_lsn)
    }
}

impl Writer for Tx<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.stage(table, key, Some(value.into()));
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.stage(table, key, None);
    }

    fn rewrite(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.stage_unseen(table, key, Some(value.into()));
    }

    fn delete_gone(&mut self, table: Table, key: &[u8]) {
        self.stage_unseen(table, key, None);
    }

    fn require(&mut self, durability: Durability) {
        self.durability = self.durability.and(durability);
    }
}
