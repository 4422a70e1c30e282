//! Reading the lines of an export into a room.

use super::{END, FORMAT, HEADER, ImportReport, bad_line};
use crate::durability::Durability;
use crate::engine::access::{Reader, Writer};
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::{Moment, TIME_LINE};
use crate::engine::{Engine, Tx};
use crate::error::{Error, Result};
use crate::limits::MAX_KEY_LEN;
use crate::stores::lines::{Entry, Fields, LineReader, Problem, TableRow, said};
use crate::stores::registry;
use crate::stores::registry::catalogue;
use crate::stores::schema::{Lines, Overwrite};
use crate::stores::{StoreStates, derived, validation};
use std::io::{BufRead, Read};

/// The most bytes of rows that one transaction takes, unless a single line has more.
const BATCH_BYTES: usize = 1 << 20;
/// What a row takes in a frame beside its key and value, amply: its table and its lengths.
const FRAME_ROW_OVERHEAD: usize = 32;
/// A byte of a row takes at most six in a line, as the escape of a control character in a string.
const LINE_BYTES_PER_ROW_BYTE: usize = 6;

/// The longest line, whatever the log could hold: it is gathered in memory. A row of more could not
/// be read either.
const MAX_LINE_BYTES: usize = 1 << 30;

/// A line that was read, and what is to be written for it.
struct Ready {
    line: u64,
    kind: &'static str,
    entry: Entry,
    /// The rows of derived tables that belong to it.
    derived: Vec<TableRow>,
    text_bytes: u64,
}

/// One import under way.
struct Import<'a> {
    engine: &'a Engine,
    states: &'a StoreStates,
    /// The time of the room when the import began.
    moment: Moment,
    progress: &'a mut dyn FnMut(&ImportReport),
    /// What is in the room.
    report: ImportReport,
    readers: Vec<Box<dyn LineReader>>,
    /// What was read and is not in the room yet.
    batch: Vec<Ready>,
    batch_bytes: usize,
}

/// Lines of limited length.
struct InputLines<'a> {
    from: &'a mut dyn BufRead,
    limit: usize,
    /// The number of the newest line, from 1.
    number: u64,
    bytes: u64,
    buf: Vec<u8>,
}

impl InputLines<'_> {
    /// The next line, or `None` at the end.
    fn next(&mut self) -> Result<Option<&str>> {
        self.number += 1;
        self.buf.clear();
        // The newline does not count.
        let most = self.limit as u64 + 1;
        let read = Read::take(&mut *self.from, most).read_until(b'\n', &mut self.buf);
        let number = self.number;
        read.map_err(|error| Error::io(format!("reading line {number} of an export"), error))?;
        if self.buf.is_empty() {
            return Ok(None);
        }
        self.bytes += self.buf.len() as u64;
        if self.buf.last() == Some(&b'\n') {
            self.buf.pop();
        } else if self.buf.len() > self.limit {
            let limit = self.limit;
            let long = format!(
                "longer than {limit} bytes, which nothing is that fits the log of this room; \
                 import into one with a greater log_capacity"
            );
            return Err(bad_line(number, long));
        }
        let text = std::str::from_utf8(&self.buf).map_err(|_| bad_line(number, "not UTF-8"))?;
        Ok(Some(text))
    }
}

impl<'a> Import<'a> {
    fn new(
        engine: &'a Engine,
        states: &'a StoreStates,
        moment: Moment,
        progress: &'a mut dyn FnMut(&ImportReport),
    ) -> Self {
        Self {
            engine,
            states,
            progress,
            report: ImportReport::default(),
            readers: readers(),
            moment,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Imports every line of `from`.
    fn run(mut self, from: &mut dyn BufRead) -> Result<ImportReport> {
        self.engine.read(Durability::Sync, |rows| check_empty(rows)).wait()?;
        // The most that a segment can hold, as it is the most that a row may have.
        let row_bytes = self.engine.max_row_bytes();
        let segment_bytes =
            row_bytes.saturating_add(8 * MAX_KEY_LEN).min(row_bytes.saturating_mul(4));
        let limit = segment_bytes.saturating_mul(LINE_BYTES_PER_ROW_BYTE).saturating_add(1 << 20);
        let limit = limit.min(MAX_LINE_BYTES);
        let mut lines = InputLines { from, limit, number: 0, bytes: 0, buf: Vec::new() };
        let read = self.lines(&mut lines);
        // What stood before the line that stops it is imported all the same.
        self.commit()?;
        read?;
        self.report.bytes = lines.bytes;
        Ok(self.report)
    }

    fn lines(&mut self, lines: &mut InputLines<'_>) -> Result<()> {
        let header = lines.next()?.ok_or_else(|| bad_line(1, "there is nothing to import"))?;
        check_header(header).map_err(|problem| bad_line(1, problem))?;
        let mut entries: u64 = 0;
        loop {
            let Some(text) = lines.next()? else {
                let missing = format!(
                    "the last line, {{\"{END}\":{entries}}}, is missing: the export was cut short"
                );
                return Err(bad_line(lines.number, missing));
            };
            let (text_bytes, line) = (text.len() as u64 + 1, self.line(text, entries));
            match line.map_err(|problem| bad_line(lines.number, problem))? {
                Line::Entry(kind, entry) => {
                    entries += 1;
                    self.add(lines.number, kind, entry, text_bytes)?;
                }
                Line::End => break,
            }
        }
        match lines.next()? {
            Some(_) => Err(bad_line(lines.number, "it stands behind the last line of the export")),
            None => Ok(()),
        }
    }

    /// Reads one line behind `entries` others.
    fn line(&mut self, text: &str, entries: u64) -> Result<Line, Problem> {
        let mut fields = Fields::parse(text, &self.moment)?;
        if fields.has(END) {
            let said = fields.number(END)?;
            fields.finish()?;
            if said != entries {
                return Err(format!(
                    "the last line speaks of {said} entries, but {entries} stand before it"
                ));
            }
            return Ok(Line::End);
        }
        let name = fields.text("entry")?;
        let mut read = None;
        for reader in &mut self.readers {
            match reader.kinds().iter().find(|kind| **kind == name) {
                Some(kind) => read = Some((*kind, reader.read(kind, &mut fields)?)),
                None => reader.interrupt(),
            }
        }
        let (kind, entry) = read.ok_or_else(|| format!("no kind of entry is called {name:?}"))?;
        fields.finish()?;
        Ok(Line::Entry(kind, entry))
    }

    /// Takes an entry up, and writes the ones before it when they are enough.
    fn add(&mut self, line: u64, kind: &'static str, entry: Entry, text_bytes: u64) -> Result<()> {
        let mut derived = Vec::new();
        for (table, key, value) in &entry.rows {
            validation::row(*table, key, value).map_err(|error| bad_line(line, said(error)))?;
            derived::rows(*table, key, value, &mut |table, key, value| {
                derived.push((table, key, value))
            })
            .map_err(|error| bad_line(line, said(error)))?;
        }
        let cost = |(_, key, value): &TableRow| key.len() + value.len() + FRAME_ROW_OVERHEAD;
        let bytes = entry.rows.iter().chain(&derived).map(cost).sum();
        if self.batch_bytes.saturating_add(bytes) > BATCH_BYTES.min(self.engine.max_row_bytes()) {
            self.commit()?;
        }
        self.batch_bytes = self.batch_bytes.saturating_add(bytes);
        self.batch.push(Ready { line, kind, entry, derived, text_bytes });
        Ok(())
    }

    /// Writes the batch, durably.
    fn commit(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Some(first) = batch.first() else { return Ok(()) };
        let first = first.line;
        let (engine, states) = (self.engine, self.states);
        let written = engine.transact(Durability::Sync, &[], |tx| write(states, tx, &batch)).wait();
        let refused = written.map_err(|error| Error::Import {
            line: first,
            detail: error.to_string(),
            source: Some(std::sync::Arc::new(error)),
        })?;
        let end = refused.as_ref().map_or(u64::MAX, |(line, _)| *line);
        for ready in batch.iter().take_while(|ready| ready.line < end) {
            self.report.entries += 1;
            self.report.bytes = self.report.bytes.saturating_add(ready.text_bytes);
            *self.report.by_kind.entry(ready.kind).or_default() += 1;
        }
        (self.progress)(&self.report);
        match refused {
            Some((line, problem)) => Err(bad_line(line, problem)),
            None => Ok(()),
        }
    }
}

/// What a line is.
enum Line {
    Entry(&'static str, Entry),
    End,
}

/// What reads each kind of line.
fn readers() -> Vec<Box<dyn LineReader>> {
    let readers = registry::all().filter_map(|schema| match schema.lines {
        Lines::Entries(lines) => lines.reader,
        Lines::OfOthers(_) => None,
    });
    readers.map(|reader| reader()).collect()
}

fn check_header(text: &str) -> Result<(), Problem> {
    let no_header =
        || format!("not the first line of an export, which is {{\"{HEADER}\":{FORMAT}}}");
    let moment = Moment::manual(0);
    let mut fields = Fields::parse(text, &moment).map_err(|_| no_header())?;
    let format = fields.number(HEADER).map_err(|_| no_header())?;
    if format > FORMAT {
        return Err(format!(
            "an export of format {format}, and this version reads up to {FORMAT}; import it with a newer cloakroom"
        ));
    }
    if format != FORMAT {
        return Err(no_header());
    }
    fields.finish()
}

/// Refuses a room with any row.
fn check_empty(rows: &mut dyn Reader) -> Result<()> {
    // A room has a time line of its own as soon as it was opened.
    for &table in catalogue().all().iter().filter(|table| **table != TIME_LINE) {
        if RowCursor::all(table).up_to(1).next(rows)?.is_some() {
            return Err(Error::NotEmpty { table: table.name() });
        }
    }
    Ok(())
}

/// Stages the rows of a batch, up to the first line that cannot be: that line and what is wrong
/// with it.
fn write(states: &StoreStates, tx: &mut Tx<'_>, batch: &[Ready]) -> Result<Option<(u64, Problem)>> {
    for ready in batch {
        if let Some(problem) = conflict(tx, ready)? {
            return Ok(Some((ready.line, problem)));
        }
        for (table, key, value) in ready.entry.rows.iter().chain(&ready.derived) {
            tx.put(*table, key, value.clone());
            if let Lines::Entries(lines) = registry::of(*table)?.lines
                && let Some(imported) = lines.imported
            {
                imported(states, key);
            }
        }
    }
    Ok(None)
}

/// Why an entry cannot stand beside what is there.
fn conflict(tx: &mut Tx<'_>, ready: &Ready) -> Result<Option<Problem>> {
    if let Some((table, key, _)) = ready.entry.rows.first() {
        match (tx.get(*table, key)?, ready.entry.goes_on) {
            (Some(_), None) => {
                let table = table.name();
                let problem = format!("there is an entry of table {table} with this key already");
                return Ok(Some(problem));
            }
            (None, Some(problem)) => return Ok(Some(problem.into())),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    for (table, key, value) in ready.entry.rows.iter().chain(&ready.derived) {
        if let Lines::OfOthers(Overwrite::Unless(problem)) = registry::of(*table)?.lines
            && let Some(problem) = problem(tx.get(*table, key)?.as_deref(), value)?
        {
            return Ok(Some(problem));
        }
    }
    Ok(None)
}

/// Reads the lines of an export into a room.
pub(crate) fn import_all(
    engine: &Engine,
    states: &StoreStates,
    from: &mut dyn BufRead,
    progress: &mut dyn FnMut(&ImportReport),
) -> Result<ImportReport> {
    let moment = engine.read(Durability::Os, |rows| Ok::<_, Error>(rows.moment())).wait()?;
    Import::new(engine, states, moment, progress).run(from)
}
