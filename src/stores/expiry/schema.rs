//! The table of the expiry index.

use super::decode::decode_key;
use crate::engine::access::Reader;
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::stores::dump::{self, no_key};
use crate::stores::owner::Owner;
use crate::stores::registry;
use crate::stores::schema::{
    Constraints, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Overwrite, Role,
    StoreSchema, TableSchema, text_key,
};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// What expires when, over all stores: (deadline, table number, primary key) with empty
    /// values.
    pub(crate) const EXPIRY: Table =
        Table::new(&TableDef { number: 5, name: "expiry", is_waited_for: false });
}

pub(crate) const STORE: StoreSchema = StoreSchema { kinds: &[], tables: &[&INDEX] };

const INDEX: TableSchema = TableSchema {
    table: Table::EXPIRY,
    role: Role::Derived,
    owner,
    check: |row| {
        decode_key(row.key).ok_or_else(|| row.bad_key("not a deadline, a table and a key"))?;
        row.empty()
    },
    derived: Derived::None,
    constraints: Constraints::Misplaced(|rows, key, _| misplaced(rows, key)),
    numbers: Numbers::None,
    ends: Ends::Never,
    // It changes with the entry.
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key,
    dump_value: |_, value| dump::no_value(Table::EXPIRY, value),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

/// What an index row leads to, if it is one. Nothing is indexed about the index itself.
fn entry(key: &[u8]) -> Option<(Deadline, Table, &[u8])> {
    decode_key(key).filter(|(_, table, _)| *table != Table::EXPIRY)
}

/// The owner of the entry that an index row leads to.
fn owner(key: &[u8]) -> Option<Owner<'_>> {
    entry(key).and_then(|(_, table, primary)| Owner::of(table, primary))
}

fn misplaced(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<String>> {
    let Some((at, primary, primary_key)) = decode_key(key) else { return Ok(None) };
    let Some(row) = rows.get(primary, primary_key)? else {
        return Ok(Some(format!("is left of a row of table {} that is not there", primary.name())));
    };
    let schema = registry::of(primary)?;
    if matches!(schema.ends, Ends::Hinted { .. }) {
        return Ok(None);
    }
    let times = schema.index_times(rows, primary_key, &row)?;
    let other = format!("is at another time than the row of table {} ends", primary.name());
    Ok((!times.contains(&at)).then_some(other))
}

fn dump_key(key: &[u8]) -> Result<Value> {
    // A damaged key must not lead to the index over and over.
    let (at, table, primary) = entry(key).ok_or_else(|| no_key("no deadline, table and key"))?;
    let shown = (registry::of(table)?.dump_key)(primary)?;
    Ok(json!({ "epoch": at.epoch, "time_ms": at.at_ms, "table": table.name(), "key": shown }))
}
