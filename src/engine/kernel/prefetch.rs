//! Rows looked up before the serial lock is taken.
//!
//! A lookup in the B-tree may touch the disk. The rows that an operation will probably read are
//! therefore fetched beforehand; under the lock they are used if the B-tree is still the same one.
//! They are named by the caller ([`Prefetched::load`]), or they are those that the operation read
//! in a [dry run](DryRun).

use super::access::{PageSize, Reader, RowPage, RowRange, Value, Writer, row_cost};
use super::snapshot::Snapshot;
use super::time_line::Moment;
use super::view::View;
use crate::btree::BtreeView;
use crate::durability::Durability;
use crate::error::Result;
use crate::tables::Table;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the B-tree holds at some keys.
#[derive(Debug)]
pub(crate) struct Prefetched<'a> {
    btree: Arc<BtreeView>,
    /// In the order of tables and keys.
    rows: Vec<(Table, Cow<'a, [u8]>, Option<Value>)>,
}

impl<'a> Prefetched<'a> {
    /// Looks up the `wanted` rows that are not in memory. A lookup that fails is left to the
    /// operation.
    pub(super) fn load(view: &View, wanted: &[(Table, &'a [u8])]) -> Self {
        let mut rows: Vec<_> = wanted
            .iter()
            .filter(|(table, key)| view.in_memory(*table, key, u64::MAX).is_none())
            .filter_map(|&(table, key)| {
                Some((table, Cow::Borrowed(key), view.btree.get(table, key, u64::MAX).ok()?))
            })
            .collect();
        rows.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Self { btree: Arc::clone(&view.btree), rows }
    }

    /// What `btree` holds at `key`, if that was looked up.
    pub(super) fn get(
        &self,
        btree: &Arc<BtreeView>,
        table: Table,
        key: &[u8],
    ) -> Option<Option<Value>> {
        if !Arc::ptr_eq(btree, &self.btree) {
            return None;
        }
        let at = self.rows.binary_search_by(|row| (row.0, &*row.1).cmp(&(table, key))).ok()?;
        self.rows.get(at).map(|row| row.2.clone())
    }
}

/// What an operation did in a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cost {
    /// Rows staged, absences too.
    pub(crate) changes: usize,
    /// What those take in a frame at most.
    pub(crate) frame_bytes: usize,
    /// Bytes of the rows that were read.
    pub(crate) read_bytes: usize,
}

/// A transaction that never happens: it reads one position without a lock, stages nothing, and
/// remembers what it read from the B-tree and what the operation would have cost. What is staged is
/// not read back.
#[derive(Debug)]
pub(crate) struct DryRun {
    snapshot: Snapshot,
    rows: BTreeMap<(Table, Vec<u8>), Option<Value>>,
    cost: Cost,
}

impl DryRun {
    pub(in crate::engine) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, rows: BTreeMap::new(), cost: Cost::default() }
    }

    /// What the operation would have cost so far.
    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// What was read from the B-tree, for the transaction itself.
    pub(in crate::engine) fn into_prefetched(self) -> Prefetched<'static> {
        let rows =
            self.rows.into_iter().map(|((table, key), value)| (table, Cow::Owned(key), value));
        Prefetched { rows: rows.collect(), btree: Arc::clone(self.snapshot.btree()) }
    }

    fn stage(&mut self, bytes: usize) {
        self.cost.changes += 1;
        self.cost.frame_bytes += row_cost(bytes);
    }
}

impl Reader for DryRun {
    fn moment(&self) -> Moment {
        self.snapshot.moment()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        let value = match self.snapshot.in_memory(table, key) {
            Some(value) => value,
            None => {
                let at = (table, key.to_vec());
                if let Some(known) = self.rows.get(&at) {
                    return Ok(known.clone());
                }
                let value = self.snapshot.btree_get(table, key)?;
                self.rows.insert(at, value.clone());
                value
            }
        };
        self.cost.read_bytes += value.as_ref().map_or(0, |value| value.len());
        Ok(value)
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        let page = self.snapshot.page(range, size)?;
        self.cost.read_bytes +=
            page.rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        Ok(page)
    }
}

impl Writer for DryRun {
    fn require(&mut self, _: Durability) {}

    fn put(&mut self, _: Table, key: &[u8], value: Vec<u8>) {
        self.stage(key.len() + value.len());
    }

    fn delete(&mut self, _: Table, key: &[u8]) {
        self.stage(key.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::checkpoint_tests::{options, write};
    use crate::storage::MemoryStorage;

    #[test]
    fn what_was_looked_up_in_an_older_tree_is_not_taken_for_what_is_there() {
        let engine = Engine::create_on(Arc::new(MemoryStorage::new()), options()).unwrap();
        write(&engine, b"key", Some(b"old"));
        engine.checkpoint().unwrap();
        let before = engine.kernel().view();
        let prefetched = Prefetched::load(&before, &[(Table::CACHE, b"key"), (Table::CACHE, b"-")]);
        let found = |of: &Arc<BtreeView>, key| prefetched.get(of, Table::CACHE, key);
        assert_eq!(found(&before.btree, b"key"), Some(Some(Value::from(&b"old"[..]))));
        assert_eq!(found(&before.btree, b"-"), Some(None));
        assert_eq!(found(&before.btree, b"never asked for"), None);
        write(&engine, b"key", Some(b"new"));
        engine.checkpoint().unwrap();
        assert_eq!(found(&engine.kernel().view().btree, b"key"), None);
    }
}
