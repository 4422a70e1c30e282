//! What a sweeper does when another wall clock is trusted: it indexes what ends by the wall clock
//! under its end as that clock has it.
//!
//! A token that was stored in 1970 and ends this year would otherwise stay for half a century. The
//! walk goes through the tables step by step, in slices like every other work of the sweeper. The
//! index row that leads to it goes when it is over, so a crash only has it begin anew.

use crate::engine::access::Writer;
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::{Deadline, LINE_KEY, TIME_LINE, put_indexed_wall};
use crate::error::{Error, Result};
use crate::stores::sweep::{SweepTurn, Verdict};
use crate::stores::{expiry, form_token, rate_limit};
use crate::tables::Table;
use std::ops::Bound;

/// Indexes the row at a key.
type FollowWall = fn(&mut dyn Writer, &[u8]) -> Result<()>;

/// The tables whose rows end by the wall clock, and what indexes one of them.
const TABLES: [(Table, FollowWall); 2] = [
    (Table::FORM_TOKEN, form_token::sweep::follow_wall),
    (Table::RATE_LIMIT_COOLDOWN, rate_limit::sweep::follow_wall),
];

/// How many rows one row may change: itself, and where the index has it.
const CHANGES_EACH: usize = 4;

/// How far a walk has come.
struct WallWalk {
    /// The number of the wall clock by which it began.
    number: u32,
    /// Which of the tables.
    table: usize,
    after: Option<Vec<u8>>,
}

impl WallWalk {
    fn decode(walked: Option<&[u8]>, number: u32) -> Self {
        let begun = walked.and_then(|walked| {
            let (number, rest) = walked.split_first_chunk::<4>()?;
            let (&table, after) = rest.split_first()?;
            Some((u32::from_be_bytes(*number), usize::from(table), after))
        });
        match begun {
            Some((number, table, after)) => {
                Self { number, table, after: Some(after.to_vec()).filter(|key| !key.is_empty()) }
            }
            None => Self { number, table: 0, after: None },
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut walked = self.number.to_be_bytes().to_vec();
        walked.push(u8::try_from(self.table).unwrap_or(u8::MAX));
        walked.extend_from_slice(self.after.as_deref().unwrap_or_default());
        walked
    }
}

/// Has the sweeper walk.
pub(crate) fn begin_walk(tx: &mut dyn Writer) {
    expiry::put(tx, Deadline { epoch: 0, at_ms: 0 }, TIME_LINE, LINE_KEY);
}

/// One step of the walk.
pub(super) fn follow_wall(tx: &mut dyn Writer, turn: SweepTurn<'_>) -> Result<Verdict> {
    let mut walk = WallWalk::decode(turn.walked, tx.moment().wall_number());
    let Some((table, follow)) = TABLES.get(walk.table) else {
        put_indexed_wall(tx, walk.number)?;
        return Ok(Verdict::Walked { removed: 0, after: None });
    };
    let most = (turn.budget.changes / CHANGES_EACH).max(1);
    let from = match &walk.after {
        Some(after) => Bound::Excluded(after.as_slice()),
        None => Bound::Unbounded,
    };
    let mut rows = RowCursor::range(*table, from, Bound::Unbounded);
    let (mut seen, mut seen_bytes, mut last) = (0, 0, None);
    while seen < most && seen_bytes < turn.budget.frame_bytes / CHANGES_EACH {
        let Some((key, value)) = rows.next(tx)? else {
            last = None;
            walk.table += 1;
            break;
        };
        match follow(tx, &key) {
            // What is behind the damage is indexed all the same.
            Ok(()) | Err(Error::Corrupted { .. }) => {}
            Err(error) => return Err(error),
        }
        seen += 1;
        seen_bytes += key.len() + value.len();
        last = Some(key);
    }
    walk.after = last;
    Ok(Verdict::Walked { removed: 0, after: Some(walk.encode()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_on_where_it_was() {
        for (table, after) in [(0, None), (1, Some(vec![7, 0])), (2, None)] {
            let walked = WallWalk { number: 9, table, after: after.clone() }.encode();
            let walk = WallWalk::decode(Some(&walked), 10);
            assert_eq!((walk.number, walk.table, walk.after), (9, table, after));
        }
        let walk = WallWalk::decode(None, 10);
        assert_eq!((walk.number, walk.table, walk.after), (10, 0, None));
    }
}
