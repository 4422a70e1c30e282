//! The tables of claim checks.

use super::row::{ClaimRow, HandoffRow};
use super::{lines, sweep};
use crate::error::Result;
use crate::stores::dump;
use crate::stores::lines::{EntryLines, stored_json, ulid_text};
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Constraints, CountEntry, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Overwrite,
    Role, StoreSchema, TableSchema, text_key,
};
use crate::stores::watch::{ChangeKind, ChangedRow};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// Claim-check states by state id.
    pub(crate) const HANDOFF: Table =
        Table::new(&TableDef { number: 3, name: "handoff", is_waited_for: false });

    /// The claim, live or stale, on a claim-check state, by the same key.
    pub(crate) const HANDOFF_CLAIM: Table =
        Table::new(&TableDef { number: 4, name: "handoff_claim", is_waited_for: false });
}

impl StoreKind {
    /// Claim-check states ([`Cloakroom::handoff`](crate::Cloakroom::handoff)).
    pub const HANDOFF: StoreKind = StoreKind::new(2, "handoff", "handoff states");
}

pub(crate) const STORE: StoreSchema =
    StoreSchema { kinds: &[StoreKind::HANDOFF], tables: &[&STATES, &CLAIMS] };

const STATES: TableSchema = TableSchema {
    table: Table::HANDOFF,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::HANDOFF, key),
    check: |row| {
        row.text(row.key)?;
        HandoffRow::decode(row.value)?.state().map(drop)
    },
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |state| Ok(Some(HandoffRow::decode(state)?.expires_at)),
        sweep: |tx, due, _| sweep::sweep(tx, due),
    },
    change: |row| Some(row.of_entry()),
    shown_key: text_key,
    counted: EntryCounting::Entries(counter),
    lines: Lines::Entries(EntryLines {
        write: lines::write,
        reader: Some(lines::reader),
        imported: None,
    }),
    dump_key,
    dump_value: |_, value| {
        let row = HandoffRow::decode(value)?;
        Ok(json!({ "expires_at": dump::deadline(row.expires_at), "state": stored_json(row.json) }))
    },
    loss: LossSchema { meaning: "such states are gone", unsure: None, left_out: None },
};

const CLAIMS: TableSchema = TableSchema {
    table: Table::HANDOFF_CLAIM,
    role: Role::Satellite { of: Table::HANDOFF, called: "the state that it claims" },
    owner: |key| Owner::unnamed(StoreKind::HANDOFF, key),
    check: |row| {
        row.text(row.key)?;
        ClaimRow::decode(row.value).map(drop)
    },
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::Never,
    change: changed_claim,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key,
    dump_value: |_, value| {
        let row = ClaimRow::decode(value)?;
        Ok(json!({ "ulid": ulid_text(row.ulid), "lease_until": dump::deadline(row.lease_until) }))
    },
    loss: LossSchema {
        meaning: "such claims have ended, and their states can be claimed again",
        unsure: None,
        left_out: None,
    },
};

fn changed_claim(row: &ChangedRow<'_>) -> Option<ChangeKind> {
    match row.value {
        Some(_) => Some(ChangeKind::Claimed),
        // It goes with the state when that is removed or replaced.
        None => row.rows.get(Table::HANDOFF, row.key).is_none().then_some(ChangeKind::Released),
    }
}

fn counter() -> CountEntry {
    Box::new(|rows, row| {
        let now = rows.moment();
        let claim = row.satellite.map(ClaimRow::decode).transpose()?;
        Ok(match HandoffRow::decode(row.value)?.is_live(&now) {
            true if claim.is_some_and(|claim| claim.is_live(&now)) => EntryState::Taken,
            live => EntryState::live_if(live),
        })
    })
}

fn dump_key(key: &[u8]) -> Result<Value> {
    Ok(json!({ "state_id": dump::text(key)? }))
}
