//! A room as text, and its rows for people who look into a file.

use super::Cloakroom;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::tools::{self, DumpRow, ExportReport, ImportReport, TableInfo};
use std::io::{BufRead, Write};

impl Cloakroom {
    /// Writes everything in the room to `to`, as lines of JSON: what [`import`](Self::import) makes
    /// the same room of, in any version of this crate that knows the lines. Their fields are in
    /// docs/export.md.
    ///
    /// It shows the room as it was at one durable moment, not before anything acknowledged so far,
    /// whatever is written meanwhile. Entries that have expired and were not swept yet are written
    /// too. Lookup keys, states and values stand in it as they are; it is as secret as the room.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`] when `to` fails, [`Error::Corrupted`] for a row that is
    /// damaged or that no store writes, and [`Error::Closed`] when the room is closed, also
    /// meanwhile. What was written then ends without the last line, which an import notices. The
    /// room is never changed.
    ///
    /// ```
    /// use cloakroom::Cloakroom;
    /// use cloakroom::cache::CacheStore;
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// room.cache::<u32>("primes").set_with_tags("third", &5, 0, &["odd"]).wait()?;
    ///
    /// let mut lines = Vec::new();
    /// let report = room.export(&mut lines)?;
    /// assert_eq!(report.entries, 1);
    /// assert!(lines.starts_with(b"{\"cloakroom_export\":1}\n{\"entry\":\"cache\",\"cache\":\"primes\""));
    ///
    /// let copy = Cloakroom::builder().open_in_memory()?;
    /// copy.import(&mut lines.as_slice())?;
    /// assert_eq!(copy.cache::<u32>("primes").get("third").wait()?, Some(5));
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    pub fn export(&self, to: &mut dyn Write) -> Result<ExportReport> {
        self.export_with_progress(to, &mut |_| {})
    }

    /// As [`export`](Self::export); `progress` is shown what was written so far, again and again.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    pub fn export_with_progress(
        &self,
        to: &mut dyn Write,
        progress: &mut dyn FnMut(&ExportReport),
    ) -> Result<ExportReport> {
        tools::export_all(&mut self.engine.durable_snapshot()?, to, progress)
    }

    /// Reads the lines that [`export`](Self::export) wrote into this room, which must be empty. An
    /// export of the room is then the same bytes, and everything that was imported is durable.
    ///
    /// Lines may stand in any order, but for the first, the last, and those of requests, which
    /// stand right behind the window that they are of. Each is checked as the store of its entry
    /// checks what it is given. The room should not be used otherwise meanwhile.
    ///
    /// # Errors
    /// - [`Error::NotEmpty`] when there is any row in the room, be it of something that has
    ///   expired. Nothing was changed.
    /// - [`Error::Import`] says which line stopped it, and why. **What stood before that line is in
    ///   the room**, durably, and nothing else is; to get all or nothing, import into a new file
    ///   and give it its name afterwards.
    /// - [`Error::Io`] when `from` fails: what it gave before is in the room.
    ///
    /// ```
    /// use cloakroom::{Cloakroom, Error};
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// let lines = b"{\"cloakroom_export\":1}\n{\"entry\":\"hat\"}\n";
    /// let error = room.import(&mut lines.as_slice()).unwrap_err();
    /// assert!(matches!(error, Error::Import { line: 2, .. }));
    /// assert!(error.to_string().contains("line 2: "), "{error}");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn import(&self, from: &mut dyn BufRead) -> Result<ImportReport> {
        self.import_with_progress(from, &mut |_| {})
    }

    /// As [`import`](Self::import); `progress` is shown what is durable so far, again and again.
    ///
    /// # Errors
    /// As [`import`](Self::import).
    pub fn import_with_progress(
        &self,
        from: &mut dyn BufRead,
        progress: &mut dyn FnMut(&ImportReport),
    ) -> Result<ImportReport> {
        tools::import_all(&self.engine, self.states(), from, progress)
    }

    /// The tables of the room, in the order of their numbers, each with how much is in it at one
    /// moment. It reads every row.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Corrupted`] or [`Error::Io`] when a page cannot be read.
    ///
    /// ```
    /// use cloakroom::Cloakroom;
    /// use cloakroom::handoff::HandoffStateStore;
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// room.handoff().set("order-7", &Default::default(), 600).wait()?;
    /// let full: Vec<_> = room.tables()?.into_iter().filter(|table| table.rows > 0).collect();
    /// assert_eq!([full[0].name, full[1].name], ["handoff", "expiry"]);
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        tools::list_tables(&mut self.engine.durable_snapshot()?)
    }

    /// Shows `each` every row of the table called `table` as it was at one moment, in the order of
    /// their keys, until it answers `false`. Answers how many rows it showed.
    ///
    /// It is for people who look into their own file: lookup keys, states and values are shown
    /// whole. A row that does not decode is shown as hex, with a note. What the fields are called
    /// may change with the format of the file; an [`export`](Self::export) is for programs.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a name that no table has. [`Error::Closed`], or
    /// [`Error::Corrupted`] or [`Error::Io`] when a page cannot be read.
    ///
    /// ```
    /// use cloakroom::Cloakroom;
    /// use cloakroom::cache::CacheStore;
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// room.cache::<u32>("primes").set("third", &5, 0).wait()?;
    /// room.dump("cache", &mut |row| {
    ///     assert_eq!(row.key["hash"], "third");
    ///     assert_eq!(row.value["value"], 5);
    ///     true
    /// })?;
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    pub fn dump(&self, table: &str, each: &mut dyn FnMut(DumpRow) -> bool) -> Result<u64> {
        tools::dump_table(&mut self.engine.durable_snapshot()?, table, each)
    }
}
