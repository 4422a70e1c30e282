//! Agent states.

use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, said, single,
};
use crate::stores::row_check::StoredRow;
use crate::stores::state::row::{StateRow, decode_slot_key, slot_key};
use crate::stores::state::{Identity, StateRecord, validate_record};
use crate::tables::Table;

const ENTRY: &str = "state";

pub(crate) fn write(
    line: &mut LineWriter,
    _: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, .. } = row;
    let slot = decode_slot_key(key)?;
    let row = StateRow::decode(value)?;
    line.begin(ENTRY);
    line.text("tenant", &slot.identity.tenant);
    line.text("user", &slot.identity.user);
    line.text("session", &slot.identity.session);
    line.text("run", &slot.identity.run);
    line.text("kind", &slot.kind);
    line.text("event_id", row.event_id);
    line.signed("version", row.version);
    line.number("updated_at_ms", row.updated_at_ms);
    line.bytes("bytes_base64", row.bytes);
    emit(ENTRY, line)
}

/// What reads these lines.
pub(crate) fn reader() -> Box<dyn LineReader> {
    single(&[ENTRY], read)
}

fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let identity = Identity {
        tenant: fields.text("tenant")?,
        user: fields.text("user")?,
        session: fields.text("session")?,
        run: fields.text("run")?,
    };
    let updated_at_ms = fields.number("updated_at_ms")?;
    let record = StateRecord {
        id: fields.text("event_id")?.into(),
        identity,
        kind: fields.text("kind")?,
        version: fields.signed("version")?,
        bytes: fields.bytes("bytes_base64")?,
        updated_at: Some(updated_at_ms),
    };
    validate_record(&record).map_err(|error| error.to_string())?;
    let row = StateRow {
        event_id: record.id.as_str(),
        version: record.version,
        updated_at_ms,
        bytes: &record.bytes,
    };
    let key = slot_key(&record.identity, &record.kind);
    Ok(Entry::new(Table::STATE, key, row.encode().map_err(said)?))
}
