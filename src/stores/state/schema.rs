//! The tables of agent states.

use super::late::{self, LateRow};
use super::lines;
use super::row::{
    StateRow, StateSlot, decode_kind_key, decode_slot_key, decode_tenant_kind_key, kind_key,
    slot_key, tenant_kind_key,
};
use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::dump;
use crate::stores::lines::{EntryLines, to_base64};
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::row_check::RowCheck;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Constraints, Derived, EmitDerived, Ends, EntryCounting, Lines, LossSchema, Numbers, Overwrite,
    Role, StoreSchema, TableSchema, text_key,
};
use crate::stores::state::Identity;
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// Agent states by slot: (tenant, user, session, run, kind).
    pub(crate) const STATE: Table =
        Table::new(&TableDef { number: 20, name: "state", is_waited_for: false });

    /// The slot of an agent state by its event id.
    pub(crate) const STATE_EVENT: Table =
        Table::new(&TableDef { number: 21, name: "state_event", is_waited_for: false });

    /// Which slots there are, by (kind, tenant, user, session, run).
    pub(crate) const STATE_KIND: Table =
        Table::new(&TableDef { number: 22, name: "state_kind", is_waited_for: false });

    /// Which slots there are, by (tenant, kind, user, session, run).
    pub(crate) const STATE_TENANT_KIND: Table =
        Table::new(&TableDef { number: 23, name: "state_tenant_kind", is_waited_for: false });

    /// Events that were replaced, for a while, by event id.
    pub(crate) const STATE_LATE: Table =
        Table::new(&TableDef { number: 24, name: "state_late", is_waited_for: false });
}

impl StoreKind {
    /// Agent states ([`Cloakroom::state`](crate::Cloakroom::state)).
    pub const STATE: StoreKind = StoreKind::new(7, "state", "agent states");
}

pub(crate) const STORE: StoreSchema = StoreSchema {
    kinds: &[StoreKind::STATE],
    tables: &[&STATES, &EVENTS, &BY_KIND, &BY_TENANT_AND_KIND, &LATE],
};

const STATES: TableSchema = TableSchema {
    table: Table::STATE,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::STATE, key),
    check: |row| {
        check_slot(row, &decode_slot_key(row.key)?)?;
        row.short(StateRow::decode(row.value)?.event_id)
    },
    derived: Derived::Rows(derived),
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |row| Some(row.of_entry()),
    shown_key,
    counted: EntryCounting::Entries(|| Box::new(|_, _| Ok(EntryState::Live))),
    lines: Lines::Entries(EntryLines {
        write: lines::write,
        reader: Some(lines::reader),
        imported: None,
    }),
    dump_key: |key| Ok(dump_slot(&decode_slot_key(key)?)),
    dump_value: |_, value| {
        let row = StateRow::decode(value)?;
        Ok(json!({
            "event_id": row.event_id, "version": row.version, "updated_at_ms": row.updated_at_ms,
            "bytes_base64": to_base64(row.bytes),
        }))
    },
    loss: LossSchema { meaning: "such states are gone", unsure: None, left_out: None },
};

const EVENTS: TableSchema = TableSchema {
    table: Table::STATE_EVENT,
    role: Role::Derived,
    owner: |key| Owner::unnamed(StoreKind::STATE, key),
    check: |row| {
        row.text(row.key)?;
        check_slot(row, &decode_slot_key(row.value)?)
    },
    derived: Derived::None,
    constraints: Constraints::Misplaced(event_of_no_state),
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Unless(|there, _| {
        Ok(there.map(|_| "the event id is that of another state".into()))
    })),
    dump_key: |key| Ok(json!({ "event_id": dump::text(key)? })),
    dump_value: |_, value| Ok(dump_slot(&decode_slot_key(value)?)),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

const BY_KIND: TableSchema = TableSchema {
    table: Table::STATE_KIND,
    role: Role::Derived,
    owner: |key| Owner::unnamed(StoreKind::STATE, key),
    check: |row| {
        check_slot(row, &decode_kind_key(row.key)?)?;
        row.empty()
    },
    derived: Derived::None,
    constraints: Constraints::Misplaced(|rows, key, _| no_state(rows, &decode_kind_key(key)?)),
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key: |key| Ok(dump_slot(&decode_kind_key(key)?)),
    dump_value: |_, value| dump::no_value(Table::STATE_KIND, value),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

const BY_TENANT_AND_KIND: TableSchema = TableSchema {
    table: Table::STATE_TENANT_KIND,
    role: Role::Derived,
    owner: |key| Owner::unnamed(StoreKind::STATE, key),
    check: |row| {
        check_slot(row, &decode_tenant_kind_key(row.key)?)?;
        row.empty()
    },
    derived: Derived::None,
    constraints: Constraints::Misplaced(|rows, key, _| {
        no_state(rows, &decode_tenant_kind_key(key)?)
    }),
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key: |key| Ok(dump_slot(&decode_tenant_kind_key(key)?)),
    dump_value: |_, value| dump::no_value(Table::STATE_TENANT_KIND, value),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

const LATE: TableSchema = TableSchema {
    table: Table::STATE_LATE,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::STATE, key),
    check: |row| {
        row.text(row.key)?;
        check_slot(row, &decode_slot_key(LateRow::decode(row.value)?.slot)?)
    },
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |value| Ok(Some(LateRow::decode(value)?.ends_at)),
        sweep: |tx, due, _| late::sweep(tx, due),
    },
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::Entries(EntryLines {
        write: lines::write_late,
        reader: Some(lines::late_reader),
        imported: None,
    }),
    dump_key: |key| Ok(json!({ "event_id": dump::text(key)? })),
    dump_value: |_, value| {
        let row = LateRow::decode(value)?;
        Ok(json!({
            "slot": dump_slot(&decode_slot_key(row.slot)?), "version": row.version,
            "bytes_len": row.bytes_len, "bytes_crc32": row.bytes_crc,
            "ends_at": dump::deadline(row.ends_at),
        }))
    },
    loss: LossSchema {
        meaning: "such events count as new when they are delivered late",
        unsure: None,
        left_out: None,
    },
};

fn check_slot(row: &RowCheck<'_>, slot: &StateSlot) -> Result<()> {
    let identity = &slot.identity;
    let parts = [&identity.tenant, &identity.user, &identity.session, &identity.run, &slot.kind];
    parts.into_iter().try_for_each(|part| row.short(part))
}

fn derived(key: &[u8], value: &[u8], emit: &mut EmitDerived<'_>) -> Result<()> {
    let StateSlot { identity, kind } = decode_slot_key(key)?;
    let event_id = StateRow::decode(value)?.event_id;
    emit(Table::STATE_EVENT, event_id.as_bytes().to_vec(), key.to_vec());
    emit(Table::STATE_KIND, kind_key(&identity, &kind), Vec::new());
    emit(Table::STATE_TENANT_KIND, tenant_kind_key(&identity, &kind), Vec::new());
    Ok(())
}

fn event_of_no_state(rows: &mut dyn Reader, key: &[u8], value: &[u8]) -> Result<Option<String>> {
    let state = rows.get(Table::STATE, value)?;
    let state = state.as_deref().map(StateRow::decode).transpose()?;
    let has_it = state.is_some_and(|state| state.event_id.as_bytes() == key);
    Ok((!has_it).then(|| "names a state that is not there or has another event".to_owned()))
}

fn no_state(rows: &mut dyn Reader, slot: &StateSlot) -> Result<Option<String>> {
    let state = rows.get(Table::STATE, &slot_key(&slot.identity, &slot.kind))?;
    Ok(state.is_none().then(|| "names a state that is not there".to_owned()))
}

fn shown_key(key: &[u8]) -> (String, Option<Identity>) {
    match decode_slot_key(key) {
        Ok(slot) => (slot.kind, Some(slot.identity)),
        Err(_) => text_key(key),
    }
}

fn dump_slot(slot: &StateSlot) -> Value {
    let identity = &slot.identity;
    json!({
        "tenant": identity.tenant, "user": identity.user, "session": identity.session,
        "run": identity.run, "kind": slot.kind,
    })
}
