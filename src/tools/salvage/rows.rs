//! The rows of the new file: those that fit together, and the derived ones beside them.

use super::report::SalvageReport;
use super::unsure::Unsure;
use crate::btree::pages::KeyRange;
use crate::engine::access::{Reader, Row};
use crate::engine::cursor::RowCursor;
use crate::engine::new_file::NewFile;
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::stores::registry;
use crate::stores::schema::{Ends, Numbers, Role, TableSchema, lost};
use crate::stores::{derived, expiry, validation};
use crate::tables::Table;
use crate::tools::verify::location;
use std::collections::{BTreeMap, BTreeSet};

/// What is written, and what is remembered while it is.
struct Rebuild<'a> {
    new: &'a mut NewFile,
    report: &'a mut SalvageReport,
    counts: BTreeMap<Table, u64>,
    /// The numbers that kept rows give themselves, by which others name them.
    numbers: BTreeSet<u64>,
}

/// Copies what fits together into `new`. `unsure` are the keys of satellites of which it is not
/// known whether they were there.
pub(super) fn rebuild(
    rows: &mut dyn Reader,
    unsure: &Unsure,
    new: &mut NewFile,
    report: &mut SalvageReport,
) -> Result<()> {
    let mut rebuild = Rebuild { new, report, counts: BTreeMap::new(), numbers: BTreeSet::new() };
    let written = registry::all().filter(|schema| !schema.is_derived());
    // Rows that name others by number follow when it is known which of those are kept.
    let (numbered, others): (Vec<_>, Vec<_>) =
        written.partition(|schema| matches!(schema.role, Role::Numbered { .. }));
    for schema in &others {
        let mut cursor = RowCursor::all(schema.table);
        while let Some(row) = cursor.next(rows)? {
            rebuild.row(rows, schema, &row, unsure)?;
        }
    }
    for schema in numbered {
        rebuild.numbered(rows, schema)?;
    }
    for schema in others {
        rebuild.greatest(rows, schema)?;
    }
    let Rebuild { report, counts, .. } = rebuild;
    for schema in registry::all() {
        let count = counts.get(&schema.table).copied().unwrap_or_default();
        report.tables.push((schema.table.name(), count));
        report.rows += count;
    }
    Ok(())
}

impl Rebuild<'_> {
    /// Writes a row that is kept, and the derived rows that belong to it.
    fn row(
        &mut self,
        rows: &mut dyn Reader,
        schema: &TableSchema,
        (key, value): &Row,
        unsure: &Unsure,
    ) -> Result<()> {
        let table = schema.table;
        if matches!(schema.numbers, Numbers::Greatest { key: counter, .. } if counter == key) {
            return Ok(());
        }
        if let Some(why) = reject(rows, schema, key, value)? {
            self.report.drop_row(location(table, key), why);
            return Ok(());
        }
        if let Some(what) = unsure_of(rows, schema, key, unsure)? {
            self.report.lose(location(table, key), what);
        }
        self.numbers.extend(schema.numbers.of(value)?);
        if let Ends::Hinted { sweep_after_salvage, .. } = schema.ends
            && sweep_after_salvage(key)
        {
            self.write(
                Table::EXPIRY,
                &expiry::encode_key(Deadline { epoch: 0, at_ms: 0 }, table, key),
                &[],
            )?;
        }
        let mut derived = Vec::new();
        derived::rows(table, key, value, &mut |table, key, value| {
            derived.push((table, key, value))
        })?;
        for (table, key, value) in derived {
            self.write(table, &key, &value)?;
        }
        self.write(table, key, value)
    }

    fn write(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        *self.counts.entry(table).or_default() += 1;
        self.new.put(table, key, value)
    }

    /// The rows that name a row that is kept.
    fn numbered(&mut self, rows: &mut dyn Reader, schema: &TableSchema) -> Result<()> {
        let Role::Numbered { number, .. } = schema.role else { return Ok(()) };
        let table = schema.table;
        let mut cursor = RowCursor::all(table);
        while let Some((key, value)) = cursor.next(rows)? {
            if let Some(why) = reject(rows, schema, &key, &value)? {
                self.report.drop_row(location(table, &key), why);
            } else if self.numbers.contains(&number(&key)?) {
                self.write(table, &key, &value)?;
            } else {
                self.report.dropped += 1;
            }
        }
        Ok(())
    }

    /// The greatest number that was given to a row: not below any that is in use.
    fn greatest(&mut self, rows: &mut dyn Reader, schema: &TableSchema) -> Result<()> {
        let Numbers::Greatest { key, decode, encode, .. } = schema.numbers else { return Ok(()) };
        let last = rows.get(schema.table, key)?.and_then(|row| decode(&row).ok());
        let Some(last) = last.max(self.numbers.last().copied()) else { return Ok(()) };
        self.write(schema.table, key, &encode(last)?)
    }
}

/// Why a row stays behind, if it does.
fn reject(
    rows: &mut dyn Reader,
    schema: &TableSchema,
    key: &[u8],
    value: &[u8],
) -> Result<Option<String>> {
    if let Err(error) = validation::row(schema.table, key, value) {
        return Ok(Some(format!("a row that no store writes ({})", error.cause())));
    }
    if let Role::Satellite { of, called } = schema.role
        && !validation::is_kept(rows, of, key)?
    {
        return Ok(Some(lost(called)));
    }
    schema.loss.left_out.map_or(Ok(None), |left_out| left_out(rows, key, value))
}

/// What is not known of a row because its satellite may be lost.
fn unsure_of(
    rows: &mut dyn Reader,
    schema: &TableSchema,
    key: &[u8],
    unsure: &Unsure,
) -> Result<Option<&'static str>> {
    let Some(satellite) = schema.satellite() else { return Ok(None) };
    let Some(what) = registry::of(satellite)?.loss.unsure else { return Ok(None) };
    let may_be_lost = unsure
        .get(&satellite)
        .is_some_and(|ranges| ranges.iter().any(|range| contains(range, key)));
    Ok((may_be_lost && rows.get(satellite, key)?.is_none()).then_some(what))
}

/// Whether a key lies in a range: greater than the first bound and not greater than the second.
fn contains((after, to): &KeyRange, key: &[u8]) -> bool {
    after.as_deref().is_none_or(|after| key > after) && to.as_deref().is_none_or(|to| key <= to)
}
