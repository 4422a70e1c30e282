//! The tables of the adapter for the crate `codlet`.

use super::row::{CodeRow, FailuresRow, Record, RecordKind, SessionRow};
use super::{lines, sweep};
use crate::engine::access::{Reader, Writer};
use crate::error::Result;
use crate::stores::dump;
use crate::stores::form_token::row::decode_key;
use crate::stores::form_token::schema::{check_lookup_key, dump_key as dump_lookup_key};
use crate::stores::lines::EntryLines;
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::row_check::RowCheck;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Constraints, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Overwrite, Role,
    StoreSchema, TableSchema, text_key,
};
use crate::stores::sweep::{Due, Verdict};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// One-time codes by their id.
    pub(crate) const CODLET_CODE: Table =
        Table::new(&TableDef { number: 26, name: "codlet_code", is_waited_for: false });

    /// Ids of one-time codes by lookup key.
    pub(crate) const CODLET_CODE_KEY: Table =
        Table::new(&TableDef { number: 27, name: "codlet_code_key", is_waited_for: false });

    /// Sessions by their id.
    pub(crate) const CODLET_SESSION: Table =
        Table::new(&TableDef { number: 28, name: "codlet_session", is_waited_for: false });

    /// Ids of sessions by lookup key.
    pub(crate) const CODLET_SESSION_KEY: Table =
        Table::new(&TableDef { number: 29, name: "codlet_session_key", is_waited_for: false });

    /// EntryCounting failures by the caller's key.
    pub(crate) const CODLET_FAILURES: Table =
        Table::new(&TableDef { number: 30, name: "codlet_failures", is_waited_for: false });
}

impl StoreKind {
    /// One-time codes of the adapter for `codlet`.
    pub const CODLET_CODES: StoreKind = StoreKind::new(8, "codlet_codes", "codes of codlet");
    /// Sessions of the adapter for `codlet`.
    pub const CODLET_SESSIONS: StoreKind =
        StoreKind::new(9, "codlet_sessions", "sessions of codlet");
    /// EntryCounting failures of the adapter for `codlet`.
    pub const CODLET_FAILURES: StoreKind =
        StoreKind::new(10, "codlet_failures", "counted failures of codlet");
}

pub(crate) const STORE: StoreSchema = StoreSchema {
    kinds: &[StoreKind::CODLET_CODES, StoreKind::CODLET_SESSIONS, StoreKind::CODLET_FAILURES],
    tables: &[&CODES, &CODE_KEYS, &SESSIONS, &SESSION_KEYS, &FAILURES],
};

const CODES: TableSchema = TableSchema {
    table: Table::CODLET_CODE,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::CODLET_CODES, key),
    check: |row| CodeRow::decode(&check_record(row)?).map(drop),
    derived: Derived::Rows(|key, value, emit| {
        let record = Record::decode(Table::CODLET_CODE, value)?;
        emit(Table::CODLET_CODE_KEY, record.lookup_key, key.to_vec());
        Ok(())
    }),
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |value| Ok(Some(Record::decode(Table::CODLET_CODE, value)?.keep_until)),
        sweep: |tx, due, _| sweep_record(tx, RecordKind::Code, due),
    },
    change: |row| Some(row.of_entry()),
    shown_key: text_key,
    counted: EntryCounting::Entries(|| {
        Box::new(|rows, row| kept(rows, Table::CODLET_CODE, row.value))
    }),
    lines: Lines::Entries(EntryLines {
        write: lines::write_code,
        reader: Some(lines::reader),
        imported: None,
    }),
    dump_key: |key| Ok(json!({ "id": dump::text(key)? })),
    dump_value: |_, value| dump_code(&Record::decode(Table::CODLET_CODE, value)?),
    loss: LossSchema {
        meaning: "such codes and sessions are unknown",
        unsure: None,
        left_out: None,
    },
};

const CODE_KEYS: TableSchema = TableSchema {
    table: Table::CODLET_CODE_KEY,
    role: Role::Derived,
    owner: |key| Owner::unnamed(StoreKind::CODLET_CODES, key),
    check: check_record_key,
    derived: Derived::None,
    constraints: Constraints::Misplaced(|rows, key, id| {
        leads_nowhere(rows, RecordKind::Code, key, id)
    }),
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Unless(|there, _| {
        Ok(there.map(|_| "the lookup key leads to another record".into()))
    })),
    dump_key: dump_lookup_key,
    dump_value: |_, id| Ok(json!({ "id": dump::text(id)? })),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

const SESSIONS: TableSchema = TableSchema {
    table: Table::CODLET_SESSION,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::CODLET_SESSIONS, key),
    check: |row| SessionRow::decode(&check_record(row)?).map(drop),
    derived: Derived::Rows(|key, value, emit| {
        let record = Record::decode(Table::CODLET_SESSION, value)?;
        emit(Table::CODLET_SESSION_KEY, record.lookup_key, key.to_vec());
        Ok(())
    }),
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |value| Ok(Some(Record::decode(Table::CODLET_SESSION, value)?.keep_until)),
        sweep: |tx, due, _| sweep_record(tx, RecordKind::Session, due),
    },
    change: |row| Some(row.of_entry()),
    shown_key: text_key,
    counted: EntryCounting::Entries(|| {
        Box::new(|rows, row| kept(rows, Table::CODLET_SESSION, row.value))
    }),
    lines: Lines::Entries(EntryLines {
        write: lines::write_session,
        // That of codes reads these too.
        reader: None,
        imported: None,
    }),
    dump_key: |key| Ok(json!({ "id": dump::text(key)? })),
    dump_value: |_, value| dump_session(&Record::decode(Table::CODLET_SESSION, value)?),
    loss: LossSchema {
        meaning: "such codes and sessions are unknown",
        unsure: None,
        left_out: None,
    },
};

const SESSION_KEYS: TableSchema = TableSchema {
    table: Table::CODLET_SESSION_KEY,
    role: Role::Derived,
    owner: |key| Owner::unnamed(StoreKind::CODLET_SESSIONS, key),
    check: check_record_key,
    derived: Derived::None,
    constraints: Constraints::Misplaced(|rows, key, id| {
        leads_nowhere(rows, RecordKind::Session, key, id)
    }),
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Unless(|there, _| {
        Ok(there.map(|_| "the lookup key leads to another record".into()))
    })),
    dump_key: dump_lookup_key,
    dump_value: |_, id| Ok(json!({ "id": dump::text(id)? })),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

const FAILURES: TableSchema = TableSchema {
    table: Table::CODLET_FAILURES,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::CODLET_FAILURES, key),
    check: check_failures,
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |value| Ok(Some(FailuresRow::decode(value)?.ends_at())),
        sweep: |tx, due, _| Ok(Verdict::removed_if(sweep::sweep_failures(tx, due.key)?)),
    },
    change: |row| Some(row.of_entry()),
    shown_key: text_key,
    counted: EntryCounting::Entries(|| {
        Box::new(|rows, row| {
            let ends_at = FailuresRow::decode(row.value)?.ends_at();
            Ok(EntryState::live_if(!rows.moment().has_passed(ends_at)))
        })
    }),
    lines: Lines::Entries(EntryLines {
        write: lines::write_failures,
        // That of codes reads these too.
        reader: None,
        imported: None,
    }),
    dump_key: |key| Ok(json!({ "key": dump::text(key)? })),
    dump_value: |_, value| {
        let row = FailuresRow::decode(value)?;
        let runs: Vec<_> = row.runs.iter().map(|run| json!([run.at_ms, run.count])).collect();
        Ok(json!({ "window_ms": row.window_ms, "epoch": row.epoch, "runs": runs }))
    },
    loss: LossSchema { meaning: "such failures are forgotten", unsure: None, left_out: None },
};

fn check_record(row: &RowCheck<'_>) -> Result<Record> {
    row.text(row.key)?;
    let record = Record::decode(row.table, row.value)?;
    check_lookup_key(row, &record.lookup_key)?;
    Ok(record)
}

fn check_record_key(row: &RowCheck<'_>) -> Result<()> {
    check_lookup_key(row, row.key)?;
    row.text(row.value)
}

fn check_failures(row: &RowCheck<'_>) -> Result<()> {
    row.text(row.key)?;
    let runs = FailuresRow::decode(row.value)?.runs;
    if runs.is_empty() || !runs.is_sorted_by(|a, b| a.at_ms <= b.at_ms) {
        return Err(row.bad("failures that are not in order"));
    }
    Ok(())
}

/// Why a row that leads from a lookup key to an id should not be there.
fn leads_nowhere(
    rows: &mut dyn Reader,
    kind: RecordKind,
    key: &[u8],
    id: &[u8],
) -> Result<Option<String>> {
    let record = sweep::load_record(rows, kind, id)?;
    let is_its = record.is_some_and(|record| record.lookup_key == key);
    Ok((!is_its)
        .then(|| "leads to a record that is not there or has another lookup key".to_owned()))
}

fn sweep_record(tx: &mut dyn Writer, kind: RecordKind, due: &Due<'_>) -> Result<Verdict> {
    Ok(Verdict::removed_if(sweep::sweep_record(tx, kind, due.key)?))
}

fn kept(rows: &mut dyn Reader, table: Table, value: &[u8]) -> Result<EntryState> {
    let keep_until = Record::decode(table, value)?.keep_until;
    Ok(EntryState::live_if(!rows.moment().has_passed(keep_until)))
}

fn dump_code(record: &Record) -> Result<Value> {
    let row = CodeRow::decode(record)?;
    Ok(json!({
        "lookup_key": decode_key(&record.lookup_key)?.as_str(),
        "keep_until": dump::deadline(record.keep_until), "key_version": row.key_version,
        "purpose": row.purpose, "scope": row.scope, "grant": row.grant,
        "created_at": row.created_at, "expires_at": row.expires_at,
        "used": row.used.map(|used| json!({ "at": used.at, "by": used.by })),
        "revoked_at": row.revoked_at,
    }))
}

fn dump_session(record: &Record) -> Result<Value> {
    let row = SessionRow::decode(record)?;
    Ok(json!({
        "lookup_key": decode_key(&record.lookup_key)?.as_str(),
        "keep_until": dump::deadline(record.keep_until), "key_version": row.key_version,
        "subject": row.subject, "created_at": row.created_at, "expires_at": row.expires_at,
        "last_seen_at": row.last_seen_at, "revoked_at": row.revoked_at,
    }))
}
