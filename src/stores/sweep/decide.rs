//! What becomes of the rows that an index row leads to: decided over a reader or a transaction,
//! without a clock, a lock or a file of its own.

use super::SweepReport;
use crate::engine::access::Writer;
use crate::error::{Error, Result};
use crate::stores::expiry;
use crate::stores::schema::{self, Ends};
use crate::tables::Table;
use std::ops::Bound;

/// What one slice may do under the serial lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Rows staged, absences too.
    pub(crate) changes: usize,
    /// What those take in a frame.
    pub(crate) frame_bytes: usize,
}

impl Budget {
    /// About a millisecond of work.
    pub(crate) const SLICE: Self = Self { changes: 256, frame_bytes: 64 << 10 };

    /// The same in a log whose frames hold no more than so many bytes.
    pub(super) fn of_frame(max_frame_bytes: usize) -> Self {
        Self { frame_bytes: Self::SLICE.frame_bytes.min(max_frame_bytes / 4), ..Self::SLICE }
    }
}

/// What a row of the expiry index says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due<'a> {
    pub(crate) at_ms: u64,
    /// Where the primary row is, if there still is one.
    pub(crate) table: Table,
    pub(crate) key: &'a [u8],
}

impl Due<'_> {
    /// Takes the entry from where the index has it, unless that is this very row, which goes
    /// anyway.
    pub(crate) fn unindex(&self, tx: &mut dyn Writer, at_ms: u64) {
        if at_ms != self.at_ms {
            expiry::delete(tx, at_ms, self.table, self.key);
        }
    }
}

/// What a store did with an entry that is due. What happens to the index row follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no entry, or the index has it at another time. The index row is removed.
    Stale,
    /// The entry was removed, with all its rows. The index row is removed too.
    Removed,
    /// What must stay of the entry stays for good, and everything else was removed. The index row
    /// is removed too.
    Emptied,
    /// The entry is still live, and is indexed under this time instead.
    Keep {
        /// In milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// Some of its rows were removed. The index row stays, and leads to the rest.
    Partly,
    /// It led to other entries, of which some were removed.
    Walked {
        /// How many.
        removed: u64,
        /// Behind which key the walk goes on. When it is over, the index row goes.
        after: Option<Vec<u8>>,
    },
}

impl Verdict {
    /// `Removed` or, when there is nothing to remove, `Stale`.
    pub(crate) fn removed_if(removed: bool) -> Self {
        if removed { Verdict::Removed } else { Verdict::Stale }
    }
}

/// What a store is given to sweep one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SweepTurn<'a> {
    pub(crate) budget: Budget,
    /// How far the last turn [walked](Verdict::Walked), if it was of the same entry.
    pub(crate) walked: Option<&'a [u8]>,
}

/// Where a sweep goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SweepPosition {
    pub(super) from: Bound<Vec<u8>>,
    /// How far the first entry has been walked through, if it is a limiter that was cleared.
    walked: Option<Vec<u8>>,
}

impl SweepPosition {
    /// The first index row of a time.
    pub(super) fn at(time_ms: u64) -> Self {
        Self { from: Bound::Included(expiry::first_key(time_ms).to_vec()), walked: None }
    }

    /// Behind an index row.
    pub(super) fn behind(key: Vec<u8>) -> Self {
        Self { from: Bound::Excluded(key), walked: None }
    }
}

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
    let Some((at_ms, table, key)) = expiry::decode_key(index_key) else {
        report.stepped_over += 1;
        return Ok(RowStep::Done);
    };
    let due = Due { at_ms, table, key };
    let schema = schema::of(table)?;
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
        Verdict::Keep { until_ms } if until_ms <= at_ms => return Ok(RowStep::Done),
        Verdict::Keep { until_ms } => {
            expiry::put(tx, until_ms, table, key);
            report.rescheduled += 1;
            0
        }
        Verdict::Removed | Verdict::Emptied => 1,
        Verdict::Stale => 0,
        Verdict::Walked { removed, after: None } => removed,
        Verdict::Walked { removed, after } => {
            report.count(schema, key, removed);
            return Ok(RowStep::More { walked: after });
        }
    };
    report.count(schema, key, removed);
    tx.delete(Table::EXPIRY, index_key);
    Ok(RowStep::Done)
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
    use crate::engine::cursor::RowCursor;
    let (mut place, mut report) = (SweepPosition::at(0), SweepReport::default());
    let horizon = tx.now_ms.checked_add(1).map(expiry::first_key);
    loop {
        let to = horizon.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
        let from = place.from.as_ref().map(Vec::as_slice);
        let first = RowCursor::range(Table::EXPIRY, from, to).up_to(1).next(tx).unwrap();
        let Some((key, _)) = first else { return report };
        let (next, swept) = sweep_rows(tx, &[key], place, budget).unwrap();
        place = next;
        report.add(&swept);
        look(tx);
    }
}
