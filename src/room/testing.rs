//! What tests do with a room that no one else may: rows as they are, deliberate faults, other
//! storages.

use super::{Builder, Cloakroom};
use crate::engine::access::Writer;
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::TIME_LINE;
use crate::engine::{Engine, Threads, Tx};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::stores::registry::catalogue;
use crate::tables::Table;
use std::path::Path;
use std::sync::Arc;

/// A row as it is: number of the table and key, value.
pub type RawRow = ((u8, Vec<u8>), Vec<u8>);

impl Cloakroom {
    /// Every row of the stores: number of the table, key, value. Without the time line, which is
    /// another in every room.
    ///
    /// # Errors
    /// As [`Cloakroom::verify`], and [`Error::Corrupted`] when a row cannot be read.
    #[doc(hidden)]
    pub fn raw_rows(&self) -> Result<Vec<RawRow>> {
        let mut rows = Vec::new();
        self.engine.durable_snapshot()?.for_each(|table, key, value| {
            if table != TIME_LINE {
                rows.push(((table.number(), key.to_vec()), value.to_vec()));
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Stores or removes one row as it is, past the stores: a deliberate fault, to see that
    /// verification notices.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when there is no such table, and those of a transaction.
    #[doc(hidden)]
    pub fn set_raw_row(&self, table: u8, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let table = catalogue()
            .numbered(table)
            .ok_or_else(|| Error::InvalidConfig(format!("no table has the number {table}")))?;
        let change = |tx: &mut Tx<'_>| {
            match value {
                Some(value) => tx.put(table, key, value.to_vec()),
                None => tx.delete(table, key),
            }
            Ok(())
        };
        self.engine.transact(self.durability, &[], change).wait()
    }

    /// How many rows each table of the stores has, expired ones and index rows too.
    #[doc(hidden)]
    pub fn row_counts(&self) -> Result<Vec<(&'static str, usize)>> {
        let maintenance = self.engine.maintenance()?;
        let count = |table: &Table| {
            let rows = maintenance.read(|rows| RowCursor::all(*table).collect(rows))?;
            Ok((table.name(), rows.len()))
        };
        catalogue().all().iter().filter(|table| **table != TIME_LINE).map(count).collect()
    }

    /// Has the next call look whether the file still has its name and its length, which happens
    /// every half second otherwise.
    #[doc(hidden)]
    pub fn look_at_name_next(&self) {
        self.engine.look_at_name_next();
    }

    /// Acknowledges every write before it is flushed: a deliberate fault, to see that the crash
    /// simulation notices.
    #[doc(hidden)]
    pub fn acknowledge_before_flush(&self) {
        self.engine.acknowledge_before_flush();
    }
}

impl Builder {
    /// Runs without background threads: callers flush for themselves, and a checkpoint is run by
    /// the writer that needs one. What happens then depends on the calls alone. For simulations.
    #[doc(hidden)]
    #[must_use]
    pub fn without_threads(mut self) -> Self {
        self.threads = Threads::None;
        self
    }

    /// Opens a room on any storage, formatting it when it is empty.
    ///
    /// # Errors
    /// As [`Builder::open`].
    #[doc(hidden)]
    pub fn open_on(self, storage: Arc<dyn Storage>) -> Result<Cloakroom> {
        let (options, states) = self.options()?;
        let empty =
            storage.len().map_err(|error| Error::io("asking for the storage's length", error))?
                == 0;
        let engine = if empty && !self.read_only {
            Engine::create_on(storage, options)?
        } else {
            Engine::open_on(storage, Path::new("(storage)"), options)?
        };
        Ok(Cloakroom { engine, states, durability: self.durability })
    }
}
