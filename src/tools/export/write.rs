//! Writing every entry of a room.

use super::{END, ExportReport, FORMAT, HEADER};
use crate::engine::access::Reader;
use crate::error::{Error, Result};
use crate::stores::lines::LineWriter;
use crate::stores::registry;
use crate::stores::row_check::StoredRow;
use crate::stores::schema::{Entries, Lines};
use crate::stores::validation;
use std::io::{BufWriter, Write};

/// How many bytes may be gathered before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// Where lines go.
struct ExportOutput<'a> {
    to: BufWriter<&'a mut dyn Write>,
    report: ExportReport,
    progress: &'a mut dyn FnMut(&ExportReport),
}

impl ExportOutput<'_> {
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
pub(crate) fn export_all(
    rows: &mut dyn Reader,
    to: &mut dyn Write,
    progress: &mut dyn FnMut(&ExportReport),
) -> Result<ExportReport> {
    let mut out = ExportOutput {
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

/// Writes the entries, in the order of their tables and keys. A row that no store writes is
/// refused: an import would not take it.
fn entries(rows: &mut dyn Reader, out: &mut ExportOutput<'_>) -> Result<()> {
    let line = &mut LineWriter::default();
    for schema in registry::all() {
        let Lines::Entries(lines) = schema.lines else { continue };
        let mut entries = Entries::of(schema);
        while let Some(((key, value), satellite)) = entries.next(rows)? {
            validation::row(schema.table, &key, &value)?;
            if let (Some(beside), Some(satellite)) = (schema.satellite(), &satellite) {
                validation::row(beside, &key, satellite)?;
            }
            let row = StoredRow { key: &key, value: &value, satellite: satellite.as_deref() };
            (lines.write)(line, rows, row, &mut |kind, line| out.entry(kind, line))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access::Writer;
    use crate::engine::time_line::Deadline;
    use crate::stores::cache::content::ValueContent;
    use crate::stores::cache::row::CacheRow;
    use crate::stores::dedupe::row::{JobRow, Progress};
    use crate::stores::handoff::row::HandoffRow;
    use crate::stores::map_tx::MapTx;
    use crate::tables::Table;

    fn exported(table: Table, key: &[u8], value: Vec<u8>) -> Result<ExportReport> {
        let mut tx = MapTx::at(0);
        tx.put(table, key, value);
        export_all(&mut tx, &mut Vec::new(), &mut |_| {})
    }

    #[test]
    fn what_an_import_would_not_take_is_not_exported() {
        for (json, is_fine) in
            [(&b"{\n}"[..], true), (b"{", false), (b"", false), (&[b'['; 600], false)]
        {
            let state = HandoffRow { expires_at: Deadline::at(1), json }.encode().unwrap();
            let cached = CacheRow {
                expires_at: Deadline::NEVER,
                stored_at_ms: 1,
                tagged: false,
                content: ValueContent::Json(json),
            };
            let job = JobRow {
                job: [1; 16],
                opening_id: 1,
                ends_at: None,
                progress: Progress::Completed(json),
            };
            let rows = [
                (Table::HANDOFF, state),
                (Table::CACHE, cached.encode().unwrap()),
                (Table::DEDUPE_JOB, job.encode().unwrap()),
                (
                    Table::CODLET_FAILURES,
                    vec![1, 0, u8::from(is_fine), 5, 1][..3 + 2 * usize::from(is_fine)].to_vec(),
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
        let cached = CacheRow {
            expires_at: Deadline::NEVER,
            stored_at_ms: 1,
            tagged: true,
            content: ValueContent::Json(b"1"),
        };
        let error = exported(Table::CACHE, b"name\0\0hash", cached.encode().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Corrupted { .. }), "{error}");
    }
}
