//! Writing every entry of a room.

use super::kinds::{cache, codlet, handoff, job, limit, state, token, window};
use super::line::LineWriter;
use super::{END, ExportReport, FORMAT, HEADER};
use crate::engine::access::{Reader, Value};
use crate::error::{Error, Result};
use crate::stores::merge_join::visit;
use crate::stores::validation;
use crate::tables::Table;
use std::io::{BufWriter, Write};
use std::ops::Bound;

/// How many rows one step reads from a table of small rows.
const SMALL_SLICE: usize = 256;
/// How many rows one step reads from a table whose rows may have megabytes.
const LARGE_SLICE: usize = 16;

/// How many rows one step reads from `table`.
pub(super) fn slice_of(table: Table) -> usize {
    match table {
        Table::HANDOFF | Table::CACHE | Table::DEDUPE_JOB | Table::STATE => LARGE_SLICE,
        _ => SMALL_SLICE,
    }
}
/// How many bytes may be gathered before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// Where lines go.
struct Output<'a> {
    to: BufWriter<&'a mut dyn Write>,
    report: ExportReport,
    progress: &'a mut dyn FnMut(&ExportReport),
}

impl Output<'_> {
    fn write(&mut self, line: &[u8]) -> Result<()> {
        self.report.bytes += line.len() as u64;
        self.to.write_all(line).map_err(|error| Error::io("writing an export", error))
    }

    /// Writes a line of the kind `entry`.
    fn entry(&mut self, entry: &'static str, line: &mut LineWriter) -> Result<()> {
        self.write(line.end())?;
        self.report.entries += 1;
        *self.report.by_kind.entry(entry).or_default() += 1;
        (self.progress)(&self.report);
        Ok(())
    }
}

/// Writes everything that `rows` shows to `to`.
pub(super) fn export(
    rows: &mut dyn Reader,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(&ExportReport),
) -> Result<ExportReport> {
    let mut out = Output {
        to: BufWriter::with_capacity(BUFFER_BYTES, to),
        report: ExportReport::default(),
        progress,
    };
    out.write(format!("{{\"{HEADER}\":{FORMAT}}}\n").as_bytes())?;
    entries(rows, &mut out)?;
    let entries = out.report.entries;
    out.write(format!("{{\"{END}\":{entries}}}\n").as_bytes())?;
    out.to.flush().map_err(|error| Error::io("writing an export", error))?;
    Ok(out.report)
}

/// Writes the entries, in the order of their tables and keys.
fn entries(rows: &mut dyn Reader, out: &mut Output<'_>) -> Result<()> {
    let line = &mut LineWriter::default();
    let tables = (Table::FORM_TOKEN, Table::FORM_TOKEN_USE);
    visit_sound(rows, tables, |key, token, used| {
        token::write(line, key, token, used)?;
        out.entry(token::ENTRY, line)
    })?;
    let tables = (Table::HANDOFF, Table::HANDOFF_CLAIM);
    visit_sound(rows, tables, |key, state, claim| {
        handoff::write(line, key, state, claim)?;
        out.entry(handoff::ENTRY, line)
    })?;
    let tables = (Table::CACHE, Table::CACHE_TAGS);
    visit_sound(rows, tables, |key, value, tags| {
        cache::write(line, key, value, tags)?;
        out.entry(cache::ENTRY, line)
    })?;
    walk_sound(rows, Table::DEDUPE_JOB, |_, key, value| {
        job::write(line, key, value)?;
        out.entry(job::ENTRY, line)
    })?;
    limiters(rows, line, out)?;
    walk_sound(rows, Table::STATE, |_, key, value| {
        state::write(line, key, value)?;
        out.entry(state::ENTRY, line)
    })?;
    for table in codlet::TABLES {
        walk_sound(rows, table, |_, key, value| {
            codlet::write(line, table, key, value)?;
            out.entry(codlet::ENTRY, line)
        })?;
    }
    Ok(())
}

fn limiters(rows: &mut dyn Reader, line: &mut LineWriter, out: &mut Output<'_>) -> Result<()> {
    walk_sound(rows, Table::RATE_LIMIT, |rows, key, value| {
        let mut kind = window::PLAIN;
        window::write_plain(line, rows, key, value, &mut |line| {
            out.entry(std::mem::replace(&mut kind, window::PLAIN_REQUESTS), line)
        })
    })?;
    walk_sound(rows, Table::RATE_LIMIT_CONFIG, |_, key, value| {
        limit::write_config(line, key, value)?;
        out.entry(limit::CONFIG, line)
    })?;
    walk_sound(rows, Table::RATE_LIMIT_COOLDOWN, |rows, key, value| match limit::write_cooldown(
        line, rows, key, value,
    )? {
        true => out.entry(limit::COOLDOWN, line),
        false => Ok(()),
    })?;
    walk_sound(rows, Table::ADAPTIVE_RATE_LIMIT, |rows, key, value| {
        let mut kind = window::ADAPTIVE;
        window::write_adaptive(line, rows, key, value, &mut |line| {
            out.entry(std::mem::replace(&mut kind, window::ADAPTIVE_REQUESTS), line)
        })
    })
}

/// Shows `each` every row of the first table with the row of the second under the same key, and
/// refuses one that no store writes: an import would not take it.
fn visit_sound(
    rows: &mut dyn Reader,
    tables: (Table, Table),
    mut each: impl FnMut(&[u8], &[u8], Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    visit(rows, tables, slice_of(tables.0), None, |key, value, beside| {
        validation::row(tables.0, key, value)?;
        let beside = beside.map(|beside| &**beside);
        beside.map_or(Ok(()), |beside| validation::row(tables.1, key, beside))?;
        each(key, value, beside).map(|()| true)
    })
}

/// Shows `each` every row of a table, and refuses one that no store writes.
fn walk_sound(
    rows: &mut dyn Reader,
    table: Table,
    mut each: impl FnMut(&mut dyn Reader, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    walk(rows, table, |rows, key, value| {
        validation::row(table, key, value)?;
        each(rows, key, value)
    })
}

/// Shows `each` every row of `table`, in key order.
pub(super) fn walk(
    rows: &mut dyn Reader,
    table: Table,
    mut each: impl FnMut(&mut dyn Reader, &[u8], &Value) -> Result<()>,
) -> Result<()> {
    let (slice, mut after): (_, Option<Vec<u8>>) = (slice_of(table), None);
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = rows.scan(table, from, Bound::Unbounded, slice)?;
        for (key, value) in &found {
            each(rows, key, value)?;
        }
        if found.len() < slice {
            return Ok(());
        }
        after = found.into_iter().next_back().map(|(key, _)| key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access::Writer;
    use crate::stores::cache::row::{CacheRow, NEVER};
    use crate::stores::dedupe::row::{JobRow, Progress};
    use crate::stores::handoff::row::StateRow;
    use crate::stores::map_tx::MapTx;

    fn exported(table: Table, key: &[u8], value: Vec<u8>) -> Result<ExportReport> {
        let mut tx = MapTx::at(0);
        tx.put(table, key, value);
        export(&mut tx, &mut Vec::new(), &mut |_| {})
    }

    #[test]
    fn what_an_import_would_not_take_is_not_exported() {
        for (json, is_fine) in
            [(&b"{\n}"[..], true), (b"{", false), (b"", false), (&[b'['; 600], false)]
        {
            let state = StateRow { expires_at_ms: 1, json }.encode().unwrap();
            let cached = CacheRow { expires_at_ms: NEVER, stored_at_ms: 1, tagged: false, json };
            let job = JobRow {
                job: [1; 16],
                opening_id: 1,
                ends_at_ms: None,
                progress: Progress::Completed(json),
            };
            let rows = [
                (Table::HANDOFF, state),
                (Table::CACHE, cached.encode().unwrap()),
                (Table::DEDUPE_JOB, job.encode().unwrap()),
                (
                    Table::CODLET_FAILURES,
                    vec![1, u8::from(is_fine), 5, 1][..2 + 2 * usize::from(is_fine)].to_vec(),
                ),
            ];
            for (table, value) in rows {
                match exported(table, b"name\0\0hash", value) {
                    Ok(report) => assert!(is_fine && report.entries == 1, "{table:?} {json:?}"),
                    Err(error) => {
                        let names_it = error.to_string().contains(table.name());
                        assert!(
                            !is_fine && names_it && matches!(error, Error::Corrupted { .. }),
                            "{error}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_tagged_value_without_its_tags_is_damage() {
        let cached = CacheRow { expires_at_ms: NEVER, stored_at_ms: 1, tagged: true, json: b"1" };
        let error = exported(Table::CACHE, b"name\0\0hash", cached.encode().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Corrupted { .. }), "{error}");
    }
}
