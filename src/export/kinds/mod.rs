//! The kinds of lines: how each is written from rows, and what rows it stands for.
//!
//! A kind writes and reads the fields behind `entry`. What it reads it checks as strictly as its
//! store checks what it is given, so that an import makes no room that calls could not have made.

pub(super) mod cache;
pub(super) mod codlet;
pub(super) mod handoff;
pub(super) mod job;
pub(super) mod limit;
pub(super) mod state;
pub(super) mod token;
pub(super) mod window;

use super::line::Problem;
use crate::codec::key;
use crate::error::{Error, Result};
use crate::stores::cache::json;
use crate::stores::handoff::MAX_STATE_DEPTH;
use crate::stores::handoff::json::nesting;
use crate::tables::Table;
use serde::de::IgnoredAny;
use ulid::Ulid;

/// A row of a table: key and value.
pub(super) type TableRow = (Table, Vec<u8>, Vec<u8>);

/// The rows that a line stands for, the one that makes it what it is first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) rows: Vec<TableRow>,
    /// Whether the first row must not be there yet. It is, where a line goes on with what the line
    /// before it began.
    pub(super) is_new: bool,
}

impl Entry {
    /// An entry of its own.
    fn new(table: Table, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { rows: vec![(table, key, value)], is_new: true }
    }

    fn and(mut self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Self {
        self.rows.push((table, key, value));
        self
    }
}

/// What an error of a store says about a line.
pub(super) fn said(error: impl Into<Error>) -> Problem {
    error.into().to_string()
}

/// The text that `bytes` of a key of `table` are.
fn text_of(table: Table, bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged_key(table))
}

/// The name at the front of a key of `table`, and the text behind it.
fn name_and_text(table: Table, mut key: &[u8]) -> Result<(String, String)> {
    let name = key::take_bytes(&mut key).ok_or_else(|| damaged_key(table))?;
    Ok((text_of(table, &name)?.to_owned(), text_of(table, key)?.to_owned()))
}

fn damaged_key(table: Table) -> Error {
    Error::corrupted(
        format!("a key of table {}", table.name()),
        "it does not have the parts of one",
    )
}

/// The ULID in a row, as text.
pub(super) fn ulid_text(bytes: [u8; 16]) -> String {
    Ulid::from_bytes(bytes).to_string()
}

/// The ULID that [`ulid_text`] wrote.
fn ulid_of(name: &str, text: &str) -> Result<[u8; 16], Problem> {
    let ulid = Ulid::from_string(text).ok().filter(|ulid| ulid.to_string() == text);
    ulid.map(|ulid| ulid.to_bytes())
        .ok_or_else(|| super::line::must_be(name, "a ULID in capital letters"))
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
fn check_json(name: &str, json: &[u8]) -> Result<(), Problem> {
    json_problem(json).map_or(Ok(()), |what| Err(format!("field \"{name}\" is {what}")))
}
