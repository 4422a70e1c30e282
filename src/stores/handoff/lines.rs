//! Claim-check states, each with the claim on it.

use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::handoff::row::{ClaimRow, HandoffRow, key_of};
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, said, single, text_of, ulid_of,
    ulid_text,
};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;

const ENTRY: &str = "handoff";

pub(crate) fn write(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value: state, satellite: claim } = row;
    let state = HandoffRow::decode(state)?;
    line.begin(ENTRY);
    line.text("state_id", text_of(Table::HANDOFF, key)?);
    let now = rows.moment();
    line.number("expires_at_ms", now.wall_of(state.expires_at));
    match claim.map(ClaimRow::decode).transpose()? {
        Some(claim) => {
            line.open("claim");
            line.text("ulid", &ulid_text(claim.ulid));
            line.number("lease_until_ms", now.wall_of(claim.lease_until));
            line.close();
        }
        None => line.null("claim"),
    }
    line.json("state", "state_base64", state.json);
    emit(ENTRY, line)
}

/// What reads these lines.
pub(crate) fn reader() -> Box<dyn LineReader> {
    single(&[ENTRY], read)
}

fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let state_id = fields.text("state_id")?;
    let key = key_of(&state_id).map_err(said)?.to_vec();
    let json = fields.json("state", "state_base64")?;
    let row = HandoffRow { expires_at: fields.deadline("expires_at_ms")?, json: &json };
    // Only an object is a state. The answer names a row of the table, which there is none of yet.
    row.state().map_err(|_| "the state is no JSON object, or is nested too deeply".to_owned())?;
    let entry = Entry::new(Table::HANDOFF, key.clone(), row.encode().map_err(said)?);
    let Some(mut claim) = fields.optional_object("claim")? else { return Ok(entry) };
    let row = ClaimRow {
        ulid: ulid_of("ulid", &claim.text("ulid")?)?,
        lease_until: claim.deadline("lease_until_ms")?,
    };
    claim.finish()?;
    Ok(entry.and(Table::HANDOFF_CLAIM, key, row.encode().map_err(said)?))
}
