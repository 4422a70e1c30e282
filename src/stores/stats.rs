//! What a room holds, store by store.
//!
//! Every row of the file is read once, table by table, at one position. So an index row counts for
//! the store whose entry it is about, and all figures together are the room's.

use super::owner::StoreKind;
use super::registry;
use super::row_check::StoredRow;
use super::schema::{Entries, EntryCounting, EntryState, Role, TableSchema};
use crate::engine::EngineStats;
use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::error::Result;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::collections::{BTreeMap, HashMap};

/// What a room holds and what its engine counted, at one moment.
///
/// As JSON it is an object of `engine`, `sweep_backlog` and `stores`, in the forms of
/// [`EngineStats`] and [`StoreStats`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomStats {
    /// What the engine counted.
    pub engine: EngineStats,
    /// Rows of the expiry index whose time has come: what the sweeper has still to look at.
    /// EntryCounting a moment later than the rest.
    pub sweep_backlog: u64,
    /// One entry for each store that has rows, by kind and then by name.
    pub stores: Vec<StoreStats>,
}

/// What one store of a room holds.
///
/// As JSON it is an object with a member for each field, under the field's name; `store` is a
/// string such as `form_tokens`, and `name` is null for stores that have none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// What kind of store it is.
    pub store: StoreKind,
    /// Its name, for caches, stores of jobs and limiters. `None` also gathers requests of limiters
    /// whose windows are gone, which wait for the sweeper.
    pub name: Option<String>,
    /// Entries that are there by the room's clock: tokens that can be consumed or answer a replay,
    /// states (claimed ones too), cached values, jobs that are pending or remembered, windows and
    /// resources with requests, agent states, and what the adapter for `codlet` keeps.
    pub live: u64,
    /// How many of these are taken: consumed tokens, claimed states and pending jobs (also those
    /// whose owner died with an earlier opening).
    pub taken: u64,
    /// Entries that have ended: absent to every answer, they wait for the sweeper.
    pub expired: u64,
    /// Rows of all tables that belong to the store, index rows included.
    pub rows: u64,
    /// Bytes of the keys and values of all these rows.
    pub bytes: u64,
}

impl Serialize for RoomStats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("RoomStats", 3)?;
        fields.serialize_field("engine", &self.engine)?;
        fields.serialize_field("sweep_backlog", &self.sweep_backlog)?;
        fields.serialize_field("stores", &self.stores)?;
        fields.end()
    }
}

impl Serialize for StoreStats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("StoreStats", 7)?;
        fields.serialize_field("store", &self.store)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("live", &self.live)?;
        fields.serialize_field("taken", &self.taken)?;
        fields.serialize_field("expired", &self.expired)?;
        fields.serialize_field("rows", &self.rows)?;
        fields.serialize_field("bytes", &self.bytes)?;
        fields.end()
    }
}

/// The figures so far.
#[derive(Default)]
struct StoreCounts {
    stores: Vec<StoreStats>,
    by_owner: BTreeMap<(StoreKind, Option<String>), usize>,
    /// The store of each row that gives itself a number, by that number.
    numbered: HashMap<u64, usize>,
}

impl StoreCounts {
    /// The figures of a store, by number.
    fn index(&mut self, store: StoreKind, name: Option<&str>) -> usize {
        let at = (store, name.map(str::to_owned));
        if let Some(index) = self.by_owner.get(&at) {
            return *index;
        }
        let (index, name) = (self.stores.len(), at.1.clone());
        self.stores.push(StoreStats {
            store,
            name,
            live: 0,
            taken: 0,
            expired: 0,
            rows: 0,
            bytes: 0,
        });
        self.by_owner.insert(at, index);
        index
    }

    fn row(&mut self, index: usize, key: &[u8], value: &[u8]) {
        if let Some(stats) = self.stores.get_mut(index) {
            stats.rows += 1;
            stats.bytes += (key.len() + value.len()) as u64;
        }
    }

    fn entry(&mut self, index: usize, entry: EntryState) {
        if let Some(stats) = self.stores.get_mut(index) {
            match entry {
                EntryState::Live => stats.live += 1,
                EntryState::Taken => {
                    stats.live += 1;
                    stats.taken += 1;
                }
                EntryState::Expired => stats.expired += 1,
            }
        }
    }

    /// Counts a row for the store that it belongs to. Answers which that is.
    fn owned_row(&mut self, schema: &TableSchema, key: &[u8], value: &[u8]) -> Option<usize> {
        let index = match schema.role {
            Role::Numbered { number, store, .. } => {
                let owner = number(key).ok().and_then(|number| self.numbered.get(&number).copied());
                owner.unwrap_or_else(|| self.index(store, None))
            }
            Role::Primary | Role::Satellite { .. } | Role::Derived => {
                let owner = (schema.owner)(key)?;
                self.index(owner.store, owner.name.as_deref())
            }
        };
        self.row(index, key, value);
        Some(index)
    }

    /// Counts the rows of a table, and what they are entries of.
    fn table(&mut self, rows: &mut dyn Reader, schema: &TableSchema) -> Result<()> {
        let EntryCounting::Entries(counter) = schema.counted else {
            let mut cursor = RowCursor::all(schema.table);
            while let Some((key, value)) = cursor.next(rows)? {
                self.owned_row(schema, &key, &value);
            }
            return Ok(());
        };
        let mut state_of = counter();
        let mut entries = Entries::of(schema);
        while let Some(((key, value), beside)) = entries.next(rows)? {
            let Some(index) = self.owned_row(schema, &key, &value) else { continue };
            if let Some(beside) = &beside {
                self.row(index, &key, beside);
            }
            if let Some(number) = schema.numbers.of(&value)? {
                self.numbered.insert(number, index);
            }
            let row = StoredRow { key: &key, value: &value, satellite: beside.as_deref() };
            let state = state_of(rows, row)?;
            self.entry(index, state);
        }
        Ok(())
    }
}

/// Counts every row of the room.
pub(crate) fn stores(rows: &mut dyn Reader) -> Result<Vec<StoreStats>> {
    let mut counts = StoreCounts::default();
    // Rows that name others by number come when those are known, and those beside entries are
    // counted with them.
    let is_numbered = |schema: &TableSchema| matches!(schema.role, Role::Numbered { .. });
    let (numbered, others): (Vec<_>, Vec<_>) =
        registry::all().partition(|schema| is_numbered(schema));
    for schema in others.into_iter().chain(numbered) {
        let is_joined = match schema.role {
            Role::Satellite { of, .. } => {
                matches!(registry::of(of)?.counted, EntryCounting::Entries(_))
            }
            Role::Primary | Role::Numbered { .. } | Role::Derived => false,
        };
        if !is_joined {
            counts.table(rows, schema)?;
        }
    }
    counts.stores.sort_by(|a, b| (a.store, &a.name).cmp(&(b.store, &b.name)));
    Ok(counts.stores)
}
