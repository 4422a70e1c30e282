//! The rows, all tables of one position: each on its own, and what must be beside it.

use super::report::VerifyReport;
use crate::codec;
use crate::engine::access::{Reader, Row};
use crate::error::{Error, Result};
use crate::stores::rate_limit::history;
use crate::stores::rate_limit::limiter::LAST_ID_KEY;
use crate::stores::schema::catalogue;
use crate::stores::{constraints, validation};
use crate::tables::Table;
use std::collections::BTreeSet;
use std::ops::Bound;

/// How many rows one step reads of tables with values of up to megabytes, and of the others.
const LARGE_SLICE: usize = 16;
const SMALL_SLICE: usize = 512;

/// How many windows are kept in mind at a time while the rows of requests are checked. More take
/// more walks.
const WINDOWS_AT_ONCE: usize = 1 << 18;

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
    let slice = match table {
        Table::HANDOFF | Table::CACHE | Table::DEDUPE_JOB | Table::STATE | Table::CACHE_TAGS => {
            LARGE_SLICE
        }
        _ => SMALL_SLICE,
    };
    let mut after: Option<Vec<u8>> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = match rows.scan(table, from, Bound::Unbounded, slice) {
            Ok(found) => found,
            Err(error) => {
                find_damage(report, error)?;
                report.note(format!(
                    "the rows of table {} behind the damage were not looked at",
                    table.name()
                ));
                return Ok(());
            }
        };
        for row in &found {
            each(rows, report, row)?;
        }
        if found.len() < slice {
            return Ok(());
        }
        after = found.into_iter().next_back().map(|(key, _)| key);
    }
}

/// Checks every row.
pub(super) fn verify(rows: &mut dyn Reader, report: &mut VerifyReport) -> Result<()> {
    let mut greatest_id = 0;
    for &table in catalogue().all() {
        let mut count = 0;
        walk(rows, report, table, |rows, report, (key, value)| {
            count += 1;
            if let Err(error) = validation::row(table, key, value) {
                return match error {
                    Error::Corrupted { detail, .. } => {
                        let problem = format!("the row is none that a store writes: {detail}");
                        report.find(location(table, key), problem, SALVAGE);
                        Ok(())
                    }
                    other => Err(other),
                };
            }
            greatest_id =
                greatest_id.max(constraints::window_id(table, value)?.unwrap_or_default());
            let mut broken = |broken: constraints::Broken| {
                let problem = format!("the row {}", broken.problem);
                report.find(location(broken.table, &broken.key), problem, REBUILD);
            };
            let checked = constraints::check(rows, table, key, value, &mut broken);
            match checked {
                // Another row that does not decode is found where it lies, with its key.
                Err(Error::Corrupted { location, .. }) if is_of_a_row(&location) => Ok(()),
                checked => checked.or_else(|error| find_damage(report, error)),
            }
        })?;
        report.count(table.name(), count);
    }
    check_ids(rows, report, greatest_id)?;
    check_requests(rows, report)
}

/// The numbers of windows must be below the next one that is given out.
fn check_ids(rows: &mut dyn Reader, report: &mut VerifyReport, greatest: u64) -> Result<()> {
    let table = Table::RATE_LIMIT_STORE;
    let last = rows
        .get(table, LAST_ID_KEY)
        .and_then(|row| row.map(|row| codec::decode_row::<u64>(table.name(), &row)).transpose());
    match last {
        // The row itself was found to be none.
        Err(Error::Corrupted { location, .. }) if is_of_a_row(&location) => {}
        Err(error) => find_damage(report, error)?,
        Ok(last) if last.unwrap_or_default() < greatest => {
            let problem = format!(
                "the last number given to a window is {}, but there is a window {greatest}: a new one would share \
                 its requests",
                last.unwrap_or_default()
            );
            report.find(location(table, LAST_ID_KEY), problem, REBUILD);
        }
        Ok(_) => {}
    }
    Ok(())
}

/// Every row of requests must belong to a window. Their keys hold its number, by which windows
/// cannot be found; so a set of numbers is gathered and then struck out by a walk over the windows.
fn check_requests(rows: &mut dyn Reader, report: &mut VerifyReport) -> Result<()> {
    let mut from = Some(0_u64);
    while from.is_some() {
        let mut unknown = BTreeSet::new();
        while let Some(id) = from
            && unknown.len() < WINDOWS_AT_ONCE
        {
            let key = id.to_be_bytes();
            let next = match rows.scan(
                Table::RATE_LIMIT_REQUEST,
                Bound::Included(&key),
                Bound::Unbounded,
                1,
            ) {
                Ok(found) => found.into_iter().next(),
                Err(error) => {
                    find_damage(report, error)?;
                    None
                }
            };
            let Some((key, _)) = next else {
                from = None;
                break;
            };
            // A key that is none was found by the walk over its table.
            let Ok(place) = history::place_of(&key) else {
                from = None;
                break;
            };
            unknown.insert(place.id);
            from = place.id.checked_add(1);
        }
        if unknown.is_empty() {
            return Ok(());
        }
        for table in [Table::RATE_LIMIT, Table::ADAPTIVE_RATE_LIMIT] {
            walk(rows, report, table, |_, _, (_, value)| {
                // A row that does not decode was found before.
                if let Ok(Some(id)) = constraints::window_id(table, value) {
                    unknown.remove(&id);
                }
                Ok(())
            })?;
        }
        for id in unknown {
            let problem = "the row is left of a window that is not there".to_owned();
            report.find(location(Table::RATE_LIMIT_REQUEST, &id.to_be_bytes()), problem, REBUILD);
        }
    }
    Ok(())
}
