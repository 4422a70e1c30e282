//! What the adapter for the crate `codlet` stores. As it is in the rows, so that an export does not
//! depend on how the program was built.

use super::Entry;
use crate::error::Result;
use crate::export::line::{Fields, LineWriter, Problem, must_be};
use crate::stores::validation;
use crate::tables::Table;

pub(in crate::export) const ENTRY: &str = "codlet";

pub(in crate::export) const TABLES: [Table; 3] =
    [Table::CODLET_CODE, Table::CODLET_SESSION, Table::CODLET_FAILURES];

pub(in crate::export) fn write(
    line: &mut LineWriter,
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<()> {
    line.begin(ENTRY);
    line.text("table", table.name());
    line.bytes("key_base64", key);
    line.bytes("value_base64", value);
    Ok(())
}

pub(in crate::export) fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let name = fields.text("table")?;
    let table = TABLES.into_iter().find(|table| table.name() == name).ok_or_else(|| {
        must_be("table", "\"codlet_code\", \"codlet_session\" or \"codlet_failures\"")
    })?;
    let (key, value) = (fields.bytes("key_base64")?, fields.bytes("value_base64")?);
    validation::row(table, &key, &value)
        .map_err(|_| "key and value are no row of the table".to_owned())?;
    Ok(Entry::new(table, key, value))
}
