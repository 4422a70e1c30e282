//! What the adapter for the crate `codlet` stores. As it is in the rows, so that an export does not depend on how the
//! program was built.

use super::{Entry, said};
use crate::error::{Error, Result};
use crate::export::line::{Fields, LineWriter, Problem, must_be};
use crate::stores::codlet_rows::{CodeRow, FailuresRow, Record, SessionRow};
use crate::stores::form_token::row::{TokenKey, decode_key};
use crate::stores::text::check_len;
use crate::tables::Table;

pub(in crate::export) const ENTRY: &str = "codlet";

pub(in crate::export) const TABLES: [Table; 3] =
    [Table::CodletCode, Table::CodletSession, Table::CodletFailures];

pub(in crate::export) fn write(line: &mut LineWriter, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    // An import would not take anything else.
    check(table, value)?;
    line.begin(ENTRY);
    line.text("table", table.name());
    line.bytes("key_base64", key);
    line.bytes("value_base64", value);
    Ok(())
}

pub(in crate::export) fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let name = fields.text("table")?;
    let table = TABLES
        .into_iter()
        .find(|table| table.name() == name)
        .ok_or_else(|| must_be("table", "\"codlet_code\", \"codlet_session\" or \"codlet_failures\""))?;
    let (key, value) = (fields.bytes("key_base64")?, fields.bytes("value_base64")?);
    let text = std::str::from_utf8(&key).map_err(|_| must_be("key_base64", "UTF-8"))?;
    check_len("the key", text).map_err(said)?;
    check(table, &value).map_err(|_| must_be("value_base64", "a row of its table"))?;
    Ok(Entry::new(table, key, value))
}

/// Whether the adapter could read the row.
fn check(table: Table, value: &[u8]) -> Result<()> {
    let damaged = |detail| Error::corrupted(format!("a row of table {}", table.name()), detail);
    if table == Table::CodletFailures {
        let runs = FailuresRow::decode(value)?.runs;
        let in_order = !runs.is_empty() && runs.is_sorted_by(|a, b| a.at_ms <= b.at_ms);
        return in_order.then_some(()).ok_or_else(|| damaged("failures that are not in order"));
    }
    let record = Record::decode(table, value)?;
    if TokenKey::encode(&decode_key(&record.lookup_key)?)?.as_bytes() != record.lookup_key {
        return Err(damaged("a lookup key that is encoded as none is"));
    }
    match table {
        Table::CodletCode => CodeRow::decode(&record).map(|_| ()),
        _ => SessionRow::decode(&record).map(|_| ()),
    }
}
