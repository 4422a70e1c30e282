//! What must be beside a row: the derived rows that belong to it, the row that it is derived from,
//! and the row that it is a satellite of.
//!
//! Each rule is written once, over a [`Reader`], and finds with a few lookups what is wrong with
//! one row. So a whole file is checked in one walk over each table, in any order and without a
//! memory of what was seen. Only rows that name others by number need one
//! ([`Role::Numbered`]).

use super::registry;
use super::schema::{Broken, Constraints, ReportBroken, Role, TableSchema};
use super::{derived, expiry};
use crate::engine::access::Reader;
use crate::error::Result;
use crate::tables::Table;

/// Shows `report` what is wrong beside the row at `key` of `table`, which decodes.
pub(crate) fn check(
    rows: &mut dyn Reader,
    table: Table,
    key: &[u8],
    value: &[u8],
    report: &mut ReportBroken<'_>,
) -> Result<()> {
    let schema = registry::of(table)?;
    indexed(rows, schema, key, value, report)?;
    derived_rows(rows, table, key, value, report)?;
    let orphaned = match schema.role {
        Role::Satellite { of, .. } if rows.get(of, key)?.is_none() => {
            Some(format!("is left of a row of table {} that is not there", of.name()))
        }
        _ => misplaced(rows, schema, key, value)?,
    };
    if let Some(problem) = orphaned {
        report(Broken { table, key: key.to_vec(), problem });
    }
    match schema.constraints {
        Constraints::Beside(beside) => beside(rows, key, value, report),
        Constraints::None | Constraints::Misplaced(_) => Ok(()),
    }
}

/// Why a row should not be there, although the row that it is a satellite of is there.
fn misplaced(
    rows: &mut dyn Reader,
    schema: &TableSchema,
    key: &[u8],
    value: &[u8],
) -> Result<Option<String>> {
    match schema.constraints {
        Constraints::Misplaced(misplaced) => misplaced(rows, key, value),
        Constraints::None | Constraints::Beside(_) => Ok(None),
    }
}

/// The row of the expiry index that is not there, or one too many.
fn indexed(
    rows: &mut dyn Reader,
    schema: &TableSchema,
    key: &[u8],
    value: &[u8],
    report: &mut ReportBroken<'_>,
) -> Result<()> {
    let table = schema.table;
    let times = schema.index_times(rows, key, value)?;
    let mut present = 0;
    for at in &times {
        let index_key = expiry::encode_key(*at, table, key);
        if rows.get(Table::EXPIRY, &index_key)?.is_some() {
            present += 1;
            if present > 1 {
                let problem = format!("is the second for a row of table {}", table.name());
                report(Broken { table: Table::EXPIRY, key: index_key, problem });
            }
        }
    }
    if let Some(canonical) = times.first().filter(|_| present == 0) {
        let index_key = expiry::encode_key(*canonical, table, key);
        let problem = format!("is missing: a row of table {} would never be swept", table.name());
        report(Broken { table: Table::EXPIRY, key: index_key, problem });
    }
    Ok(())
}

/// The derived rows of a row that are not there, those of the expiry index aside.
fn derived_rows(
    rows: &mut dyn Reader,
    table: Table,
    key: &[u8],
    value: &[u8],
    report: &mut ReportBroken<'_>,
) -> Result<()> {
    let mut expected = Vec::new();
    derived::rows(table, key, value, &mut |table, key, value| expected.push((table, key, value)))?;
    for (derived, derived_key, derived_value) in expected {
        if derived == Table::EXPIRY {
            continue;
        }
        let problem = match rows.get(derived, &derived_key)? {
            None => format!("is missing, and belongs to a row of table {}", table.name()),
            Some(found) if *found == *derived_value => continue,
            // What is derived from nothing is reported where it lies.
            Some(found)
                if misplaced(rows, registry::of(derived)?, &derived_key, &found)?.is_some() =>
            {
                continue;
            }
            Some(_) => format!("belongs to two rows of table {}", table.name()),
        };
        report(Broken { table: derived, key: derived_key, problem });
    }
    Ok(())
}
