//! A store that exists in tests only, written as a new one would be: this folder, and one line of
//! the registry. It keeps notes that end, and finds them by their title.

pub(crate) mod schema;
mod tests;

use crate::codec::{self, key};
use crate::engine::access::Writer;
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::stores::expiry;
use crate::tables::Table;

/// A note, by its id.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct NoteRow {
    ends_at: Deadline,
    title: String,
}

impl NoteRow {
    fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_row(Table::NOTE.name(), bytes)
    }
}

/// The key of the row that leads from a title to a note.
fn title_key(title: &str, id: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    key::push_bytes(&mut encoded, title.as_bytes());
    encoded.extend_from_slice(id);
    encoded
}

/// Stores a note, in place of the one that has its id.
fn put(tx: &mut dyn Writer, id: &str, note: &NoteRow) -> Result<()> {
    let value = codec::encode(note)?;
    remove(tx, id.as_bytes())?;
    tx.put(Table::NOTE, id.as_bytes(), value);
    tx.put(Table::NOTE_BY_TITLE, &title_key(&note.title, id.as_bytes()), Vec::new());
    expiry::put(tx, note.ends_at, Table::NOTE, id.as_bytes());
    Ok(())
}

/// Removes a note, if there is one.
fn remove(tx: &mut dyn Writer, id: &[u8]) -> Result<()> {
    let Some(note) = tx.get(Table::NOTE, id)? else { return Ok(()) };
    let note = NoteRow::decode(&note)?;
    tx.delete(Table::NOTE, id);
    tx.delete(Table::NOTE_BY_TITLE, &title_key(&note.title, id));
    expiry::delete(tx, note.ends_at, Table::NOTE, id);
    Ok(())
}
