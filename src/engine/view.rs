//! What readers look into: the in-memory tables and the B-tree, as of one position.

use super::access::{Reader, Row, Value};
use crate::btree::BtreeView;
use crate::error::Result;
use crate::memtable::{Found, Memtable};
use crate::tables::Table;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// The tables that together hold every row: newer ones hide older ones.
#[derive(Debug)]
pub(super) struct View {
    /// Takes the rows of new frames.
    pub(super) active: Arc<Memtable>,
    /// The rows of the segment that is being moved into the B-tree.
    pub(super) frozen: Option<Arc<Memtable>>,
    /// Everything older.
    pub(super) btree: Arc<BtreeView>,
}

impl View {
    /// Shows the same rows in another state of the B-tree. Answers what was shown before.
    pub(super) fn replace_btree(self: &mut Arc<Self>, btree: Arc<BtreeView>) -> Arc<Self> {
        let (active, frozen) = (Arc::clone(&self.active), self.frozen.clone());
        std::mem::replace(self, Arc::new(View { active, frozen, btree }))
    }

    /// The newest version of a row at or before `lsn` that is in memory.
    pub(super) fn in_memory(&self, table: Table, key: &[u8], lsn: u64) -> Option<Found> {
        self.active
            .get(table, key, lsn)
            .or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.get(table, key, lsn)))
    }

    /// The first row of the range in memory, the newer table hiding the older.
    pub(super) fn next_in_memory(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        lsn: u64,
    ) -> Option<(Box<[u8]>, Found)> {
        let active = self.active.next(table, from, to, lsn);
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.next(table, from, to, lsn));
        match (active, frozen) {
            (Some(active), Some(frozen)) if frozen.0 < active.0 => Some(frozen),
            (Some(active), _) => Some(active),
            (None, frozen) => frozen,
        }
    }
}

/// How many rows of the B-tree are read at once, when none of the rows before was to be seen.
const MAX_HIDDEN_PAGE: usize = 256;

/// Merges what is in memory over what is in the B-tree, in key order, up to `limit` rows.
/// `depends_on_lsn` becomes the greatest position among the versions touched, tombstones too.
pub(super) fn scan(
    view: &View,
    lsn: u64,
    range: (Table, Bound<&[u8]>, Bound<&[u8]>),
    limit: usize,
    depends_on_lsn: &mut u64,
) -> Result<Vec<Row>> {
    let (table, from, to) = range;
    let mut rows: Vec<Row> = Vec::new();
    let mut start: Bound<Vec<u8>> = from.map(<[u8]>::to_vec);
    let mut hidden = 0;
    while rows.len() < limit {
        // Where everything is hidden by tombstones, pages grow, so that a run of them costs a walk
        // and not a search for each.
        let wanted = (limit - rows.len()).max(hidden);
        let rows_before = rows.len();
        let below = view.btree.scan(table, bound(&start), to, wanted)?;
        // A short page is the last one; behind a full one there may be more rows, which come with
        // the next.
        let exhausted = below.len() < wanted;
        let mut below = below.into_iter().peekable();
        let mut above = view.next_in_memory(table, bound(&start), to, lsn);
        let mut last = None;
        while rows.len() < limit {
            let order = match (below.peek(), &above) {
                (None, _) if !exhausted => break,
                (None, None) => return Ok(rows),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((below, _)), Some((above, _))) => below.as_slice().cmp(above),
            };
            if order.is_le() {
                let row = below.next();
                last = row.as_ref().map(|(key, _)| key.clone());
                if order.is_lt() {
                    rows.extend(row);
                    continue;
                }
            }
            if let Some((key, found)) = above.take() {
                *depends_on_lsn = (*depends_on_lsn).max(found.lsn);
                above = view.next_in_memory(table, Bound::Excluded(&key), to, lsn);
                last = Some(key.to_vec());
                rows.extend(found.value.map(|value| (key.to_vec(), value)));
            }
        }
        if let Some(last) = last {
            start = Bound::Excluded(last);
        }
        let all_hidden = rows.len() == rows_before && table.has_small_rows();
        hidden = if all_hidden { (wanted * 2).min(MAX_HIDDEN_PAGE) } else { 0 };
    }
    Ok(rows)
}

fn bound(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
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
    pub(super) fn new(view: Arc<View>, lsn: u64, now_ms: u64) -> Self {
        Self { view, lsn, now_ms, depends_on_lsn: 0 }
    }

    /// The greatest position among the versions that were read, or zero when all came from the
    /// B-tree.
    pub(super) fn depends_on_lsn(&self) -> u64 {
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

    fn scan(
        &mut self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        scan(&self.view, self.lsn, (table, from, to), limit, &mut self.depends_on_lsn)
    }
}
