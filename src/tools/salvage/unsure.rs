//! The ranges of keys in which rows may be lost.

use crate::btree::pages::KeyRange;
use crate::stores::schema::TableSchema;
use crate::tables::Table;
use std::collections::BTreeMap;

/// Ranges of keys in which rows may be lost, of tables for which that makes other rows unsure.
pub(super) type Unsure = BTreeMap<Table, Vec<KeyRange>>;

/// Takes note of keys whose rows may be lost.
pub(super) fn lose_range(schema: &TableSchema, keys: KeyRange, unsure: &mut Unsure) {
    if schema.loss.unsure.is_some() {
        unsure.entry(schema.table).or_default().push(keys);
    }
}
