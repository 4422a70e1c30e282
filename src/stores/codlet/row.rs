//! The rows that the adapter for the crate `codlet` writes.

use crate::codec;
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::tables::Table;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Code,
    Session,
}

impl RecordKind {
    /// The records by id.
    pub(crate) fn by_id(self) -> Table {
        match self {
            RecordKind::Code => Table::CODLET_CODE,
            RecordKind::Session => Table::CODLET_SESSION,
        }
    }

    /// The ids by lookup key.
    pub(crate) fn by_key(self) -> Table {
        match self {
            RecordKind::Code => Table::CODLET_CODE_KEY,
            RecordKind::Session => Table::CODLET_SESSION_KEY,
        }
    }
}

/// A row of [`Table::CODLET_CODE`] or [`Table::CODLET_SESSION`], by id.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Record {
    /// The key of the row that leads from the lookup key to this one.
    pub(crate) lookup_key: Vec<u8>,
    /// Until when the record is kept.
    pub(crate) keep_until: Deadline,
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
        codec::decode_row(Table::CODLET_CODE.name(), &record.content)
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
        codec::decode_row(Table::CODLET_SESSION.name(), &record.content)
    }
}

/// A row of [`Table::CODLET_FAILURES`]: the failures of one key, the oldest run first.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct FailuresRow {
    /// The window that the last failure was recorded with.
    pub(crate) window_ms: u64,
    /// The epoch of the time line at the last of them.
    pub(crate) epoch: u32,
    pub(crate) runs: Vec<Run>,
}

/// Failures that share a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct Run {
    /// The last failure of the run, in milliseconds of the time line.
    pub(crate) at_ms: u64,
    pub(crate) count: u32,
}

impl FailuresRow {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_row(Table::CODLET_FAILURES.name(), bytes)
    }

    /// When nothing in it counts any more, which is where the expiry index has it.
    pub(crate) fn ends_at(&self) -> Deadline {
        let last_ms = self.runs.last().map_or(0, |run| run.at_ms.saturating_add(self.window_ms));
        Deadline { epoch: self.epoch, at_ms: last_ms }
    }
}
