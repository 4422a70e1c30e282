//! The table of the deduplicating stores.

use super::row::{JobRow, Progress};
use super::{lines, sweep};
use crate::error::Result;
use crate::stores::cache::row::split_key;
use crate::stores::dump;
use crate::stores::lines::{EntryLines, stored_json, to_base64, ulid_text};
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::row_check::RowCheck;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Constraints, CountEntry, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Role,
    StoreSchema, TableSchema, text_key,
};
use crate::tables::{Table, TableDef};
use serde_json::{Value, json};

impl Table {
    /// Jobs of the deduplicating stores by (name, hash).
    pub(crate) const DEDUPE_JOB: Table =
        Table::new(&TableDef { number: 10, name: "dedupe_job", is_waited_for: true });
}

impl StoreKind {
    /// Jobs ([`Cloakroom::dedupe`](crate::Cloakroom::dedupe)), by the name of their store.
    pub const DEDUPE: StoreKind = StoreKind::new(4, "dedupe", "jobs");
}

pub(crate) const STORE: StoreSchema = StoreSchema { kinds: &[StoreKind::DEDUPE], tables: &[&JOBS] };

const JOBS: TableSchema = TableSchema {
    table: Table::DEDUPE_JOB,
    role: Role::Primary,
    owner: |key| Owner::named(StoreKind::DEDUPE, key),
    check,
    derived: Derived::None,
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |job| Ok(JobRow::decode(job)?.ends_at),
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
    dump_key: |key| dump::parts(key, ["store", "hash"]),
    dump_value: |_, value| dump_job(value),
    loss: LossSchema { meaning: "such jobs are forgotten", unsure: None, left_out: None },
};

fn check(row: &RowCheck<'_>) -> Result<()> {
    let (_, hash) = split_key(row.table, row.key)?;
    row.name_and(hash)?;
    match JobRow::decode(row.value)?.progress {
        Progress::Completed(json) => row.json(json),
        Progress::Failed(error) => row.short(error),
        Progress::Pending | Progress::CompletedBytes(_) => Ok(()),
    }
}

fn counter() -> CountEntry {
    Box::new(|rows, row| {
        let job = JobRow::decode(row.value)?;
        Ok(match (job.is_live(&rows.moment()), job.progress) {
            (true, Progress::Pending) => EntryState::Taken,
            (live, _) => EntryState::live_if(live),
        })
    })
}

fn dump_job(value: &[u8]) -> Result<Value> {
    let row = JobRow::decode(value)?;
    let (status, value, error) = match row.progress {
        Progress::Pending => ("pending", Value::Null, None),
        Progress::Completed(json) => ("completed", stored_json(json), None),
        Progress::CompletedBytes(bytes) => {
            ("completed", json!({ "bytes_base64": to_base64(bytes) }), None)
        }
        Progress::Failed(error) => ("failed", Value::Null, Some(error)),
    };
    Ok(json!({
        "job_id": ulid_text(row.job), "opening_id": lines::opening_text(row.opening_id),
        "ends_at": row.ends_at.map(dump::deadline), "status": status, "value": value, "error": error,
    }))
}
