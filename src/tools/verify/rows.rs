//! The rows, all tables of one position: each on its own, and what must be beside it.

use super::report::VerifyReport;
use crate::engine::access::{Reader, Row};
use crate::engine::cursor::RowCursor;
use crate::error::{Error, Result};
use crate::storage::UnreadableBlock;
use crate::stores::registry;
use crate::stores::schema::{Broken, Numbers, Role, TableSchema};
use crate::stores::{constraints, validation};
use crate::tables::Table;
use std::collections::BTreeSet;
use std::ops::Bound;

/// How many numbers are kept in mind at a time while rows that name others by number are checked.
/// More take more walks.
const NUMBERS_AT_ONCE: usize = 1 << 18;

/// How much of a key a location shows.
const SHOWN_KEY_BYTES: usize = 96;

const REBUILD: &str = "`cloakroom salvage` writes a new file in which such rows are derived anew";
const SALVAGE: &str =
    "restore a backup, or let `cloakroom salvage` copy what is intact into a new file";

/// Whether what is damaged there are the bytes of a row, and not the file around it.
fn is_of_a_row(location: &str) -> bool {
    location.starts_with("a row of table") || location.starts_with("a key of table")
}

/// Where a row lies, in words.
pub(crate) fn location(table: Table, key: &[u8]) -> String {
    let shown = key.get(..SHOWN_KEY_BYTES).unwrap_or(key);
    let dots = if shown.len() < key.len() { ".." } else { "" };
    format!("table {}, key \"{}\"{dots}", table.name(), shown.escape_ascii())
}

/// Takes note of damage; any other error ends the verification.
pub(super) fn find_damage(report: &mut VerifyReport, error: Error) -> Result<()> {
    match error {
        Error::Corrupted { location, detail } => {
            report.find(location, detail, SALVAGE);
            Ok(())
        }
        Error::Io { context, source } if UnreadableBlock::of(&source).is_some() => {
            report.find(context, source.to_string(), SALVAGE);
            Ok(())
        }
        other => Err(other),
    }
}

/// Shows `each` every row of `table`, as far as they can be read.
fn walk(
    rows: &mut dyn Reader,
    report: &mut VerifyReport,
    table: Table,
    mut each: impl FnMut(&mut dyn Reader, &mut VerifyReport, &Row) -> Result<()>,
) -> Result<()> {
    let mut cursor = RowCursor::all(table);
    loop {
        match cursor.next(rows) {
            Ok(Some(row)) => each(rows, report, &row)?,
            Ok(None) => return Ok(()),
            Err(error) => {
                find_damage(report, error)?;
                report.note(format!(
                    "the rows of table {} behind the damage were not looked at",
                    table.name()
                ));
                return Ok(());
            }
        }
    }
}

/// Checks every row.
pub(super) fn verify(rows: &mut dyn Reader, report: &mut VerifyReport) -> Result<()> {
    let mut greatest = 0;
    for schema in registry::all() {
        let mut count = 0;
        walk(rows, report, schema.table, |rows, report, row| {
            count += 1;
            check_row(rows, report, schema, row, &mut greatest)
        })?;
        report.count(schema.table.name(), count);
    }
    for schema in registry::all() {
        check_greatest(rows, report, schema, greatest)?;
        check_numbered(rows, report, schema)?;
    }
    Ok(())
}

/// Checks one row. `greatest` becomes the greatest number that a row gives itself.
fn check_row(
    rows: &mut dyn Reader,
    report: &mut VerifyReport,
    schema: &TableSchema,
    (key, value): &Row,
    greatest: &mut u64,
) -> Result<()> {
    let table = schema.table;
    match validation::row(table, key, value) {
        Ok(()) => {}
        Err(Error::Corrupted { detail, .. }) => {
            let problem = format!("the row is none that a store writes: {detail}");
            report.find(location(table, key), problem, SALVAGE);
            return Ok(());
        }
        Err(other) => return Err(other),
    }
    *greatest = schema.numbers.of(value)?.unwrap_or_default().max(*greatest);
    let mut broken = |broken: Broken| {
        let problem = format!("the row {}", broken.problem);
        report.find(location(broken.table, &broken.key), problem, REBUILD);
    };
    match constraints::check(rows, table, key, value, &mut broken) {
        // Another row that does not decode is found where it lies, with its key.
        Err(Error::Corrupted { location, .. }) if is_of_a_row(&location) => Ok(()),
        checked => checked.or_else(|error| find_damage(report, error)),
    }
}

/// The numbers that rows give themselves must be below the next one that is given out.
fn check_greatest(
    rows: &mut dyn Reader,
    report: &mut VerifyReport,
    schema: &TableSchema,
    greatest: u64,
) -> Result<()> {
    let Numbers::Greatest { key, called, decode, .. } = schema.numbers else { return Ok(()) };
    let found = rows.get(schema.table, key).and_then(|row| row.map(|row| decode(&row)).transpose());
    match found {
        // The row itself was found to be none.
        Err(Error::Corrupted { location, .. }) if is_of_a_row(&location) => Ok(()),
        Err(error) => find_damage(report, error),
        Ok(last) if last.unwrap_or_default() < greatest => {
            let last = last.unwrap_or_default();
            let problem = format!(
                "the last number given to {called} is {last}, but {called} has {greatest}: a new one \
                 would share its rows"
            );
            report.find(location(schema.table, key), problem, REBUILD);
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Every row that names another by number must name one that is there. Rows cannot be found by
/// their number; so a set of numbers is gathered and then struck out by a walk over what has them.
fn check_numbered(
    rows: &mut dyn Reader,
    report: &mut VerifyReport,
    schema: &TableSchema,
) -> Result<()> {
    let Role::Numbered { by, number, called, .. } = schema.role else { return Ok(()) };
    let mut from = Some(0_u64);
    while from.is_some() {
        let mut unknown = BTreeSet::new();
        while let Some(start) = from
            && unknown.len() < NUMBERS_AT_ONCE
        {
            from = next_number(rows, report, schema.table, number, start)?;
            if let Some(found) = from {
                unknown.insert(found);
                from = found.checked_add(1);
            }
        }
        for &table in by {
            let numbers = registry::of(table)?.numbers;
            walk(rows, report, table, |_, _, (_, value)| {
                // A row that does not decode was found before.
                if let Ok(Some(number)) = numbers.of(value) {
                    unknown.remove(&number);
                }
                Ok(())
            })?;
        }
        for number in unknown {
            let problem = format!("the row is left of {called} that is not there");
            report.find(location(schema.table, &number.to_be_bytes()), problem, REBUILD);
        }
    }
    Ok(())
}

/// The first number from `start` on that a row of `table` begins with.
fn next_number(
    rows: &mut dyn Reader,
    report: &mut VerifyReport,
    table: Table,
    number: fn(&[u8]) -> Result<u64>,
    start: u64,
) -> Result<Option<u64>> {
    let start = start.to_be_bytes();
    let mut cursor = RowCursor::range(table, Bound::Included(&start), Bound::Unbounded).up_to(1);
    match cursor.next(rows) {
        // A key that is none was found by the walk over its table.
        Ok(found) => Ok(found.and_then(|(key, _)| number(&key).ok())),
        Err(error) => find_damage(report, error).map(|()| None),
    }
}
