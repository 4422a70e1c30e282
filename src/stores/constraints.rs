//! What must be beside a row: the derived rows that belong to it, the row that it is derived from,
//! and the row that it is a satellite of.
//!
//! Each rule is written once, over a [`Reader`], and finds with a few lookups what is wrong with
//! one row. So a whole file is checked in one walk over each table, in any order and without a
//! memory of what was seen.

use super::adaptive_rate_limit::ops::{ADMITTED, BACKGROUND, ResourceRow, USER};
use super::cache::row::{CacheRow, TagsRow, entry_key, split_tag_key};
use super::codlet::row::Record;
use super::derived;
use super::expiry;
use super::rate_limit::history::{History, Place};
use super::rate_limit::ops::{LANE, WindowRow};
use super::state::row::{self as state_row, StateRow};
use crate::engine::access::Reader;
use crate::error::Result;
use crate::tables::Table;

/// A row that is missing, or there and should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Where.
    pub(crate) table: Table,
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// What is wrong, in words that follow "the row".
    pub(crate) problem: String,
}

/// Shows `report` what is wrong beside the row at `key` of `table`, which decodes.
pub(crate) fn check(
    rows: &mut dyn Reader,
    table: Table,
    key: &[u8],
    value: &[u8],
    report: &mut dyn FnMut(Broken),
) -> Result<()> {
    if derived::is_derived(table) {
        if let Some(problem) = misplaced(rows, table, key, value)? {
            report(Broken { table, key: key.to_vec(), problem });
        }
        return Ok(());
    }
    derived_rows(rows, table, key, value, report)?;
    if let Some(problem) = orphaned(rows, table, key)? {
        report(Broken { table, key: key.to_vec(), problem });
    }
    if table == Table::CACHE
        && CacheRow::decode(value)?.tagged
        && rows.get(Table::CACHE_TAGS, key)?.is_none()
    {
        let problem = "is missing, but the cached value says that it has tags".to_owned();
        report(Broken { table: Table::CACHE_TAGS, key: key.to_vec(), problem });
    }
    for key in lost_requests(rows, table, value)? {
        let problem = "is missing or wrong, and a window counts from it".to_owned();
        report(Broken { table: Table::RATE_LIMIT_REQUEST, key, problem });
    }
    Ok(())
}

/// The derived rows of a primary row that are not there.
fn derived_rows(
    rows: &mut dyn Reader,
    table: Table,
    key: &[u8],
    value: &[u8],
    report: &mut dyn FnMut(Broken),
) -> Result<()> {
    let used = match table {
        Table::FORM_TOKEN => rows.get(Table::FORM_TOKEN_USE, key)?,
        _ => None,
    };
    let times_ms = derived::may_be_indexed_at_ms(table, value, used.as_deref())?;
    let mut filed = 0;
    for (index, time_ms) in times_ms.iter().enumerate() {
        let index_key = expiry::encode_key(*time_ms, table, key);
        if rows.get(Table::EXPIRY, &index_key)?.is_some() {
            filed += 1;
            if filed > 1 {
                let problem = format!("is the second for a row of table {}", table.name());
                report(Broken { table: Table::EXPIRY, key: index_key, problem });
            }
        } else if filed == 0 && index + 1 == times_ms.len() {
            let canonical_ms = times_ms.first().copied().unwrap_or(*time_ms);
            let index_key = expiry::encode_key(canonical_ms, table, key);
            let problem =
                format!("is missing: a row of table {} would never be swept", table.name());
            report(Broken { table: Table::EXPIRY, key: index_key, problem });
        }
    }
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
            Some(found) if misplaced(rows, derived, &derived_key, &found)?.is_some() => continue,
            Some(_) => format!("belongs to two rows of table {}", table.name()),
        };
        report(Broken { table: derived, key: derived_key, problem });
    }
    Ok(())
}

/// Why a row of a derived table should not be there.
fn misplaced(
    rows: &mut dyn Reader,
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<Option<String>> {
    Ok(match table {
        Table::EXPIRY => {
            let Some((time_ms, primary, primary_key)) = expiry::decode_key(key) else {
                return Ok(None);
            };
            let Some(row) = rows.get(primary, primary_key)? else {
                return Ok(Some(format!(
                    "is left of a row of table {} that is not there",
                    primary.name()
                )));
            };
            // A clear files the limiter at its time, until a sweeper has seen to what was
            // forgotten.
            if primary == Table::RATE_LIMIT_STORE {
                return Ok(None);
            }
            let used = match primary {
                Table::FORM_TOKEN => rows.get(Table::FORM_TOKEN_USE, primary_key)?,
                _ => None,
            };
            let times_ms = derived::may_be_indexed_at_ms(primary, &row, used.as_deref())?;
            let other = format!("is at another time than the row of table {} ends", primary.name());
            (!times_ms.contains(&time_ms)).then_some(other)
        }
        Table::CACHE_BY_TAG => {
            let (prefix, tag, hash) = split_tag_key(key)?;
            let tags = rows.get(Table::CACHE_TAGS, &entry_key(prefix, hash))?;
            let tags = tags.map(|tags| TagsRow::decode(&tags)).transpose()?;
            let has_it = tags.is_some_and(|tags| tags.tags.contains(&tag));
            (!has_it).then(|| "names a tag that its cached value does not have".to_owned())
        }
        Table::STATE_EVENT => {
            let state = rows.get(Table::STATE, value)?;
            let event_id = state
                .as_deref()
                .map(StateRow::decode)
                .transpose()?
                .map(|state| state.event_id.as_bytes());
            (event_id != Some(key))
                .then(|| "names a state that is not there or has another event".to_owned())
        }
        Table::STATE_KIND | Table::STATE_TENANT_KIND => {
            let slot = match table {
                Table::STATE_KIND => state_row::decode_kind_key(key)?,
                _ => state_row::decode_tenant_kind_key(key)?,
            };
            let state = rows.get(Table::STATE, &state_row::slot_key(&slot.identity, &slot.kind))?;
            state.is_none().then(|| "names a state that is not there".to_owned())
        }
        Table::CODLET_CODE_KEY | Table::CODLET_SESSION_KEY => {
            let by_id = if table == Table::CODLET_CODE_KEY {
                Table::CODLET_CODE
            } else {
                Table::CODLET_SESSION
            };
            let record =
                rows.get(by_id, value)?.map(|bytes| Record::decode(by_id, &bytes)).transpose()?;
            let is_its = record.is_some_and(|record| record.lookup_key == key);
            (!is_its)
                .then(|| "leads to a record that is not there or has another lookup key".to_owned())
        }
        _ => None,
    })
}

/// Why a satellite should not be there. Rows of requests are found by the walk over windows.
pub(crate) fn orphaned(rows: &mut dyn Reader, table: Table, key: &[u8]) -> Result<Option<String>> {
    let of = match table {
        Table::FORM_TOKEN_USE => Table::FORM_TOKEN,
        Table::HANDOFF_CLAIM => Table::HANDOFF,
        Table::CACHE_TAGS => Table::CACHE,
        _ => return Ok(None),
    };
    let Some(primary) = rows.get(of, key)? else {
        return Ok(Some(format!("is left of a row of table {} that is not there", of.name())));
    };
    let untagged = of == Table::CACHE && !CacheRow::decode(&primary)?.tagged;
    Ok(untagged.then(|| "is beside a cached value that says it has no tags".to_owned()))
}

/// The keys of request rows that a window needs and that are not there.
pub(crate) fn lost_requests(
    rows: &mut dyn Reader,
    table: Table,
    value: &[u8],
) -> Result<Vec<Vec<u8>>> {
    let mut lost = Vec::new();
    for (place, history) in histories(table, value)? {
        lost.extend(history.lost(rows, place)?);
    }
    Ok(lost)
}

/// The histories in a row of a window, if it is one.
fn histories(table: Table, value: &[u8]) -> Result<Vec<(Place, History)>> {
    Ok(match table {
        Table::RATE_LIMIT => {
            let row = WindowRow::decode(value)?;
            vec![(Place { id: row.id, lane: LANE }, row.history)]
        }
        Table::ADAPTIVE_RATE_LIMIT => {
            let ResourceRow { id, user, background, admitted, .. } = ResourceRow::decode(value)?;
            [(USER, user), (BACKGROUND, background), (ADMITTED, admitted)]
                .map(|(lane, history)| (Place { id, lane }, history))
                .to_vec()
        }
        _ => Vec::new(),
    })
}

/// The number of a window in the keys of its requests; `None` for a row of another table.
pub(crate) fn window_id(table: Table, value: &[u8]) -> Result<Option<u64>> {
    Ok(histories(table, value)?.first().map(|(place, _)| place.id))
}
