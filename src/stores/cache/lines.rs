//! Cached values, each with its tags.

use crate::engine::access::Reader;
use crate::engine::time_line::Deadline;
use crate::error::{Error, Result};
use crate::stores::cache::content::ValueContent;
use crate::stores::cache::row::{CacheRow, TagsRow, entry_key, prefix_of};
use crate::stores::length::check_len;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, check_json, must_be, name_and_text,
    said, single,
};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;

const ENTRY: &str = "cache";

pub(crate) fn write(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, satellite: tags } = row;
    let row = CacheRow::decode(value)?;
    let (cache, hash) = name_and_text(Table::CACHE, key)?;
    let tags = match (row.tagged, tags) {
        (false, _) => Vec::new(),
        (true, Some(tags)) => TagsRow::decode(tags)?.tags,
        (true, None) => {
            let table = Table::CACHE_TAGS.name();
            return Err(Error::corrupted(
                format!("table {table}"),
                "the tags of a tagged value are missing",
            ));
        }
    };
    line.begin(ENTRY);
    line.text("cache", &cache);
    line.text("hash", &hash);
    let now = rows.moment();
    line.number("stored_at_ms", now.wall_of_event(row.stored_at_ms));
    line.optional_number(
        "expires_at_ms",
        Some(row.expires_at)
            .filter(|expires_at| *expires_at != Deadline::NEVER)
            .map(|expires_at| now.wall_of(expires_at)),
    );
    line.texts("tags", tags.iter().map(String::as_str));
    match row.content {
        ValueContent::Json(json) => line.json("value", "value_base64", json),
        ValueContent::Bytes(bytes) => line.bytes("bytes_base64", bytes),
    }
    emit(ENTRY, line)
}

/// What reads these lines.
pub(crate) fn reader() -> Box<dyn LineReader> {
    single(&[ENTRY], read)
}

fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let (cache, hash) = (fields.text("cache")?, fields.text("hash")?);
    check_len("the name of the cache", &cache).map_err(said)?;
    check_len("the hash", &hash).map_err(said)?;
    let tags = fields.texts("tags")?;
    tags.iter().try_for_each(|tag| check_len("a tag", tag)).map_err(said)?;
    if !tags.is_sorted_by(|a, b| a < b) {
        return Err(must_be("tags", "in the order of their bytes, each once"));
    }
    let expires_at = match fields.optional_deadline("expires_at_ms")? {
        Some(Deadline { at_ms: u64::MAX, .. }) => {
            return Err(must_be("expires_at_ms", "null for a value that never expires"));
        }
        Some(expires_at) => expires_at,
        None => Deadline::NEVER,
    };
    let is_bytes = fields.has("bytes_base64");
    let stored = match is_bytes {
        true => fields.bytes("bytes_base64")?,
        false => fields.json("value", "value_base64")?,
    };
    if !is_bytes {
        check_json("value", &stored)?;
    }
    let row = CacheRow {
        expires_at,
        stored_at_ms: fields.deadline("stored_at_ms")?.at_ms,
        tagged: !tags.is_empty(),
        content: if is_bytes { ValueContent::Bytes(&stored) } else { ValueContent::Json(&stored) },
    };
    let key = entry_key(&prefix_of(&cache), &hash);
    let entry = Entry::new(Table::CACHE, key.clone(), row.encode().map_err(said)?);
    if tags.is_empty() {
        return Ok(entry);
    }
    let tags = TagsRow { tags }.encode().map_err(said)?;
    Ok(entry.and(Table::CACHE_TAGS, key, tags))
}
