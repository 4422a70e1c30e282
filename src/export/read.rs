//! Reading the lines of an export into a room.

use super::kinds::{
    Entry, TableRow, cache, codlet, handoff, job, limit, said, state, token, window,
};
use super::line::{Fields, Problem};
use super::{END, FORMAT, HEADER, ImportReport, bad_line};
use crate::codec::{self, key};
use crate::durability::Durability;
use crate::engine::access::{Reader, Writer};
use crate::engine::{Engine, Tx};
use crate::error::{Error, Result};
use crate::limits::MAX_KEY_LEN;
use crate::stores::cache::CacheStates;
use crate::stores::rate_limit::limiter::{Kind, LAST_ID_KEY};
use crate::stores::schema::catalogue;
use crate::stores::{derived, validation};
use crate::tables::Table;
use std::io::{BufRead, Read};
use std::ops::Bound;

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
pub(super) struct Import<'a> {
    engine: &'a Engine,
    caches: &'a CacheStates,
    progress: &'a mut dyn FnMut(&ImportReport),
    /// What is in the room.
    report: ImportReport,
    windows: window::Windows,
    /// What was read and is not in the room yet.
    batch: Vec<Ready>,
    batch_bytes: usize,
}

/// Lines of limited length.
struct Lines<'a> {
    from: &'a mut dyn BufRead,
    limit: usize,
    /// The number of the newest line, from 1.
    number: u64,
    bytes: u64,
    buf: Vec<u8>,
}

impl Lines<'_> {
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
    pub(super) fn new(
        engine: &'a Engine,
        caches: &'a CacheStates,
        progress: &'a mut dyn FnMut(&ImportReport),
    ) -> Self {
        let windows = window::Windows::default();
        Self {
            engine,
            caches,
            progress,
            report: ImportReport::default(),
            windows,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Imports every line of `from`.
    pub(super) fn run(mut self, from: &mut dyn BufRead) -> Result<ImportReport> {
        self.engine.read(Durability::Sync, |rows| check_empty(rows)).wait()?;
        // The most that a segment can hold, as it is the most that a row may have.
        let row_bytes = self.engine.max_row_bytes();
        let segment_bytes =
            row_bytes.saturating_add(8 * MAX_KEY_LEN).min(row_bytes.saturating_mul(4));
        let limit = segment_bytes.saturating_mul(LINE_BYTES_PER_ROW_BYTE).saturating_add(1 << 20);
        let limit = limit.min(MAX_LINE_BYTES);
        let mut lines = Lines { from, limit, number: 0, bytes: 0, buf: Vec::new() };
        let read = self.lines(&mut lines);
        // What stood before the line that stops it is imported all the same.
        self.commit()?;
        read?;
        self.report.bytes = lines.bytes;
        Ok(self.report)
    }

    fn lines(&mut self, lines: &mut Lines<'_>) -> Result<()> {
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
        let mut fields = Fields::parse(text)?;
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
        let kind = kind_called(&name)?;
        let goes_on = [window::PLAIN_REQUESTS, window::ADAPTIVE_REQUESTS].contains(&kind);
        if !goes_on {
            self.windows.end();
        }
        let entry = match kind {
            token::ENTRY => token::read(&mut fields),
            handoff::ENTRY => handoff::read(&mut fields),
            cache::ENTRY => cache::read(&mut fields),
            job::ENTRY => job::read(&mut fields),
            limit::CONFIG => limit::read_config(&mut fields),
            limit::COOLDOWN => limit::read_cooldown(&mut fields),
            window::PLAIN => self.windows.read_plain(&mut fields),
            window::PLAIN_REQUESTS => self.windows.read_requests(&mut fields, Kind::Plain),
            window::ADAPTIVE => self.windows.read_adaptive(&mut fields),
            window::ADAPTIVE_REQUESTS => self.windows.read_requests(&mut fields, Kind::Adaptive),
            state::ENTRY => state::read(&mut fields),
            _ => codlet::read(&mut fields),
        }?;
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
        let (engine, caches) = (self.engine, self.caches);
        let written = engine.transact(Durability::Sync, &[], |tx| write(caches, tx, &batch)).wait();
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

/// Every kind of line.
const KINDS: [&str; 12] = [
    token::ENTRY,
    handoff::ENTRY,
    cache::ENTRY,
    job::ENTRY,
    window::PLAIN,
    window::PLAIN_REQUESTS,
    limit::CONFIG,
    limit::COOLDOWN,
    window::ADAPTIVE,
    window::ADAPTIVE_REQUESTS,
    state::ENTRY,
    codlet::ENTRY,
];

fn kind_called(name: &str) -> Result<&'static str, Problem> {
    KINDS
        .into_iter()
        .find(|kind| *kind == name)
        .ok_or_else(|| format!("no kind of entry is called {name:?}"))
}

fn check_header(text: &str) -> Result<(), Problem> {
    let no_header =
        || format!("not the first line of an export, which is {{\"{HEADER}\":{FORMAT}}}");
    let mut fields = Fields::parse(text).map_err(|_| no_header())?;
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
    for &table in catalogue().all() {
        if !rows.scan(table, Bound::Unbounded, Bound::Unbounded, 1)?.is_empty() {
            return Err(Error::NotEmpty { table: table.name() });
        }
    }
    Ok(())
}

/// Stages the rows of a batch, up to the first line that cannot be: that line and what is wrong
/// with it.
fn write(caches: &CacheStates, tx: &mut Tx<'_>, batch: &[Ready]) -> Result<Option<(u64, Problem)>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for ready in batch {
        if let Some(problem) = conflict(tx, ready)? {
            return Ok(Some((ready.line, problem)));
        }
        for (table, key, value) in ready.entry.rows.iter().chain(&ready.derived) {
            tx.put(*table, key, value.clone());
            let name =
                (*table == Table::CACHE).then(|| key::take_bytes(&mut key.as_slice())).flatten();
            if let Some(name) = name.filter(|name| names.last() != Some(name)) {
                names.push(name);
            }
        }
    }
    for name in names {
        // Handles of the cache that were there before know nothing of these entries.
        caches.forget_order(&String::from_utf8_lossy(&name));
    }
    Ok(None)
}

/// Why an entry cannot stand beside what is there.
fn conflict(tx: &mut Tx<'_>, ready: &Ready) -> Result<Option<Problem>> {
    if let Some((table, key, _)) = ready.entry.rows.first()
        && ready.entry.is_new == tx.get(*table, key)?.is_some()
    {
        return Ok(Some(match ready.entry.is_new {
            true => format!("there is an entry of table {} with this key already", table.name()),
            false => "the window that it is of has gone".into(),
        }));
    }
    for (table, key, value) in ready.entry.rows.iter().chain(&ready.derived) {
        let problem = match *table {
            Table::STATE_EVENT => "the event id is that of another state",
            Table::CODLET_CODE_KEY | Table::CODLET_SESSION_KEY => {
                "the lookup key leads to another record"
            }
            Table::RATE_LIMIT_STORE if key == LAST_ID_KEY => {
                let last: u64 = match tx.get(*table, key)? {
                    Some(last) => codec::decode_row(table.name(), &last)?,
                    None => 0,
                };
                let new: u64 = codec::decode_row(table.name(), value)?;
                if last.checked_add(1) == Some(new) {
                    continue;
                }
                return Ok(Some("somebody else uses a limiter of this room".into()));
            }
            _ => continue,
        };
        if tx.get(*table, key)?.is_some() {
            return Ok(Some(problem.into()));
        }
    }
    Ok(None)
}
