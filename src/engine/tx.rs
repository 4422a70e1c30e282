//! A transaction: reads of the newest state, and staged rows that become one frame.

use super::access::{Reader, Row, Value, Writer};
use super::prefetch::Prefetched;
use super::row_wait::Changes;
use super::view::{self, View};
use crate::error::Result;
use crate::log::batch;
use crate::tables::Table;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Rows by table and key; `None` is the absence of one.
pub(super) type Staged = BTreeMap<(Table, Vec<u8>), Option<Value>>;

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
    pub(super) fn depends_on_lsn(&self) -> u64 {
        self.depends_on_lsn
    }

    /// How many rows were staged, absences too.
    pub(crate) fn staged_rows(&self) -> usize {
        self.staged.len()
    }

    /// What is to be applied, and what watchers are to be told.
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

    fn scan(
        &mut self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        // Staged rows are few, and a scan inside a transaction is rare.
        let staged: Vec<_> = self
            .staged
            .iter()
            .filter(|((of, key), _)| {
                *of == table
                    && <(Bound<&[u8]>, Bound<&[u8]>) as RangeBounds<[u8]>>::contains(
                        &(from, to),
                        key.as_slice(),
                    )
            })
            .map(|((_, key), value)| (key, value))
            .collect();
        // Each staged row hides at most one committed row, so this many committed rows are enough.
        let committed_limit = limit.saturating_add(staged.len());
        let committed = view::scan(
            &self.view,
            u64::MAX,
            (table, from, to),
            committed_limit,
            &mut self.depends_on_lsn,
        )?;
        let more = committed.len() == committed_limit;
        let horizon = committed.last().map(|(key, _)| key.clone());
        let mut rows: BTreeMap<Vec<u8>, Value> = committed.into_iter().collect();
        for (key, value) in staged {
            if more && horizon.as_ref().is_some_and(|horizon| key > horizon) {
                break;
            }
            match value {
                Some(value) => rows.insert(key.clone(), Arc::clone(value)),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
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

/// Encodes what was staged as the payload of one frame.
pub(super) fn encode(staged: &Staged, payload: &mut Vec<u8>) -> Result<()> {
    payload.clear();
    let rows =
        staged.iter().map(|((table, key), value)| (*table, key.as_slice(), value.as_deref()));
    batch::encode_batch_into(payload, rows)
}
