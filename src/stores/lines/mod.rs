//! The kinds of lines: how each is written from rows, and what rows it stands for.
//!
//! A kind writes and reads the fields behind `entry`. What it reads it checks as strictly as its
//! store checks what it is given, so that an import makes no room that calls could not have made.

mod encoding;
mod line;

pub(crate) use encoding::{stored_json, to_base64, to_hex};
pub(crate) use line::{Fields, LineWriter, Problem, must_be};

use super::StoreStates;
use super::row_check::StoredRow;
use crate::codec::key;
use crate::engine::access::Reader;
use crate::error::{Error, Result};
use crate::limits::MAX_STATE_DEPTH;
use crate::stores::cache::json;
use crate::stores::handoff::json::nesting;
use crate::tables::Table;
use serde::de::IgnoredAny;
use ulid::Ulid;

/// Takes a finished line of the kind that is named.
pub(crate) type EmitLine<'a> = dyn FnMut(&'static str, &mut LineWriter) -> Result<()> + 'a;

/// Writes the lines of the entry that a row is, if there is anything to write.
pub(crate) type WriteLines =
    fn(&mut LineWriter, &mut dyn Reader, StoredRow<'_>, &mut EmitLine<'_>) -> Result<()>;

/// How the entries of a table are written as lines, and read.
#[derive(Clone, Copy)]
pub(crate) struct EntryLines {
    pub(crate) write: WriteLines,
    /// What reads the lines, anew for each import. `None` when what reads those of another table
    /// reads these too.
    pub(crate) reader: Option<fn() -> Box<dyn LineReader>>,
    /// What must be forgotten in memory because the row at a key was written past the operations
    /// of its store, if anything. Called under the serial lock.
    pub(crate) imported: Option<fn(&StoreStates, &[u8])>,
}

/// Reads lines of some kinds.
pub(crate) trait LineReader {
    /// The kinds that it reads, by their field `entry`.
    fn kinds(&self) -> &'static [&'static str];

    /// Reads the fields behind `entry` of a line of one of its kinds. A problem leaves nothing of
    /// the line.
    fn read(&mut self, kind: &str, fields: &mut Fields<'_>) -> Result<Entry, Problem>;

    /// A line of another reader has come: none goes on with what the lines before it began.
    fn interrupt(&mut self);
}

/// A reader of lines of one kind, each of which is an entry of its own.
struct SingleLines {
    kind: &'static [&'static str],
    read: fn(&mut Fields<'_>) -> Result<Entry, Problem>,
}

impl LineReader for SingleLines {
    fn kinds(&self) -> &'static [&'static str] {
        self.kind
    }

    fn read(&mut self, _kind: &str, fields: &mut Fields<'_>) -> Result<Entry, Problem> {
        (self.read)(fields)
    }

    fn interrupt(&mut self) {}
}

/// A reader of lines of one kind, each of which is an entry of its own.
pub(crate) fn single(
    kind: &'static [&'static str],
    read: fn(&mut Fields<'_>) -> Result<Entry, Problem>,
) -> Box<dyn LineReader> {
    Box::new(SingleLines { kind, read })
}

/// A row of a table: key and value.
pub(crate) type TableRow = (Table, Vec<u8>, Vec<u8>);

/// The rows that a line stands for, the one that makes it what it is first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) rows: Vec<TableRow>,
    /// What is wrong when the first row is not there, where a line goes on with what the line
    /// before it began. Otherwise the row must not be there yet.
    pub(crate) goes_on: Option<&'static str>,
}

impl Entry {
    /// An entry of its own.
    pub(crate) fn new(table: Table, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { rows: vec![(table, key, value)], goes_on: None }
    }

    /// The same entry with another row.
    pub(crate) fn and(mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Self {
        self.rows.push((table, key, value));
        self
    }
}

/// What an error of a store says about a line.
pub(crate) fn said(error: impl Into<Error>) -> Problem {
    error.into().to_string()
}

/// The text that `bytes` of a key of `table` are.
pub(crate) fn text_of(table: Table, bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged_key(table))
}

/// The name at the front of a key of `table`, and the text behind it.
pub(crate) fn name_and_text(table: Table, mut key: &[u8]) -> Result<(String, String)> {
    let name = key::take_bytes(&mut key).ok_or_else(|| damaged_key(table))?;
    Ok((text_of(table, &name)?.to_owned(), text_of(table, key)?.to_owned()))
}

/// That a key of `table` is none.
pub(crate) fn damaged_key(table: Table) -> Error {
    Error::corrupted(
        format!("a key of table {}", table.name()),
        "it does not have the parts of one",
    )
}

/// The ULID in a row, as text.
pub(crate) fn ulid_text(bytes: [u8; 16]) -> String {
    Ulid::from_bytes(bytes).to_string()
}

/// The ULID that [`ulid_text`] wrote.
pub(crate) fn ulid_of(name: &str, text: &str) -> Result<[u8; 16], Problem> {
    let ulid = Ulid::from_string(text).ok().filter(|ulid| ulid.to_string() == text);
    ulid.map(|ulid| ulid.to_bytes()).ok_or_else(|| must_be(name, "a ULID in capital letters"))
}

/// Why bytes are no JSON that a store keeps, if they are not.
fn json_problem(json: &[u8]) -> Option<&'static str> {
    if nesting(json) > MAX_STATE_DEPTH {
        return Some("JSON that is nested deeper than 512 levels");
    }
    json::decode::<IgnoredAny>(json).is_none().then_some("no JSON")
}

const _: () = assert!(MAX_STATE_DEPTH == 512);

/// Refuses JSON in the field `name` that a store would not take.
pub(crate) fn check_json(name: &str, json: &[u8]) -> Result<(), Problem> {
    json_problem(json).map_or(Ok(()), |what| Err(format!("field \"{name}\" is {what}")))
}
