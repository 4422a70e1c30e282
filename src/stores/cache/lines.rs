//! Cached values, each with its tags.

use crate::engine::access::Reader;
use crate::error::{Error, Result};
use crate::stores::cache::row::{CacheRow, NEVER, TagsRow, entry_key, prefix_of};
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
    _: &mut dyn Reader,
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
    line.number("stored_at_ms", row.stored_at_ms);
    line.optional_number(
        "expires_at_ms",
        Some(row.expires_at_ms).filter(|time_ms| *time_ms != NEVER),
    );
    line.texts("tags", tags.iter().map(String::as_str));
    line.json("value", "value_base64", row.json);
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
    let expires_at_ms = match fields.optional_number("expires_at_ms")? {
        Some(NEVER) => return Err(must_be("expires_at_ms", "null for a value that never expires")),
        Some(expires_at_ms) => expires_at_ms,
        None => NEVER,
    };
    let json = fields.json("value", "value_base64")?;
    check_json("value", &json)?;
    let row = CacheRow {
        expires_at_ms,
        stored_at_ms: fields.number("stored_at_ms")?,
        tagged: !tags.is_empty(),
        json: &json,
    };
    let key = entry_key(&prefix_of(&cache), &hash);
    let entry = Entry::new(Table::CACHE, key.clone(), row.encode().map_err(said)?);
    if tags.is_empty() {
        return Ok(entry);
    }
    let tags = TagsRow { tags }.encode().map_err(said)?;
    Ok(entry.and(Table::CACHE_TAGS, key, tags))
}
