//! What the adapter for the crate `codlet` stores. As it is in the rows, so that an export does not
//! depend on how the program was built.

use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, must_be, single,
};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;

const ENTRY: &str = "codlet";

const TABLES: [Table; 3] = [Table::CODLET_CODE, Table::CODLET_SESSION, Table::CODLET_FAILURES];

fn write(
    table: Table,
    line: &mut LineWriter,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    line.begin(ENTRY);
    line.text("table", table.name());
    line.bytes("key_base64", row.key);
    line.bytes("value_base64", row.value);
    emit(ENTRY, line)
}

pub(crate) fn write_code(
    line: &mut LineWriter,
    _: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    write(Table::CODLET_CODE, line, row, emit)
}

pub(crate) fn write_session(
    line: &mut LineWriter,
    _: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    write(Table::CODLET_SESSION, line, row, emit)
}

pub(crate) fn write_failures(
    line: &mut LineWriter,
    _: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    write(Table::CODLET_FAILURES, line, row, emit)
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
    Ok(Entry::new(table, key, value))
}
