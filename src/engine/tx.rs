//! A transaction: reads of the newest state, and staged rows that become one frame.

use super::access::{Reader, Row, Value, Writer};
use super::prefetch::Prefetched;
use super::view::{self, View};
use crate::error::{Error, Result};
use crate::log::batch;
use crate::memtable::full_key;
use crate::tables::Table;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Rows by full key; `None` is the absence of one.
pub(super) type Staged = BTreeMap<Vec<u8>, Option<Value>>;

/// The transaction that holds the serial lock.
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    view: Arc<View>,
    prefetched: &'a Prefetched<'a>,
    now_ms: u64,
    staged: Staged,
    rests_on: u64,
}

impl<'a> Tx<'a> {
    pub(super) fn new(view: Arc<View>, prefetched: &'a Prefetched<'a>, now_ms: u64) -> Self {
        Self { view, prefetched, now_ms, staged: Staged::new(), rests_on: 0 }
    }

    /// The greatest position among the versions that were read.
    pub(super) fn rests_on(&self) -> u64 {
        self.rests_on
    }

    pub(super) fn into_staged(self) -> Staged {
        self.staged
    }
}

impl Reader for Tx<'_> {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        let full = full_key(table, key);
        if let Some(staged) = self.staged.get(&full) {
            return Ok(staged.clone());
        }
        if let Some(found) = self.view.in_memory(&full, u64::MAX) {
            self.rests_on = self.rests_on.max(found.lsn);
            return Ok(found.value);
        }
        if let Some(row) = self.prefetched.get(&self.view.base, table, key) {
            return Ok(row);
        }
        self.view.base.get(table, key)
    }

    fn scan(
        &mut self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let first = match from.map(|key| full_key(table, key)) {
            Bound::Unbounded => Bound::Included(vec![table.number()]),
            first => first,
        };
        let end = match to.map(|key| full_key(table, key)) {
            Bound::Unbounded => Bound::Excluded(vec![table.number() + 1]),
            end => end,
        };
        if is_empty(&first, &end) {
            return Ok(Vec::new());
        }
        let staged: Vec<_> = self.staged.range::<Vec<u8>, _>((first, end)).collect();
        // Each staged row hides at most one committed row, so this many committed rows are enough.
        let committed_limit = limit.saturating_add(staged.len());
        let committed =
            view::scan(&self.view, u64::MAX, (table, from, to), committed_limit, &mut self.rests_on)?;
        let more = committed.len() == committed_limit;
        let horizon = committed.last().map(|(key, _)| key.clone());
        let mut rows: BTreeMap<Vec<u8>, Value> = committed.into_iter().collect();
        for (full, value) in staged {
            let key = full.get(1..).unwrap_or_default();
            if more && horizon.as_ref().is_some_and(|horizon| key > horizon.as_slice()) {
                break;
            }
            match value {
                Some(value) => rows.insert(key.to_vec(), Arc::clone(value)),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }
}

/// Whether a range holds no key whatever is stored, in which case `BTreeMap::range` may panic.
fn is_empty(from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}

impl Writer for Tx<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.staged.insert(full_key(table, key), Some(value.into()));
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.staged.insert(full_key(table, key), None);
    }
}

/// Encodes what was staged as the payload of one frame.
pub(super) fn encode(staged: &Staged, payload: &mut Vec<u8>) -> Result<()> {
    payload.clear();
    let operations = staged.iter().filter_map(|(full, value)| {
        let (number, key) = full.split_first()?;
        Some((Table::from_number(*number)?, key, value.as_deref()))
    });
    batch::encode(staged.len(), operations, payload).map_err(|error| Error::Encode(error.to_string()))
}
