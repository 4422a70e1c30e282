//! The table of the time line.

use super::sweep;
use crate::engine::time_line::{TIME_LINE, check_row, dump_row};
use crate::stores::dump::no_key;
use crate::stores::schema::{
    Constraints, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Overwrite, Role,
    StoreSchema, TableSchema, text_key,
};
use serde_json::json;

pub(crate) const STORE: StoreSchema = StoreSchema { kinds: &[], tables: &[&LINE] };

const LINE: TableSchema = TableSchema {
    table: TIME_LINE,
    role: Role::Primary,
    // It is the room's.
    owner: |_| None,
    check: |row| check_row(row.key, row.value),
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    // When another wall clock is trusted, until what ends by it is indexed by it.
    ends: Ends::Hinted {
        sweep_after_salvage: |_| false,
        sweep: |tx, _, turn| sweep::follow_wall(tx, turn),
    },
    // Nothing happens to an entry.
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    // Another room has a line of its own: an export shows points in time instead.
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key: |key| match key.first_chunk::<4>() {
        Some(epoch) if key.len() == 4 => Ok(json!({ "epoch": u32::from_be_bytes(*epoch) })),
        None if key.is_empty() => Ok(json!({})),
        None if key == [0] => Ok(json!({ "of": "expiry" })),
        _ => Err(no_key("neither empty, nor of the index, nor an epoch")),
    },
    dump_value: dump_row,
    loss: LossSchema {
        meaning: "the line begins anew, and entries may end at another time",
        unsure: None,
        left_out: None,
    },
};
