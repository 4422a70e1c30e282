//! Rows in a form that can be read: for people who look into a file.

use crate::engine::access::Reader;
use crate::engine::cursor::RowCursor;
use crate::error::{Error, Result};
use crate::stores::lines::to_hex;
use crate::stores::registry;
use crate::tables::Table;
use serde_json::{Value, json};
use std::fmt;

/// A table of a room, and how much is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// The number of the table in the log.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// Whether its rows follow from those of other tables, as an index does.
    pub is_derived: bool,
    /// How many rows it has, those of what has expired and was not swept yet included.
    pub rows: u64,
    /// How many bytes their keys and values have.
    pub bytes: u64,
}

/// A row of a table, decoded.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct DumpRow {
    /// The parts of the key, by name.
    pub key: Value,
    /// The fields of the value, by name.
    pub value: Value,
    /// What is wrong with the row, when its key or value does not decode. What does not is an
    /// object with one field, `hex`.
    pub note: Option<String>,
}

/// Keeps key and value to itself.
impl fmt::Debug for DumpRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DumpRow").field("note", &self.note).finish_non_exhaustive()
    }
}

impl DumpRow {
    /// The row as one object, with a field `note` when there is one.
    ///
    /// ```
    /// use cloakroom::Cloakroom;
    /// use cloakroom::handoff::HandoffStateStore;
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// room.handoff().set("order-7", &Default::default(), 0).wait()?;
    /// room.handoff().set("order-8", &Default::default(), 600).wait()?;
    /// room.dump("handoff", &mut |row| {
    ///     assert_eq!(row.to_json()["key"]["state_id"], "order-8");
    ///     true
    /// })?;
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut row = serde_json::Map::new();
        row.insert("key".into(), self.key.clone());
        row.insert("value".into(), self.value.clone());
        if let Some(note) = &self.note {
            row.insert("note".into(), note.as_str().into());
        }
        Value::Object(row)
    }

    fn decode(table: Table, key: &[u8], value: &[u8]) -> Self {
        let (key, value, note) = shown_row(table, key, value);
        Self { key, value, note }
    }
}

/// Every table, and how much is in it.
pub(crate) fn list_tables(rows: &mut dyn Reader) -> Result<Vec<TableInfo>> {
    let tables = registry::all().map(|schema| {
        let (table, is_derived) = (schema.table, schema.is_derived());
        let (number, name) = (table.number(), table.name());
        let mut info = TableInfo { number, name, is_derived, rows: 0, bytes: 0 };
        let mut cursor = RowCursor::all(table);
        while let Some((key, value)) = cursor.next(rows)? {
            info.rows += 1;
            info.bytes += (key.len() + value.len()) as u64;
        }
        Ok(info)
    });
    tables.collect()
}

/// Shows `each` the rows of the table called `name`, until it answers `false`. Answers how many it
/// showed.
pub(crate) fn dump_table(
    rows: &mut dyn Reader,
    name: &str,
    each: &mut dyn FnMut(DumpRow) -> bool,
) -> Result<u64> {
    let tables = registry::catalogue();
    let table = tables.named(name).ok_or_else(|| {
        let names: Vec<_> = tables.all().iter().map(|table| table.name()).collect();
        Error::InvalidConfig(format!("no table is called {name:?}; there are {}", names.join(", ")))
    })?;
    let (mut shown, mut cursor) = (0, RowCursor::all(table));
    while let Some((key, value)) = cursor.next(rows)? {
        shown += 1;
        if !each(DumpRow::decode(table, &key, &value)) {
            break;
        }
    }
    Ok(shown)
}

/// What is shown of a row: the parts of its key, the fields of its value, and what is wrong when
/// one of them does not decode. What does not is an object with one field, `hex`.
fn shown_row(table: Table, key: &[u8], value: &[u8]) -> (Value, Value, Option<String>) {
    let mut note = None;
    let mut or_hex = |decoded: Result<Value>, bytes: &[u8]| {
        decoded.unwrap_or_else(|error| {
            note.get_or_insert(error.cause());
            json!({ "hex": to_hex(bytes) })
        })
    };
    let schema = registry::of(table);
    let shown_key = schema.clone().and_then(|schema| (schema.dump_key)(key));
    let shown_value = schema.and_then(|schema| (schema.dump_value)(key, value));
    let (key, value) = (or_hex(shown_key, key), or_hex(shown_value, value));
    (key, value, note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time_line::Deadline;
    use crate::stores::cache::content::ValueContent;
    use crate::stores::cache::row::CacheRow;
    use crate::stores::registry::catalogue;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_does_not_decode_is_shown_as_it_is() {
        let row = DumpRow::decode(Table::HANDOFF, b"order-7", b"\xff\x01");
        assert_eq!(row.key, json!({ "state_id": "order-7" }));
        assert_eq!(row.value, json!({ "hex": "ff01" }));
        let note = row.note.clone().unwrap();
        assert!(note.contains("a row of table handoff"), "{note}");
        assert_eq!(row.to_json()["note"], note.as_str());

        let row = DumpRow::decode(Table::CACHE_TAGS, b"no end", b"\x01\x03odd");
        assert_eq!(row.key, json!({ "hex": "6e6f20656e64" }));
        assert_eq!(row.value, json!({ "tags": ["odd"] }));
        assert!(row.note.is_some());

        let row = DumpRow::decode(Table::STATE_KIND, b"k\0\0t\0\0u\0\0s\0\0", b"x");
        assert_eq!(row.key["kind"], "k");
        assert_eq!(row.value, json!({ "hex": "78" }));
    }

    #[test]
    fn stored_text_that_is_no_json_is_shown_as_hex() {
        let row = CacheRow {
            expires_at: Deadline::NEVER,
            stored_at_ms: 5,
            tagged: false,
            content: ValueContent::Json(b"["),
        };
        let row = DumpRow::decode(Table::CACHE, b"primes\0\0third", &row.encode().unwrap());
        assert_eq!(row.key, json!({ "cache": "primes", "hash": "third" }));
        assert_eq!(row.value["value"], json!({ "not_json_hex": "5b" }));
        assert_eq!((row.value["expires_at"].clone(), row.note), (Value::Null, None));
    }

    #[test]
    fn a_key_of_the_index_that_names_the_index_over_and_over_is_damage() {
        let key = [0, 0, 0, 0, 0, 0, 0, 1, Table::EXPIRY.number()].repeat(100_000);
        assert!(DumpRow::decode(Table::EXPIRY, &key, b"").note.is_some());
    }

    proptest! {
        #[test]
        fn any_row_of_any_table_is_shown(
            table in prop::sample::select(catalogue().all()),
            key in prop::collection::vec(0u8..4, 0..30), value in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let row = DumpRow::decode(table, &key, &value);
            let is_hex = |part: &Value| part.get("hex").is_some();
            prop_assert_eq!(row.note.is_some(), is_hex(&row.key) || is_hex(&row.value));
        }
    }
}
