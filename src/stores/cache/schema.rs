//! The tables of caches.

use super::content::ValueContent;
use super::row::{CacheRow, TagsRow, entry_key, split_key, split_tag_key, tag_keys};
use super::{lines, sweep};
use crate::codec::key;
use crate::engine::access::Reader;
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::stores::lines::{EntryLines, stored_json, to_base64};
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::row_check::RowCheck;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Broken, Constraints, Derived, EmitDerived, Ends, EntryCounting, Lines, LossSchema, Numbers,
    Overwrite, ReportBroken, Role, StoreSchema, TableSchema, lost, text_key,
};
use crate::stores::{StoreStates, dump};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// Cached values by (name of the cache, hash).
    pub(crate) const CACHE: Table =
        Table::new(&TableDef { number: 6, name: "cache", is_waited_for: false });

    /// The tags of a cached value, by the same key. Apart from the value, so that a plain `set`
    /// leaves them alone.
    pub(crate) const CACHE_TAGS: Table =
        Table::new(&TableDef { number: 7, name: "cache_tags", is_waited_for: false });

    /// Which cached values have a tag: (name of the cache, tag, hash) with empty values.
    pub(crate) const CACHE_BY_TAG: Table =
        Table::new(&TableDef { number: 8, name: "cache_by_tag", is_waited_for: false });
}

impl StoreKind {
    /// Caches ([`Cloakroom::cache`](crate::Cloakroom::cache)), by name.
    pub const CACHE: StoreKind = StoreKind::new(3, "cache", "cached values");
}

pub(crate) const STORE: StoreSchema =
    StoreSchema { kinds: &[StoreKind::CACHE], tables: &[&VALUES, &TAGS, &BY_TAG] };

const VALUES: TableSchema = TableSchema {
    table: Table::CACHE,
    role: Role::Primary,
    owner: |key| Owner::named(StoreKind::CACHE, key),
    check: |row| {
        check_key(row)?;
        match CacheRow::decode(row.value)?.content {
            ValueContent::Json(json) => row.json(json),
            ValueContent::Bytes(_) => Ok(()),
        }
    },
    derived: Derived::None,
    constraints: Constraints::Beside(lacks_tags),
    numbers: Numbers::None,
    ends: Ends::At {
        at: |value| {
            let expires_at = CacheRow::decode(value)?.expires_at;
            Ok(Some(expires_at).filter(|at| *at != Deadline::NEVER))
        },
        sweep: |tx, due, turn| sweep::sweep(tx, due, turn.budget),
    },
    change: |row| Some(row.of_entry()),
    shown_key: text_key,
    counted: EntryCounting::Entries(|| {
        Box::new(|rows, row| {
            Ok(EntryState::live_if(CacheRow::decode(row.value)?.is_live(&rows.moment())))
        })
    }),
    lines: Lines::Entries(EntryLines {
        write: lines::write,
        reader: Some(lines::reader),
        imported: Some(imported),
    }),
    dump_key: |key| dump::parts(key, ["cache", "hash"]),
    dump_value: |_, value| dump_cached(value),
    loss: LossSchema {
        meaning: "such values are no longer cached",
        unsure: None,
        left_out: Some(without_tags),
    },
};

const TAGS: TableSchema = TableSchema {
    table: Table::CACHE_TAGS,
    role: Role::Satellite { of: Table::CACHE, called: "the cached value that it has tags for" },
    owner: |key| Owner::named(StoreKind::CACHE, key),
    check: check_tags,
    derived: Derived::Rows(by_tag),
    constraints: Constraints::Misplaced(|rows, key, _| beside_untagged(rows, key)),
    numbers: Numbers::None,
    ends: Ends::Never,
    // They change with the value.
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key: |key| dump::parts(key, ["cache", "hash"]),
    dump_value: |_, value| Ok(json!({ "tags": TagsRow::decode(value)?.tags })),
    loss: LossSchema {
        meaning: "such values are no longer cached",
        unsure: None,
        left_out: Some(|rows, key, _| beside_untagged(rows, key)),
    },
};

const BY_TAG: TableSchema = TableSchema {
    table: Table::CACHE_BY_TAG,
    role: Role::Derived,
    owner: |key| Owner::named(StoreKind::CACHE, key),
    check: |row| {
        let (_, tag, hash) = split_tag_key(row.key)?;
        row.short(&tag)?;
        row.name_and(hash)?;
        row.empty()
    },
    derived: Derived::None,
    constraints: Constraints::Misplaced(|rows, key, _| without_entry(rows, key)),
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key: |key| dump::parts(key, ["cache", "tag", "hash"]),
    dump_value: |_, value| dump::no_value(Table::CACHE_BY_TAG, value),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

/// A name and a hash.
fn check_key(row: &RowCheck<'_>) -> Result<()> {
    let (_, hash) = split_key(row.table, row.key)?;
    row.name_and(hash)
}

fn check_tags(row: &RowCheck<'_>) -> Result<()> {
    check_key(row)?;
    let tags = TagsRow::decode(row.value)?.tags;
    if tags.is_empty() || !tags.is_sorted_by(|a, b| a < b) {
        return Err(row.bad("tags that are not in order, each once"));
    }
    tags.iter().try_for_each(|tag| row.short(tag))
}

fn by_tag(key: &[u8], value: &[u8], emit: &mut EmitDerived<'_>) -> Result<()> {
    for tag_key in tag_keys(key, &TagsRow::decode(value)?)? {
        emit(Table::CACHE_BY_TAG, tag_key, Vec::new());
    }
    Ok(())
}

fn lacks_tags(
    rows: &mut dyn Reader,
    key: &[u8],
    value: &[u8],
    report: &mut ReportBroken<'_>,
) -> Result<()> {
    if CacheRow::decode(value)?.tagged && rows.get(Table::CACHE_TAGS, key)?.is_none() {
        let problem = "is missing, but the cached value says that it has tags".to_owned();
        report(Broken { table: Table::CACHE_TAGS, key: key.to_vec(), problem });
    }
    Ok(())
}

/// Without its tags a value would outlive their invalidation.
fn without_tags(rows: &mut dyn Reader, key: &[u8], value: &[u8]) -> Result<Option<String>> {
    let lacks = CacheRow::decode(value)?.tagged && !TAGS.is_kept(rows, key)?;
    Ok(lacks.then(|| lost("what tags it has")))
}

fn beside_untagged(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<String>> {
    let Some(value) = rows.get(Table::CACHE, key)? else { return Ok(None) };
    let is_untagged = !CacheRow::decode(&value)?.tagged;
    Ok(is_untagged.then(|| "is beside a cached value that says it has no tags".to_owned()))
}

fn without_entry(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<String>> {
    let (prefix, tag, hash) = split_tag_key(key)?;
    let tags = rows.get(Table::CACHE_TAGS, &entry_key(prefix, hash))?;
    let tags = tags.map(|tags| TagsRow::decode(&tags)).transpose()?;
    let has_it = tags.is_some_and(|tags| tags.tags.contains(&tag));
    Ok((!has_it).then(|| "names a tag that its cached value does not have".to_owned()))
}

/// Handles of the cache that were there before know nothing of the entry.
fn imported(states: &StoreStates, mut key: &[u8]) {
    if let Some(name) = key::take_bytes(&mut key) {
        states.caches.forget_order(&String::from_utf8_lossy(&name));
    }
}

fn dump_cached(value: &[u8]) -> Result<Value> {
    let row = CacheRow::decode(value)?;
    let expires_at = Some(row.expires_at).filter(|at| *at != Deadline::NEVER);
    let value = match row.content {
        ValueContent::Json(json) => stored_json(json),
        ValueContent::Bytes(bytes) => json!({ "bytes_base64": to_base64(bytes) }),
    };
    Ok(json!({
        "expires_at": expires_at.map(dump::deadline), "stored_at_ms": row.stored_at_ms,
        "is_tagged": row.tagged, "value": value,
    }))
}
