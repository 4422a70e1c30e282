//! What the adapter for the crate `codlet` stores. As it is in the rows, so that an export does not
//! depend on how the program was built.

use super::row::{FailuresRow, Record, Run};
use crate::codec;
use crate::engine::access::Reader;
use crate::engine::time_line::Moment;
use crate::error::Result;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, must_be, said, single,
};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;

const ENTRY: &str = "codlet";

const TABLES: [Table; 3] = [Table::CODLET_CODE, Table::CODLET_SESSION, Table::CODLET_FAILURES];

fn write(
    table: Table,
    rows: &mut dyn Reader,
    line: &mut LineWriter,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    line.begin(ENTRY);
    line.text("table", table.name());
    line.bytes("key_base64", row.key);
    let now = rows.moment();
    let value = to_line(table, row.value, &now)?;
    line.bytes("value_base64", &value);
    emit(ENTRY, line)
}

pub(crate) fn write_code(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    write(Table::CODLET_CODE, rows, line, row, emit)
}

pub(crate) fn write_session(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    write(Table::CODLET_SESSION, rows, line, row, emit)
}

pub(crate) fn write_failures(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    write(Table::CODLET_FAILURES, rows, line, row, emit)
}

/// What reads these lines.
pub(crate) fn reader() -> Box<dyn LineReader> {
    single(&[ENTRY], read)
}

fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let name = fields.text("table")?;
    let table = TABLES.into_iter().find(|table| table.name() == name).ok_or_else(|| {
        must_be("table", "\"codlet_code\", \"codlet_session\" or \"codlet_failures\"")
    })?;
    let (key, value) = (fields.bytes("key_base64")?, fields.bytes("value_base64")?);
    let value = of_line(table, &value, fields.moment()).map_err(said)?;
    Ok(Entry::new(table, key, value))
}

/// A record as a line has it: its end is a point in time.
#[derive(bincode::Encode, bincode::Decode)]
struct RecordLine {
    lookup_key: Vec<u8>,
    keep_until_ms: u64,
    content: Vec<u8>,
}

/// Counted failures as a line has them: with points in time.
#[derive(bincode::Encode, bincode::Decode)]
struct FailuresLine {
    window_ms: u64,
    runs: Vec<Run>,
}

/// The bytes of a row as a line has them.
fn to_line(table: Table, value: &[u8], now: &Moment) -> Result<Vec<u8>> {
    if table != Table::CODLET_FAILURES {
        let Record { lookup_key, keep_until, content } = Record::decode(table, value)?;
        let keep_until_ms = now.wall_of(keep_until);
        return codec::encode(&RecordLine { lookup_key, keep_until_ms, content });
    }
    let FailuresRow { window_ms, mut runs, .. } = FailuresRow::decode(value)?;
    for run in &mut runs {
        run.at_ms = now.wall_of_event(run.at_ms);
    }
    codec::encode(&FailuresLine { window_ms, runs })
}

/// The row of a room that the bytes of a line stand for.
fn of_line(table: Table, bytes: &[u8], now: &Moment) -> Result<Vec<u8>> {
    if table != Table::CODLET_FAILURES {
        let line: RecordLine = codec::decode_row(table.name(), bytes)?;
        let RecordLine { lookup_key, keep_until_ms, content } = line;
        let keep_until = now.deadline_at_wall(keep_until_ms);
        return codec::encode(&Record { lookup_key, keep_until, content });
    }
    let FailuresLine { window_ms, mut runs } = codec::decode_row(table.name(), bytes)?;
    for run in &mut runs {
        run.at_ms = now.event_at_wall(run.at_ms);
    }
    codec::encode(&FailuresRow { window_ms, epoch: now.epoch(), runs })
}
