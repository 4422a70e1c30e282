//! Rows looked up before the serial lock is taken.
//!
//! A lookup in the B-tree may touch the disk. The rows that an operation will probably read are therefore fetched
//! beforehand; under the lock they are used if the B-tree is still the same one.

use super::access::Value;
use super::view::View;
use crate::base::BaseView;
use crate::tables::Table;
use std::sync::Arc;

/// What the B-tree holds at some keys.
#[derive(Debug)]
pub(super) struct Prefetched<'a> {
    base: Arc<BaseView>,
    rows: Vec<(Table, &'a [u8], Option<Value>)>,
}

impl<'a> Prefetched<'a> {
    /// Looks up the `wanted` rows that are not in memory. A lookup that fails is left to the operation.
    pub(super) fn load(view: &View, wanted: &[(Table, &'a [u8])]) -> Self {
        let rows = wanted
            .iter()
            .filter(|(table, key)| view.in_memory(*table, key, u64::MAX).is_none())
            .filter_map(|&(table, key)| Some((table, key, view.base.get(table, key).ok()?)))
            .collect();
        Self { base: Arc::clone(&view.base), rows }
    }

    /// What `base` holds at `key`, if that was looked up.
    pub(super) fn get(&self, base: &Arc<BaseView>, table: Table, key: &[u8]) -> Option<Option<Value>> {
        if !Arc::ptr_eq(base, &self.base) {
            return None;
        }
        let row = self.rows.iter().find(|row| row.0 == table && row.1 == key)?;
        Some(row.2.clone())
    }
}
