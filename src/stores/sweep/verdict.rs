//! What a store is told of an entry that is due, and what it answers.

use crate::engine::access::Writer;
use crate::engine::time_line::Deadline;
use crate::stores::expiry;
use crate::tables::Table;

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

    /// The same so many times, in a log whose frames hold no more than so many bytes.
    pub(super) fn of_frame(max_frame_bytes: usize, times: usize) -> Self {
        let Self { changes, frame_bytes } = Self::SLICE;
        Self {
            changes: changes * times,
            frame_bytes: (frame_bytes * times).min(max_frame_bytes / 4),
        }
    }
}

/// What a row of the expiry index says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due<'a> {
    pub(crate) at: Deadline,
    /// Where the primary row is, if there still is one.
    pub(crate) table: Table,
    pub(crate) key: &'a [u8],
}

impl Due<'_> {
    /// Takes the entry from where the index has it, unless that is this very row, which goes
    /// anyway.
    pub(crate) fn unindex(&self, tx: &mut dyn Writer, at: Deadline) {
        if at != self.at {
            expiry::delete(tx, at, self.table, self.key);
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
    Keep { until: Deadline },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::map_tx::MapTx;

    #[test]
    fn an_entry_is_taken_from_every_place_of_the_index_but_the_one_that_is_due() {
        let [at, other] = [5, 9].map(|at_ms| Deadline { epoch: 0, at_ms });
        let mut tx = MapTx::at(0);
        for at in [at, other] {
            expiry::put(&mut tx, at, Table::CACHE, b"key");
        }
        let due = Due { at, table: Table::CACHE, key: b"key" };
        due.unindex(&mut tx, at);
        assert_eq!(tx.keys(Table::EXPIRY).len(), 2);
        due.unindex(&mut tx, other);
        let left = tx.keys(Table::EXPIRY);
        assert!(left.len() == 1 && left[0].starts_with(&expiry::first_key(at)));
    }
}
