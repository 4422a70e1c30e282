//! What a watcher is shown of a transaction.

use super::change::{Change, ChangeKind, ChangedRow};
use super::filter::WatchFilter;
use crate::engine::CommittedRows;
use crate::stores::expiry::decode::decode_key;
use crate::stores::owner::Owner;
use crate::stores::registry;
use crate::stores::schema::TableSchema;
use crate::tables::Table;
use std::cell::OnceCell;
use std::collections::HashSet;

impl WatchFilter {
    /// What a transaction did, as far as it passes.
    pub(super) fn select(&self, rows: CommittedRows<'_>) -> Vec<Change> {
        let ended = OnceCell::new();
        let has_ended = |table: Table, key: &[u8]| {
            ended.get_or_init(|| ended_rows(rows)).contains(&(table, key.to_vec()))
        };
        let mut changes: Vec<Change> = Vec::new();
        for (table, key, value) in rows.iter() {
            if rows.is_unseen(table, key) {
                continue;
            }
            let Ok(schema) = registry::of(table) else { continue };
            let row = ChangedRow { rows, table, key, value, has_ended: &has_ended };
            let Some(kind) = (schema.change)(&row) else { continue };
            let Some(owner) = (schema.owner)(key) else { continue };
            changes.extend(self.change(rows.lsn, &owner, schema, kind));
        }
        if let Some(last) = changes.last_mut() {
            last.last_of_transaction = true;
        }
        changes
    }

    /// The change, if it passes.
    fn change(
        &self,
        lsn: u64,
        owner: &Owner<'_>,
        schema: &TableSchema,
        kind: ChangeKind,
    ) -> Option<Change> {
        let store = owner.store;
        if !self.admits_store(store, owner.name.as_deref()) {
            return None;
        }
        let (key, identity) = (schema.shown_key)(owner.key);
        let every_key = kind == ChangeKind::Cleared;
        if !self.admits_identity(identity.as_ref()) || !(every_key || self.admits_key(&key)) {
            return None;
        }
        let name = owner.name.as_deref().map(str::to_owned);
        Some(Change { lsn, last_of_transaction: false, store, name, key, identity, kind })
    }
}

/// The entries whose index row was removed from under a time that had come.
fn ended_rows(rows: CommittedRows<'_>) -> HashSet<(Table, Vec<u8>)> {
    rows.iter()
        .filter(|(table, _, value)| *table == Table::EXPIRY && value.is_none())
        .filter_map(|(_, key, _)| decode_key(key))
        .filter(|(at, _, _)| rows.moment.has_passed(*at))
        .map(|(_, table, primary)| (table, primary.to_vec()))
        .collect()
}
