//! The rows that the adapter for the crate `codlet` writes, in every build: whoever checks or
//! copies a file must know them whether or not the adapter is compiled.

use crate::codec;
use crate::error::Result;
use crate::tables::Table;

/// A row of [`Table::CodletCode`] or [`Table::CodletSession`], by id.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Record {
    /// The key of the row that leads from the lookup key to this one.
    pub(crate) lookup_key: Vec<u8>,
    /// Until when the record is kept, in milliseconds since the Unix epoch.
    pub(crate) keep_until_ms: u64,
    /// What the kind keeps, encoded: a [`CodeRow`] or a [`SessionRow`].
    pub(crate) content: Vec<u8>,
}

impl Record {
    /// The record that is in a row of `table`.
    pub(crate) fn decode(table: Table, bytes: &[u8]) -> Result<Self> {
        codec::decode_row(table.name(), bytes)
    }
}

/// What a code keeps. Times are in seconds since the Unix epoch, by the caller's clock.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct CodeRow {
    pub(crate) key_version: String,
    pub(crate) purpose: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) grant: Option<String>,
    pub(crate) created_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) used: Option<Use>,
    pub(crate) revoked_at: Option<u64>,
}

/// Who claimed a code, and when.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Use {
    pub(crate) at: u64,
    pub(crate) by: String,
}

impl CodeRow {
    pub(crate) fn decode(record: &Record) -> Result<Self> {
        codec::decode_row(Table::CodletCode.name(), &record.content)
    }
}

/// What a session keeps. Times are in seconds since the Unix epoch, by the caller's clock.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct SessionRow {
    pub(crate) key_version: String,
    pub(crate) subject: String,
    pub(crate) created_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) last_seen_at: Option<u64>,
    pub(crate) revoked_at: Option<u64>,
}

impl SessionRow {
    pub(crate) fn decode(record: &Record) -> Result<Self> {
        codec::decode_row(Table::CodletSession.name(), &record.content)
    }
}

/// A row of [`Table::CodletFailures`]: the failures of one key, the oldest run first.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct FailuresRow {
    /// The window that the last failure was recorded with.
    pub(crate) window_ms: u64,
    pub(crate) runs: Vec<Run>,
}

/// Failures that share a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Run {
    /// The last failure of the run, in milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    pub(crate) count: u32,
}

impl FailuresRow {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_row(Table::CodletFailures.name(), bytes)
    }

    /// When nothing in it counts any more, which is where the expiry index has it.
    pub(crate) fn ends_ms(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.at_ms.saturating_add(self.window_ms))
    }
}
