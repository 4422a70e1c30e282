//! What a room holds, store by store.
//!
//! Every row of the file is read once, table by table, at one position. So an index row counts for
//! the store whose entry it is about, and all figures together are the room's.

use super::adaptive_rate_limit::ops::ResourceRow;
use super::cache::row::CacheRow;
use super::dedupe::row::{JobRow, Progress};
use super::expiry;
use super::form_token::row::{Phase, TokenRow, UseRow};
use super::handoff::row::{ClaimRow, StateRow};
use super::merge_join;
use super::owner::{Owner, StoreKind};
use super::rate_limit::limiter::StoreRow;
use super::rate_limit::ops::WindowRow;
use crate::codec::{self, key};
use crate::engine::EngineStats;
use crate::engine::access::{Reader, Value};
use crate::error::Result;
use crate::stores::schema::catalogue;
use crate::tables::Table;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// How many rows one step reads. Few, because values may have megabytes.
const SCAN_SLICE: usize = 64;

/// What a room holds and what its engine counted, at one moment.
///
/// As JSON it is an object of `engine`, `sweep_backlog` and `stores`, in the forms of
/// [`EngineStats`] and [`StoreStats`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomStats {
    /// What the engine counted.
    pub engine: EngineStats,
    /// Rows of the expiry index whose time has come: what the sweeper has still to look at. Counted
    /// a moment later than the rest.
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

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Live,
    Taken,
    Expired,
}

impl EntryState {
    fn live_if(live: bool) -> Self {
        if live { EntryState::Live } else { EntryState::Expired }
    }
}

/// The figures so far.
#[derive(Default)]
struct StoreCounts {
    stores: Vec<StoreStats>,
    by_place: BTreeMap<(StoreKind, Option<String>), usize>,
    /// The store of each window, by the number that its requests name it by.
    windows: HashMap<u64, usize>,
    /// How often each limiter was cleared.
    clears: HashMap<(StoreKind, String), u64>,
}

impl StoreCounts {
    /// The figures of a store, by number.
    fn index(&mut self, store: StoreKind, name: Option<&str>) -> usize {
        let at = (store, name.map(str::to_owned));
        if let Some(index) = self.by_place.get(&at) {
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
        self.by_place.insert(at, index);
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

    /// Counts a row where it belongs.
    fn owner(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<usize> {
        let owner = Owner::of(table, key)?;
        let index = self.index(owner.store, owner.name.as_deref());
        self.row(index, key, value);
        Some(index)
    }

    /// Whether a limiter was cleared after one of its rows was written.
    fn is_cleared(&self, store: StoreKind, key: &[u8], clears: u64) -> bool {
        let name = Owner::of(Table::RATE_LIMIT, key).and_then(|owner| owner.name);
        let now = name.and_then(|name| self.clears.get(&(store, name.into_owned())).copied());
        now.unwrap_or_default() != clears
    }
}

/// Shows `each` every row of `table`, in key order.
fn every(
    rows: &mut dyn Reader,
    table: Table,
    mut each: impl FnMut(&[u8], &Value) -> Result<()>,
) -> Result<()> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = rows.scan(table, from, Bound::Unbounded, SCAN_SLICE)?;
        for (key, value) in &found {
            each(key, value)?;
        }
        if found.len() < SCAN_SLICE {
            return Ok(());
        }
        after = found.into_iter().next_back().map(|(key, _)| key);
    }
}

/// Counts every row of the room.
pub(crate) fn stores(rows: &mut dyn Reader) -> Result<Vec<StoreStats>> {
    let mut counts = StoreCounts::default();
    tokens(rows, &mut counts)?;
    states(rows, &mut counts)?;
    limiters(rows, &mut counts)?;
    for &table in catalogue().all() {
        match table {
            Table::FORM_TOKEN
            | Table::FORM_TOKEN_USE
            | Table::HANDOFF
            | Table::HANDOFF_CLAIM
            | Table::RATE_LIMIT_STORE
            | Table::RATE_LIMIT
            | Table::ADAPTIVE_RATE_LIMIT
            | Table::RATE_LIMIT_REQUEST => {}
            Table::EXPIRY => expiries(rows, &mut counts)?,
            _ => others(rows, table, &mut counts)?,
        }
    }
    counts.stores.sort_by(|a, b| (a.store, &a.name).cmp(&(b.store, &b.name)));
    Ok(counts.stores)
}

fn tokens(rows: &mut dyn Reader, counts: &mut StoreCounts) -> Result<()> {
    let now_ms = u128::from(rows.now_ms());
    merge_join::visit(
        rows,
        (Table::FORM_TOKEN, Table::FORM_TOKEN_USE),
        SCAN_SLICE,
        None,
        |key, token, used| {
            let index = counts.index(StoreKind::FormTokens, None);
            counts.row(index, key, token);
            if let Some(used) = used {
                counts.row(index, key, used);
            }
            let used = used.map(|used| UseRow::decode(used)).transpose()?;
            let entry = match TokenRow::decode(token)?.phase(used.as_ref(), now_ms) {
                Phase::Unconsumed => EntryState::Live,
                Phase::Consumed => EntryState::Taken,
                Phase::Absent => EntryState::Expired,
            };
            counts.entry(index, entry);
            Ok(true)
        },
    )
}

fn states(rows: &mut dyn Reader, counts: &mut StoreCounts) -> Result<()> {
    let now_ms = rows.now_ms();
    merge_join::visit(
        rows,
        (Table::HANDOFF, Table::HANDOFF_CLAIM),
        SCAN_SLICE,
        None,
        |key, state, claim| {
            let index = counts.index(StoreKind::Handoff, None);
            counts.row(index, key, state);
            if let Some(claim) = claim {
                counts.row(index, key, claim);
            }
            let claim = claim.map(|claim| ClaimRow::decode(claim)).transpose()?;
            let entry = match StateRow::decode(state)?.is_live(now_ms) {
                true if claim.is_some_and(|claim| claim.is_live(now_ms)) => EntryState::Taken,
                live => EntryState::live_if(live),
            };
            counts.entry(index, entry);
            Ok(true)
        },
    )
}

/// The windows of limiters, and then their requests, which name them by number.
fn limiters(rows: &mut dyn Reader, counts: &mut StoreCounts) -> Result<()> {
    let now_ms = rows.now_ms();
    every(rows, Table::RATE_LIMIT_STORE, |key, value| {
        let Some(owner) = Owner::of(Table::RATE_LIMIT_STORE, key) else { return Ok(()) };
        let row: StoreRow = codec::decode_row(Table::RATE_LIMIT_STORE.name(), value)?;
        let name = owner.name.unwrap_or_default();
        let index = counts.index(owner.store, Some(&name));
        counts.row(index, key, value);
        counts.clears.insert((owner.store, name.into_owned()), row.clears);
        Ok(())
    })?;
    every(rows, Table::RATE_LIMIT, |key, value| {
        let Some(index) = counts.owner(Table::RATE_LIMIT, key, value) else { return Ok(()) };
        let row = WindowRow::decode(value)?;
        let cleared = counts.is_cleared(StoreKind::RateLimit, key, row.clears);
        let kept = row
            .history
            .last_ms()
            .is_some_and(|last_ms| now_ms < last_ms.saturating_add(row.keep_ms));
        counts.entry(index, EntryState::live_if(kept && !cleared));
        counts.windows.insert(row.id, index);
        Ok(())
    })?;
    every(rows, Table::ADAPTIVE_RATE_LIMIT, |key, value| {
        let Some(index) = counts.owner(Table::ADAPTIVE_RATE_LIMIT, key, value) else {
            return Ok(());
        };
        let row = ResourceRow::decode(value)?;
        let cleared = counts.is_cleared(StoreKind::AdaptiveRateLimit, key, row.clears);
        let last_ms =
            [row.user, row.background, row.admitted].iter().filter_map(|lane| lane.last_ms()).max();
        let kept = last_ms.is_some_and(|last_ms| now_ms < last_ms.saturating_add(row.keep_ms));
        counts.entry(index, EntryState::live_if(kept && !cleared));
        counts.windows.insert(row.id, index);
        Ok(())
    })?;
    every(rows, Table::RATE_LIMIT_REQUEST, |key, value| {
        let window = key::take_u64(&mut &*key).and_then(|id| counts.windows.get(&id).copied());
        let index = window.unwrap_or_else(|| counts.index(StoreKind::RateLimit, None));
        counts.row(index, key, value);
        Ok(())
    })
}

/// The index rows, each of which counts for the entry that it names.
fn expiries(rows: &mut dyn Reader, counts: &mut StoreCounts) -> Result<()> {
    every(rows, Table::EXPIRY, |key, value| {
        let owner =
            expiry::decode_key(key).and_then(|(_, table, primary)| Owner::of(table, primary));
        if let Some(owner) = owner {
            let index = counts.index(owner.store, owner.name.as_deref());
            counts.row(index, key, value);
        }
        Ok(())
    })
}

fn others(rows: &mut dyn Reader, table: Table, counts: &mut StoreCounts) -> Result<()> {
    let now_ms = rows.now_ms();
    every(rows, table, |key, value| {
        let Some(index) = counts.owner(table, key, value) else { return Ok(()) };
        let entry = match table {
            Table::CACHE => EntryState::live_if(CacheRow::decode(value)?.is_live(now_ms)),
            Table::DEDUPE_JOB => {
                let row = JobRow::decode(value)?;
                match (row.is_live(now_ms), row.progress) {
                    (true, Progress::Pending) => EntryState::Taken,
                    (live, _) => EntryState::live_if(live),
                }
            }
            Table::STATE => EntryState::Live,
            Table::CODLET_CODE | Table::CODLET_SESSION => {
                EntryState::live_if(now_ms < kept_until(table, value)?)
            }
            Table::CODLET_FAILURES => EntryState::live_if(now_ms < failures_end(value)?),
            _ => return Ok(()),
        };
        counts.entry(index, entry);
        Ok(())
    })
}

/// Until when a record of the adapter for `codlet` is kept. The adapter may not be compiled in; its
/// rows are there.
fn kept_until(table: Table, value: &[u8]) -> Result<u64> {
    let (_, keep_until_ms, _): (&[u8], u64, &[u8]) = codec::decode_row(table.name(), value)?;
    Ok(keep_until_ms)
}

/// When nothing in a row of counted failures counts any more.
fn failures_end(value: &[u8]) -> Result<u64> {
    let row: (u64, Vec<(u64, u32)>) = codec::decode_row(Table::CODLET_FAILURES.name(), value)?;
    let (window_ms, runs) = row;
    Ok(runs.last().map_or(0, |(at_ms, _)| at_ms.saturating_add(window_ms)))
}
