//! A row as the schemas of tables are shown it, and what they check of it without a look at any
//! other row.

use super::cache::json;
use crate::codec::key;
use crate::error::{Error, Result};
use crate::limits::MAX_KEY_LEN;
use crate::tables::Table;
use serde::de::IgnoredAny;

/// A row and what stands beside it.
#[derive(Clone, Copy)]
pub(crate) struct StoredRow<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The value under the same key in the satellite of the table.
    pub(crate) satellite: Option<&'a [u8]>,
}

/// A row that is looked at.
pub(crate) struct RowCheck<'a> {
    pub(crate) table: Table,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl RowCheck<'_> {
    /// That the bytes are of no row, in words that follow "a row of a table".
    pub(crate) fn bad(&self, detail: &str) -> Error {
        Error::corrupted(format!("a row of table {}", self.table.name()), detail)
    }

    /// That the key is none.
    pub(crate) fn bad_key(&self, detail: &str) -> Error {
        Error::corrupted(format!("a key of table {}", self.table.name()), detail)
    }

    /// Refuses a text that is longer than a store takes.
    pub(crate) fn short(&self, text: &str) -> Result<()> {
        if text.len() > MAX_KEY_LEN {
            return Err(self.bad("a text that is over the limit of a key"));
        }
        Ok(())
    }

    /// Refuses bytes that are no text, or too long a one.
    pub(crate) fn text(&self, bytes: &[u8]) -> Result<()> {
        self.short(std::str::from_utf8(bytes).map_err(|_| self.bad_key("not UTF-8"))?)
    }

    /// The name that a key begins with and the `rest` behind it.
    pub(crate) fn name_and(&self, rest: &str) -> Result<()> {
        let name =
            key::take_bytes(&mut &*self.key).ok_or_else(|| self.bad_key("it has no name"))?;
        self.text(&name)?;
        self.short(rest)
    }

    /// Refuses a value where none belongs.
    pub(crate) fn empty(&self) -> Result<()> {
        if self.value.is_empty() { Ok(()) } else { Err(self.bad("bytes where none belong")) }
    }

    /// Refuses what is not JSON.
    pub(crate) fn json(&self, json: &[u8]) -> Result<()> {
        let _: IgnoredAny =
            json::decode(json).ok_or_else(|| self.bad("a value that is not JSON"))?;
        Ok(())
    }
}
