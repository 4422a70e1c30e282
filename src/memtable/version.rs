//! One version of a row, as a memtable keeps it.

use crate::tables::{Table, Value};
use std::fmt;

/// A version that was appended to an arena: the number of those before it, and one. Zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VersionNumber(pub(super) u32);

impl VersionNumber {
    pub(super) const NONE: Self = Self(0);
}

/// A table's number and the first seven bytes of a key. They decide most comparisons without
/// reading the key, which is elsewhere in memory. Shorter keys are padded with zeros, so equal
/// heads decide nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head(u64);

impl Head {
    pub(super) fn new(table: Table, key: &[u8]) -> Self {
        let mut bytes = [0; 8];
        for (slot, byte) in bytes.iter_mut().zip([table.number()].iter().chain(key)) {
            *slot = *byte;
        }
        Self(u64::from_be_bytes(bytes))
    }
}

/// A row as one frame wrote it.
pub(super) struct Version {
    pub(super) hash: u64,
    pub(super) lsn: u64,
    pub(super) table: Table,
    pub(super) key: Box<[u8]>,
    pub(super) value: Option<Value>,
    /// The version before it in its bucket.
    pub(super) next_in_bucket: VersionNumber,
    /// The version before it in its table.
    pub(super) before_in_table: VersionNumber,
}

/// Shows nothing of the row.
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}

impl Version {
    pub(super) fn head(&self) -> Head {
        Head::new(self.table, &self.key)
    }

    pub(super) fn found(&self) -> VersionFound {
        VersionFound { lsn: self.lsn, value: self.value.clone() }
    }
}

/// The version that a lookup found: its LSN, and the row or `None` for a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionFound {
    pub(crate) lsn: u64,
    pub(crate) value: Option<Value>,
}
