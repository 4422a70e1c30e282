//! A transaction: reads of the newest state, and staged rows that become one frame.

use super::access::{PageSize, Reader, RowPage, RowRange, Value, Writer};
use super::merge;
use super::prefetch::Prefetched;
use super::staged::{Changes, Staged};
use super::view::View;
use crate::error::Result;
use crate::tables::Table;
use std::sync::Arc;

/// The transaction that holds the serial lock.
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    view: Arc<View>,
    prefetched: &'a Prefetched<'a>,
    now_ms: u64,
    staged: Staged,
    /// Every change to a row that somebody may wait for, in order.
    changes: Changes,
    depends_on_lsn: u64,
}

impl<'a> Tx<'a> {
    pub(super) fn new(view: Arc<View>, prefetched: &'a Prefetched<'a>, now_ms: u64) -> Self {
        Self {
            view,
            prefetched,
            now_ms,
            staged: Staged::new(),
            changes: Changes::new(),
            depends_on_lsn: 0,
        }
    }

    /// The greatest position among the versions that were read.
    pub(in crate::engine) fn depends_on_lsn(&self) -> u64 {
        self.depends_on_lsn
    }

    /// How many rows were staged, absences too.
    pub(crate) fn staged_rows(&self) -> usize {
        self.staged.len()
    }

    /// What is to be applied, and every change that somebody may wait for.
    pub(super) fn into_parts(self) -> (Staged, Changes) {
        (self.staged, self.changes)
    }

    fn stage(&mut self, table: Table, key: &[u8], value: Option<Value>) {
        let at = (table, key.to_vec());
        if table.is_waited_for() {
            self.changes.push((at.clone(), value.clone()));
        }
        self.staged.insert(at, value);
    }
}

impl Reader for Tx<'_> {
    fn now_ms(&self) -> u64 {
        self.now_ms
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
        self.view.btree.get(table, key)
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
}
