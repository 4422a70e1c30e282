//! The rows of the new file: those that fit together, and the derived ones beside them.

use super::is_damage;
use super::report::SalvageReport;
use crate::btree::pages::KeyRange;
use crate::codec;
use crate::engine::access::{Reader, Row};
use crate::engine::new_file::NewFile;
use crate::error::Result;
use crate::stores::cache::row::CacheRow;
use crate::stores::rate_limit::history;
use crate::stores::rate_limit::limiter::{Kind, LAST_ID_KEY};
use crate::stores::schema::catalogue;
use crate::stores::{constraints, derived, expiry, validation};
use crate::tables::Table;
use crate::verify::location;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// How many rows one step reads of tables with values of up to megabytes, and of the others.
const LARGE_SLICE: usize = 16;
const SMALL_SLICE: usize = 512;

/// What is written, and what is remembered while it is.
struct Rebuild<'a> {
    new: &'a mut NewFile,
    report: &'a mut SalvageReport,
    counts: BTreeMap<Table, u64>,
    /// The windows that are kept, by the number in the keys of their requests.
    windows: BTreeSet<u64>,
}

/// Copies what fits together into `new`. `unsure` are the keys of form tokens of which it is not
/// known whether they were consumed.
pub(super) fn rebuild(
    rows: &mut dyn Reader,
    unsure: &[KeyRange],
    new: &mut NewFile,
    report: &mut SalvageReport,
) -> Result<()> {
    let mut rebuild = Rebuild { new, report, counts: BTreeMap::new(), windows: BTreeSet::new() };
    for &table in catalogue().all() {
        // Those of requests follow when the windows are known.
        if derived::is_derived(table) || table == Table::RATE_LIMIT_REQUEST {
            continue;
        }
        walk(rows, table, |rows, (key, value)| {
            if table == Table::RATE_LIMIT_STORE && key == LAST_ID_KEY {
                return Ok(());
            }
            if let Some(why) = reject(rows, table, key, value)? {
                rebuild.report.drop_row(location(table, key), why);
                return Ok(());
            }
            if table == Table::FORM_TOKEN
                && unsure.iter().any(|range| contains(range, key))
                && rows.get(Table::FORM_TOKEN_USE, key)?.is_none()
            {
                let what = "it is unconsumed in the new file, but that it was consumed may be what is lost";
                rebuild.report.lose(location(table, key), what);
            }
            rebuild.windows.extend(constraints::window_id(table, value)?);
            if table == Table::RATE_LIMIT_STORE && key.first() == Some(&(Kind::Adaptive as u8)) {
                // Whether a sweeper saw to what a clear made it forget is not known, so it is asked
                // to look again.
                rebuild.write(Table::EXPIRY, &expiry::encode_key(0, table, key), &[])?;
            }
            rebuild.put(table, key, value)
        })?;
    }
    rebuild.requests(rows)?;
    rebuild.last_id(rows)?;
    let Rebuild { report, counts, .. } = rebuild;
    for &table in catalogue().all() {
        let count = counts.get(&table).copied().unwrap_or_default();
        report.tables.push((table.name(), count));
        report.rows += count;
    }
    Ok(())
}

impl Rebuild<'_> {
    /// Writes a row and the derived rows that belong to it.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
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

    /// The rows of requests whose windows are kept.
    fn requests(&mut self, rows: &mut dyn Reader) -> Result<()> {
        let table = Table::RATE_LIMIT_REQUEST;
        walk(rows, table, |_, (key, value)| {
            let place = history::place_of(key);
            if let Err(error) = validation::row(table, key, value) {
                self.report.drop_row(
                    location(table, key),
                    format!("a row that no store writes ({error})"),
                );
            } else if place.is_ok_and(|place| self.windows.contains(&place.id)) {
                return self.write(table, key, value);
            } else {
                self.report.dropped += 1;
            }
            Ok(())
        })
    }

    /// The last number that was given to a window: not below any that is in use.
    fn last_id(&mut self, rows: &mut dyn Reader) -> Result<()> {
        let table = Table::RATE_LIMIT_STORE;
        let found = rows.get(table, LAST_ID_KEY)?;
        let last = found.and_then(|row| codec::decode_row::<u64>(table.name(), &row).ok());
        let greatest = self.windows.last().copied();
        let Some(last) = last.max(greatest) else { return Ok(()) };
        self.write(table, LAST_ID_KEY, &codec::encode(&last)?)
    }
}

/// Why a row stays behind, if it does.
fn reject(rows: &mut dyn Reader, table: Table, key: &[u8], value: &[u8]) -> Result<Option<String>> {
    if let Err(error) = validation::row(table, key, value) {
        return Ok(Some(format!("a row that no store writes ({error})")));
    }
    let lost = |what: &str| Some(format!("{what} is lost, so it was left out"));
    Ok(match table {
        Table::FORM_TOKEN_USE if !is_kept(rows, Table::FORM_TOKEN, key)? => lost("its form token"),
        Table::HANDOFF_CLAIM if !is_kept(rows, Table::HANDOFF, key)? => {
            lost("the state that it claims")
        }
        Table::CACHE_TAGS if !is_kept(rows, Table::CACHE, key)? => {
            lost("the cached value that it has tags for")
        }
        Table::CACHE_TAGS => constraints::orphaned(rows, table, key)?,
        // Without its tags it would outlive their invalidation.
        Table::CACHE
            if CacheRow::decode(value)?.tagged && !is_kept(rows, Table::CACHE_TAGS, key)? =>
        {
            lost("what tags it has")
        }
        Table::RATE_LIMIT | Table::ADAPTIVE_RATE_LIMIT => {
            match constraints::lost_requests(rows, table, value) {
                Ok(requests) if requests.is_empty() => None,
                Ok(_) => lost("when its requests were made"),
                Err(error) if is_damage(&error) => lost("when its requests were made"),
                Err(error) => return Err(error),
            }
        }
        _ => None,
    })
}

/// Whether there is a row at `key` of `table` that a store could have written.
fn is_kept(rows: &mut dyn Reader, table: Table, key: &[u8]) -> Result<bool> {
    Ok(rows.get(table, key)?.is_some_and(|value| validation::row(table, key, &value).is_ok()))
}

/// Whether a key lies in a range: greater than the first bound and not greater than the second.
fn contains((after, to): &KeyRange, key: &[u8]) -> bool {
    after.as_deref().is_none_or(|after| key > after) && to.as_deref().is_none_or(|to| key <= to)
}

/// Shows `each` every row of `table`.
fn walk(
    rows: &mut dyn Reader,
    table: Table,
    mut each: impl FnMut(&mut dyn Reader, &Row) -> Result<()>,
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
        let found = rows.scan(table, from, Bound::Unbounded, slice)?;
        for row in &found {
            each(rows, row)?;
        }
        if found.len() < slice {
            return Ok(());
        }
        after = found.into_iter().next_back().map(|(key, _)| key);
    }
}
