//! What becomes of the rows that an index row leads to: decided over a reader or a transaction,
//! without a clock, a lock or a file of its own.

use super::SweepReport;
use super::progress::SweepPosition;
use super::verdict::{Budget, Due, SweepTurn, Verdict};
#[cfg(test)]
use crate::engine::access::Reader;
use crate::engine::access::{Rewrites, Writer};
use crate::error::{Error, Result};
use crate::stores::expiry;
use crate::stores::registry;
use crate::stores::schema::{Ends, TableSchema};
use crate::tables::Table;
use std::ops::Bound;

/// What happened to one index row.
enum RowStep {
    Done,
    /// It leads to more, which is the next thing to do.
    More {
        walked: Option<Vec<u8>>,
    },
}

/// Does what the index rows at `keys` suggest, the first of which is at `place`. Answers where to
/// go on, which is before the last of them when an entry goes in parts.
pub(super) fn sweep_rows(
    tx: &mut dyn Writer,
    keys: &[Vec<u8>],
    mut place: SweepPosition,
    budget: Budget,
) -> Result<(SweepPosition, SweepReport)> {
    // No caller puts anything in a sweep.
    let tx = &mut Rewrites(tx);
    let mut report = SweepReport::default();
    for key in keys {
        match sweep_row(tx, key, place.walked.take(), budget, &mut report) {
            Ok(RowStep::Done) => {}
            Ok(RowStep::More { walked }) => {
                return Ok((SweepPosition { from: Bound::Included(key.clone()), walked }, report));
            }
            // What is behind the damage is swept all the same.
            Err(Error::Corrupted { .. }) => report.stepped_over += 1,
            Err(error) => return Err(error),
        }
        place = SweepPosition::behind(key.clone());
    }
    Ok((place, report))
}

fn sweep_row(
    tx: &mut dyn Writer,
    index_key: &[u8],
    walked: Option<Vec<u8>>,
    budget: Budget,
    report: &mut SweepReport,
) -> Result<RowStep> {
    if tx.get(Table::EXPIRY, index_key)?.is_none() {
        // It was refreshed or removed since the index was read.
        return Ok(RowStep::Done);
    }
    let Some((at, table, key)) = expiry::decode::decode_key(index_key) else {
        report.stepped_over += 1;
        return Ok(RowStep::Done);
    };
    let due = Due { at, table, key };
    let schema = registry::of(table)?;
    let sweep = match schema.ends {
        Ends::At { sweep, .. } | Ends::AtOrLater { sweep, .. } | Ends::Hinted { sweep, .. } => {
            sweep
        }
        Ends::Never => {
            report.stepped_over += 1;
            return Ok(RowStep::Done);
        }
    };
    let turn = SweepTurn { budget, walked: walked.as_deref() };
    let removed = match sweep(tx, &due, turn)? {
        Verdict::Partly => return Ok(RowStep::More { walked: None }),
        // It would be met again at once. There is no later time than the last one.
        Verdict::Keep { until } if until <= at => return Ok(RowStep::Done),
        Verdict::Keep { until } => {
            expiry::put(tx, until, table, key);
            report.rescheduled += 1;
            0
        }
        Verdict::Removed | Verdict::Emptied => 1,
        Verdict::Stale => 0,
        Verdict::Walked { removed, after: None } => removed,
        Verdict::Walked { removed, after } => {
            count(report, schema, key, removed);
            return Ok(RowStep::More { walked: after });
        }
    };
    count(report, schema, key, removed);
    tx.delete(Table::EXPIRY, index_key);
    Ok(RowStep::Done)
}

/// Counts entries that were removed through an index row of the row at `key`.
fn count(report: &mut SweepReport, schema: &TableSchema, key: &[u8], entries: u64) {
    if let Some(owner) = (schema.owner)(key) {
        report.count(owner.store, entries);
    }
}

/// Sweeps everything that is due in `tx`, one index row after the other.
#[cfg(test)]
pub(crate) fn sweep_all(tx: &mut crate::stores::map_tx::MapTx) -> SweepReport {
    sweep_all_within(tx, Budget::SLICE, |_| {})
}

/// The same with a budget, and a look after each step.
#[cfg(test)]
pub(crate) fn sweep_all_within(
    tx: &mut crate::stores::map_tx::MapTx,
    budget: Budget,
    mut look: impl FnMut(&mut crate::stores::map_tx::MapTx),
) -> SweepReport {
    let (mut place, mut report) = (SweepPosition::beginning(), SweepReport::default());
    let now = tx.moment();
    while let Some(key) = super::due::due_keys(tx, &now, &mut place, 1).unwrap().keys.pop() {
        let (next, swept) = sweep_rows(tx, &[key], place, budget).unwrap();
        place = next;
        report.add(&swept);
        look(tx);
    }
    report
}
