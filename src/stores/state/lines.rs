//! Agent states.

use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, must_be, said, single, text_of,
};
use crate::stores::row_check::StoredRow;
use crate::stores::state::late::LateRow;
use crate::stores::state::row::{StateRow, decode_slot_key, slot_key};
use crate::stores::state::{
    EventId, Identity, StateRecord, validate_event_id, validate_record, validate_slot,
};
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

/// An event that was replaced.
const LATE: &str = "state_late";

pub(crate) fn write_late(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, .. } = row;
    let row = LateRow::decode(value)?;
    let slot = decode_slot_key(row.slot)?;
    line.begin(LATE);
    line.text("event_id", text_of(Table::STATE_LATE, key)?);
    line.text("tenant", &slot.identity.tenant);
    line.text("user", &slot.identity.user);
    line.text("session", &slot.identity.session);
    line.text("run", &slot.identity.run);
    line.text("kind", &slot.kind);
    line.signed("version", row.version);
    line.number("bytes_len", row.bytes_len);
    line.number("bytes_crc32", row.bytes_crc.into());
    line.number("expires_at_ms", rows.moment().wall_of(row.ends_at));
    emit(LATE, line)
}

/// What reads these lines.
pub(crate) fn late_reader() -> Box<dyn LineReader> {
    single(&[LATE], read_late)
}

fn read_late(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let event_id = EventId::from(fields.text("event_id")?);
    let identity = Identity {
        tenant: fields.text("tenant")?,
        user: fields.text("user")?,
        session: fields.text("session")?,
        run: fields.text("run")?,
    };
    let kind = fields.text("kind")?;
    validate_slot(&identity, &kind).map_err(|error| error.to_string())?;
    validate_event_id(&event_id).map_err(|error| error.to_string())?;
    let crc = fields.number("bytes_crc32")?;
    let row = LateRow {
        ends_at: fields.deadline("expires_at_ms")?,
        slot: &slot_key(&identity, &kind),
        version: fields.signed("version")?,
        bytes_len: fields.number("bytes_len")?,
        bytes_crc: u32::try_from(crc)
            .map_err(|_| must_be("bytes_crc32", "a whole number from 0 to 4294967295"))?,
    };
    let key = event_id.as_str().as_bytes().to_vec();
    Ok(Entry::new(Table::STATE_LATE, key, row.encode().map_err(said)?))
}
