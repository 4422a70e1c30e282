//! A room as text: everything in it as lines of JSON, and back; and its rows in a form that can be
//! read.
//!
//! What this folder promises (docs/export.md has the lines themselves):
//!
//! 1. An export of what was imported is the same bytes, and every call answers in both rooms as it
//!    would in the other.
//! 2. A line does not depend on the version of the program, on how it was built, or on when it was
//!    written.
//! 3. What an import refuses, it refuses before any row of that line is written, and says in which
//!    line it was and what is wrong with it.
//! 4. An export shows one commit, and neither stops writers nor holds more than a page of rows in
//!    memory.

mod dump;
mod read;
mod write;

pub use dump::{DumpRow, TableInfo};
pub(crate) use dump::{dump_table, list_tables};
pub(crate) use read::import_all;
pub(crate) use write::export_all;

use crate::error::Error;
use std::collections::BTreeMap;

/// The version of the lines. A file of a newer one is refused.
const FORMAT: u64 = 1;
/// The only field of the first line: the version of the lines.
const HEADER: &str = "cloakroom_export";
/// The only field of the last line: how many entries stand before it.
const END: &str = "cloakroom_export_end";

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExportReport {
    /// Lines between the first and the last one.
    pub entries: u64,
    /// Bytes of all lines.
    pub bytes: u64,
    /// Lines of each kind, by their field `entry`.
    pub by_kind: BTreeMap<&'static str, u64>,
}

/// What an import read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ImportReport {
    /// Lines between the first and the last one. All of them are durable in the room.
    pub entries: u64,
    /// Bytes of all lines.
    pub bytes: u64,
    /// Lines of each kind, by their field `entry`.
    pub by_kind: BTreeMap<&'static str, u64>,
}

/// That the line with this number could not be imported.
fn bad_line(line: u64, detail: impl Into<String>) -> Error {
    Error::Import { line, detail: detail.into(), source: None }
}
