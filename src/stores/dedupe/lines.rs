//! Jobs of the deduplicating stores.

use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::dedupe::row::{JobRow, Progress, key_of};
use crate::stores::length::check_len;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, check_json, must_be, name_and_text,
    said, single, ulid_of, ulid_text,
};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;

const ENTRY: &str = "dedupe_job";

pub(crate) fn write(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, .. } = row;
    let row = JobRow::decode(value)?;
    let (store, hash) = name_and_text(Table::DEDUPE_JOB, key)?;
    line.begin(ENTRY);
    line.text("store", &store);
    line.text("hash", &hash);
    line.text("job_id", &ulid_text(row.job));
    line.text("opening_id", &opening_text(row.opening_id));
    let now = rows.moment();
    line.optional_number("ends_at_ms", row.ends_at.map(|ends_at| now.wall_of(ends_at)));
    match row.progress {
        Progress::Pending => line.text("status", "pending"),
        Progress::Completed(json) => {
            line.text("status", "completed");
            line.json("value", "value_base64", json);
        }
        Progress::CompletedBytes(bytes) => {
            line.text("status", "completed");
            line.bytes("bytes_base64", bytes);
        }
        Progress::Failed(error) => {
            line.text("status", "failed");
            line.text("error", error);
        }
    }
    emit(ENTRY, line)
}

/// What reads these lines.
pub(crate) fn reader() -> Box<dyn LineReader> {
    single(&[ENTRY], read)
}

fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let (store, hash) = (fields.text("store")?, fields.text("hash")?);
    let key = key_of(&store, &hash).map_err(said)?;
    let job = ulid_of("job_id", &fields.text("job_id")?)?;
    let opening_id = opening_of(&fields.text("opening_id")?)?;
    let ends_at = fields.optional_deadline("ends_at_ms")?;
    let (json, bytes, error);
    let progress = match fields.text("status")?.as_str() {
        "pending" => Progress::Pending,
        "completed" if fields.has("bytes_base64") => {
            bytes = fields.bytes("bytes_base64")?;
            Progress::CompletedBytes(&bytes)
        }
        "completed" => {
            json = fields.json("value", "value_base64")?;
            check_json("value", &json)?;
            Progress::Completed(&json)
        }
        "failed" => {
            error = fields.text("error")?;
            check_len("the error", &error).map_err(said)?;
            Progress::Failed(&error)
        }
        _ => return Err(must_be("status", "\"pending\", \"completed\" or \"failed\"")),
    };
    let row = JobRow { job, opening_id, ends_at, progress };
    Ok(Entry::new(Table::DEDUPE_JOB, key, row.encode().map_err(said)?))
}

/// The id of an opening: a random number, which many readers of JSON would round.
pub(crate) fn opening_text(opening_id: u64) -> String {
    format!("{opening_id:016x}")
}

fn opening_of(text: &str) -> Result<u64, Problem> {
    let opening_id = u64::from_str_radix(text, 16).ok();
    opening_id
        .filter(|opening_id| opening_text(*opening_id) == text)
        .ok_or_else(|| must_be("opening_id", "16 digits of lowercase hex"))
}
