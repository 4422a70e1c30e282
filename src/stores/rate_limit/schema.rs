//! The tables of plain limiters, and those that both kinds of limiters share.

use super::history::{self, History, HistoryId};
use super::limiter::{
    ConfigRow, CooldownRow, Kind, LAST_ID_KEY, StoreRow, clears_at, store_key_of,
};
use super::lines::{LimiterKey, kind_of, kind_text};
use super::ops::{LANE, WindowRow};
use super::{lines, sweep, window_lines};
use crate::codec::{self, key};
use crate::engine::access::Reader;
use crate::error::{Error, Result};
use crate::stores::adaptive_rate_limit::sweep::sweep_cleared;
use crate::stores::dump::{self, no_key};
use crate::stores::lines::{EntryLines, Problem};
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::row_check::RowCheck;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Broken, Constraints, CountEntry, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers,
    Overwrite, ReportBroken, Role, StoreSchema, TableSchema, lost, text_key,
};
use crate::stores::watch::{ChangeKind, ChangedRow};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};
use std::borrow::Cow;

impl Table {
    /// The windows of plain limiters by (limiter, resource).
    pub(crate) const RATE_LIMIT: Table =
        Table::new(&TableDef { number: 12, name: "rate_limit", is_waited_for: false });

    /// When the requests of a window were made, and how many came before.
    pub(crate) const RATE_LIMIT_REQUEST: Table =
        Table::new(&TableDef { number: 13, name: "rate_limit_request", is_waited_for: false });

    /// What a whole limiter has: how often it was cleared; and the last number that was given to a
    /// window.
    pub(crate) const RATE_LIMIT_STORE: Table =
        Table::new(&TableDef { number: 14, name: "rate_limit_store", is_waited_for: false });

    /// The configurations that resources have of their own, by (limiter, resource).
    pub(crate) const RATE_LIMIT_CONFIG: Table =
        Table::new(&TableDef { number: 15, name: "rate_limit_config", is_waited_for: false });

    /// Cooldowns by (limiter, origin).
    pub(crate) const RATE_LIMIT_COOLDOWN: Table =
        Table::new(&TableDef { number: 16, name: "rate_limit_cooldown", is_waited_for: false });
}

impl StoreKind {
    /// Plain limiters ([`Cloakroom::rate_limit`](crate::Cloakroom::rate_limit)), by name.
    pub const RATE_LIMIT: StoreKind =
        StoreKind::new(5, "rate_limit", "windows and cooldowns of rate limits");
}

pub(crate) const STORE: StoreSchema = StoreSchema {
    kinds: &[StoreKind::RATE_LIMIT],
    tables: &[&WINDOWS, &REQUESTS, &LIMITERS, &CONFIGS, &COOLDOWNS],
};

const WINDOWS: TableSchema = TableSchema {
    table: Table::RATE_LIMIT,
    role: Role::Primary,
    owner: limiter_owner,
    check: |row| {
        check_limiter_key(row, &[Kind::Plain])?;
        WindowRow::decode(row.value).map(drop)
    },
    derived: Derived::None,
    constraints: Constraints::Beside(|rows, _, value, report| {
        lacks_requests(rows, histories(value)?, report)
    }),
    numbers: Numbers::Given(|value| Ok(WindowRow::decode(value)?.id)),
    ends: Ends::At {
        at: |value| Ok(WindowRow::decode(value)?.indexed_at),
        sweep: |tx, due, turn| sweep::sweep_window(tx, due, turn.budget),
    },
    change: |row| {
        changed_window(row, |value| Ok(WindowRow::decode(value)?.history.last_ms().is_some()))
    },
    shown_key: text_key,
    counted: EntryCounting::Entries(counter),
    lines: Lines::Entries(EntryLines {
        write: window_lines::write_plain,
        reader: Some(window_lines::reader),
        imported: None,
    }),
    dump_key: |key| dump_limiter_key(Table::RATE_LIMIT, key, "resource"),
    dump_value: |_, value| dump_window(value),
    loss: LossSchema {
        meaning: "such requests are forgotten",
        unsure: None,
        left_out: Some(|rows, _, value| without_requests(rows, histories(value)?)),
    },
};

const REQUESTS: TableSchema = TableSchema {
    table: Table::RATE_LIMIT_REQUEST,
    role: Role::Numbered {
        by: &[Table::RATE_LIMIT, Table::ADAPTIVE_RATE_LIMIT],
        number: |key| Ok(history::place_of(key)?.id),
        store: StoreKind::RATE_LIMIT,
        called: "a window",
    },
    owner: |_| None,
    check: |row| history::check_row(row.key, row.value),
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::Never,
    // They change with the window.
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key: |key| dump_request_key(key).ok_or_else(|| no_key("no four numbers")),
    dump_value: |_, value| {
        let name = Table::RATE_LIMIT_REQUEST.name();
        Ok(json!({ "requests_before": codec::decode_row::<u64>(name, value)? }))
    },
    loss: LossSchema { meaning: "such requests are forgotten", unsure: None, left_out: None },
};

const LIMITERS: TableSchema = TableSchema {
    table: Table::RATE_LIMIT_STORE,
    role: Role::Primary,
    owner: whole_limiter_owner,
    check: check_whole_limiter,
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::Greatest {
        key: LAST_ID_KEY,
        called: "a window",
        decode: decode_last_id,
        encode: |last_id| codec::encode(&last_id),
    },
    // An adaptive limiter that was cleared stands in the index at the time of each clear until a
    // sweeper has seen to what was forgotten. Whether one has is not known after a salvage.
    ends: Ends::Hinted {
        sweep_after_salvage: |key| key.first() == Some(&(Kind::Adaptive as u8)),
        sweep: |tx, due, turn| sweep_cleared(tx, due.key, turn.walked, turn.budget),
    },
    change: |_| Some(ChangeKind::Cleared),
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Unless(not_the_next_id)),
    dump_key: dump_whole_limiter_key,
    dump_value: dump_whole_limiter,
    loss: LossSchema {
        meaning: "what was forgotten by a clear may count again, and other counts are forgotten",
        unsure: None,
        left_out: None,
    },
};

const CONFIGS: TableSchema = TableSchema {
    table: Table::RATE_LIMIT_CONFIG,
    role: Role::Primary,
    owner: limiter_owner,
    check: check_config,
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| Some(ChangeKind::Configured),
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::Entries(EntryLines {
        write: lines::write_config,
        reader: Some(lines::config_reader),
        imported: None,
    }),
    dump_key: |key| dump_limiter_key(Table::RATE_LIMIT_CONFIG, key, "resource"),
    dump_value: |_, value| {
        let row: ConfigRow = codec::decode_row(Table::RATE_LIMIT_CONFIG.name(), value)?;
        Ok(json!({
            "limit": row.limit, "window_seconds": row.window_seconds,
            "window_nanos": row.window_nanos,
        }))
    },
    loss: LossSchema {
        meaning: "such resources have the configuration of their limiter",
        unsure: None,
        left_out: None,
    },
};

const COOLDOWNS: TableSchema = TableSchema {
    table: Table::RATE_LIMIT_COOLDOWN,
    role: Role::Primary,
    owner: limiter_owner,
    check: |row| {
        check_limiter_key(row, &[Kind::Plain, Kind::Adaptive])?;
        decode_cooldown(row.value).map(drop)
    },
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |value| Ok(Some(decode_cooldown(value)?.ends_at)),
        sweep: |tx, due, _| sweep::sweep_cooldown(tx, due),
    },
    change: |row| Some(row.value.map_or(ChangeKind::Resumed, |_| ChangeKind::Paused)),
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::Entries(EntryLines {
        write: lines::write_cooldown,
        reader: Some(lines::cooldown_reader),
        imported: None,
    }),
    dump_key: |key| dump_limiter_key(Table::RATE_LIMIT_COOLDOWN, key, "origin"),
    dump_value: |_, value| {
        let row = decode_cooldown(value)?;
        Ok(json!({
            "clears": row.clears, "until_ms": row.until_ms,
            "ends_at": dump::deadline(row.ends_at),
        }))
    },
    loss: LossSchema { meaning: "such cooldowns have ended", unsure: None, left_out: None },
};

/// What a changed window means: one that remembers no request was reset.
pub(crate) fn changed_window(
    row: &ChangedRow<'_>,
    remembers: impl FnOnce(&[u8]) -> Result<bool>,
) -> Option<ChangeKind> {
    match row.value.map(|value| remembers(value)) {
        Some(Ok(false)) => Some(ChangeKind::Removed),
        _ => Some(row.of_entry()),
    }
}

/// The kind of limiter that a key begins with, and the rest.
fn limiter(key: &[u8]) -> Option<(StoreKind, &[u8])> {
    let (&number, rest) = key.split_first()?;
    let store = match kind_of(number)? {
        Kind::Plain => StoreKind::RATE_LIMIT,
        Kind::Adaptive => StoreKind::ADAPTIVE_RATE_LIMIT,
    };
    Some((store, rest))
}

/// The owner of a row whose key is a limiter and something of it.
pub(crate) fn limiter_owner(key: &[u8]) -> Option<Owner<'_>> {
    let (store, rest) = limiter(key)?;
    Owner::named(store, rest)
}

fn whole_limiter_owner(key: &[u8]) -> Option<Owner<'_>> {
    let (store, name) = limiter(key)?;
    let name = Some(Cow::Borrowed(std::str::from_utf8(name).ok()?));
    Some(Owner { store, name, key: &[] })
}

fn check_kind(row: &RowCheck<'_>, kind: u8, allowed: &[Kind]) -> Result<()> {
    if allowed.iter().any(|allowed| *allowed as u8 == kind) {
        return Ok(());
    }
    Err(row.bad_key("an unknown kind of limiter"))
}

/// Refuses a key that is not a kind, a name and a resource or an origin.
pub(crate) fn check_limiter_key(row: &RowCheck<'_>, allowed: &[Kind]) -> Result<()> {
    let (&kind, mut rest) = row.key.split_first().ok_or_else(|| row.bad_key("it is empty"))?;
    check_kind(row, kind, allowed)?;
    let name = key::take_bytes(&mut rest).ok_or_else(|| row.bad_key("it has no name"))?;
    row.text(&name)?;
    row.text(rest)
}

fn check_whole_limiter(row: &RowCheck<'_>) -> Result<()> {
    let Some((&kind, name)) = row.key.split_first() else {
        return decode_last_id(row.value).map(drop);
    };
    check_kind(row, kind, &[Kind::Plain, Kind::Adaptive])?;
    row.text(name)?;
    codec::decode_row::<StoreRow>(row.table.name(), row.value).map(drop)
}

fn check_config(row: &RowCheck<'_>) -> Result<()> {
    check_limiter_key(row, &[Kind::Plain, Kind::Adaptive])?;
    let config: ConfigRow = codec::decode_row(row.table.name(), row.value)?;
    if config.window_nanos >= 1_000_000_000
        || (config.window_seconds, config.window_nanos) == (0, 0)
    {
        return Err(row.bad("a window that is none"));
    }
    Ok(())
}

fn decode_last_id(value: &[u8]) -> Result<u64> {
    codec::decode_row(Table::RATE_LIMIT_STORE.name(), value)
}

fn decode_cooldown(value: &[u8]) -> Result<CooldownRow> {
    codec::decode_row(Table::RATE_LIMIT_COOLDOWN.name(), value)
}

fn histories(value: &[u8]) -> Result<Vec<(HistoryId, History)>> {
    let row = WindowRow::decode(value)?;
    Ok(vec![(HistoryId { id: row.id, lane: LANE }, row.history)])
}

/// The keys of request rows that histories need and that are not there.
fn lost_requests(
    rows: &mut dyn Reader,
    histories: Vec<(HistoryId, History)>,
) -> Result<Vec<Vec<u8>>> {
    let mut lost = Vec::new();
    for (place, history) in histories {
        lost.extend(history.lost(rows, place)?);
    }
    Ok(lost)
}

/// Shows the rows of requests that the histories of a window need and that are not there.
pub(crate) fn lacks_requests(
    rows: &mut dyn Reader,
    histories: Vec<(HistoryId, History)>,
    report: &mut ReportBroken<'_>,
) -> Result<()> {
    for key in lost_requests(rows, histories)? {
        let problem = "is missing or wrong, and a window counts from it".to_owned();
        report(Broken { table: Table::RATE_LIMIT_REQUEST, key, problem });
    }
    Ok(())
}

/// Why a salvage leaves out a window with these histories.
pub(crate) fn without_requests(
    rows: &mut dyn Reader,
    histories: Vec<(HistoryId, History)>,
) -> Result<Option<String>> {
    let gone = || Some(lost("when its requests were made"));
    match lost_requests(rows, histories) {
        Ok(requests) if requests.is_empty() => Ok(None),
        Ok(_) | Err(Error::Corrupted { .. }) => Ok(gone()),
        Err(error) => Err(error),
    }
}

/// How often the limiters of rows were cleared, for rows in key order.
#[derive(Debug, Default)]
pub(crate) struct Clears {
    /// The limiter of the last row.
    last: Option<(Vec<u8>, u64)>,
}

impl Clears {
    /// Whether the row at `key` of `table` was written before its limiter was cleared last.
    pub(crate) fn hide(
        &mut self,
        rows: &mut dyn Reader,
        (table, key): (Table, &[u8]),
        clears: u64,
    ) -> Result<bool> {
        let store_key = store_key_of(table, key)?;
        let known = self.last.take().filter(|(last, _)| *last == store_key);
        let now = match known {
            Some((_, now)) => now,
            None => clears_at(rows, &store_key)?,
        };
        self.last = Some((store_key, now));
        Ok(now != clears)
    }
}

fn counter() -> CountEntry {
    let mut cleared = Clears::default();
    Box::new(move |rows, row| {
        let window = WindowRow::decode(row.value)?;
        let is_kept = window
            .history
            .last_ms()
            .is_some_and(|last_ms| rows.moment().since(last_ms) < window.keep_ms);
        let is_hidden = cleared.hide(rows, (Table::RATE_LIMIT, row.key), window.clears)?;
        Ok(EntryState::live_if(is_kept && !is_hidden))
    })
}

/// Why an import may not count on: the next number must be the one that its lines have counted to.
fn not_the_next_id(there: Option<&[u8]>, new: &[u8]) -> Result<Option<Problem>> {
    let last = there.map_or(Ok(0), decode_last_id)?;
    let is_next = last.checked_add(1) == Some(decode_last_id(new)?);
    Ok((!is_next).then(|| "a limiter of this room is used while the import runs".into()))
}

/// The parts of a key that is a limiter and something of it, which is called `of`.
pub(crate) fn dump_limiter_key(table: Table, key: &[u8], of: &str) -> Result<Value> {
    let parts = LimiterKey::decode(table, key)?;
    Ok(json!({ "limiter_kind": kind_text(parts.kind), "limiter": parts.limiter, of: parts.of }))
}

fn dump_window(value: &[u8]) -> Result<Value> {
    let row = WindowRow::decode(value)?;
    Ok(json!({
        "clears": row.clears, "window": row.id, "keep_ms": row.keep_ms,
        "indexed_at": row.indexed_at.map(dump::deadline), "history": row.history.to_json(),
    }))
}

fn dump_request_key(mut key: &[u8]) -> Option<Value> {
    let window = key::take_u64(&mut key)?;
    let (lane, mut rest) = key.split_first()?;
    let (epoch, time_ms) = (key::take_u64(&mut rest)?, key::take_u64(&mut rest)?);
    rest.is_empty()
        .then(|| json!({ "window": window, "lane": lane, "epoch": epoch, "time_ms": time_ms }))
}

fn dump_whole_limiter_key(key: &[u8]) -> Result<Value> {
    let Some((&number, limiter)) = key.split_first() else {
        return Ok(json!({ "counter": "last_window" }));
    };
    let kind = kind_of(number).ok_or_else(|| no_key("no known kind of limiter"))?;
    Ok(json!({ "limiter_kind": kind_text(kind), "limiter": dump::text(limiter)? }))
}

fn dump_whole_limiter(key: &[u8], value: &[u8]) -> Result<Value> {
    if key == LAST_ID_KEY {
        return Ok(json!({ "last": decode_last_id(value)? }));
    }
    let row: StoreRow = codec::decode_row(Table::RATE_LIMIT_STORE.name(), value)?;
    Ok(json!({ "clears": row.clears }))
}
