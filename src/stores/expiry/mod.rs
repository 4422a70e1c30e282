//! The expiry index: what ends when, over all stores.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..4 | the epoch of the time line in which the entry's end was written, big-endian |
//! | 4..12 | the end in milliseconds of the time line, big-endian, so that the keys of an epoch sort by time |
//! | 12 | the number of the table that the row is in |
//! | 13.. | the key of the row in that table |
//!
//! The value is empty. A row is a hint: a sweeper reads the primary row, which alone decides. (A
//! consumed form token, for example, outlives its index row by its grace, and is then indexed under
//! the end of that.)

pub(crate) mod decode;
pub(crate) mod schema;

use crate::engine::access::{Reader, Writer};
use crate::engine::cursor::RowCursor;
use crate::engine::time_line::Deadline;
use crate::error::Result;
use crate::fault::DeliberateFault;
use crate::tables::Table;
use std::ops::Bound;

/// How much longer the key of an index row is than that of the row it is for.
pub(crate) const KEY_OVERHEAD: usize = 13;

/// The key of the index row for the row at `primary` of `table`.
pub(crate) fn encode_key(at: Deadline, table: Table, primary: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(KEY_OVERHEAD + primary.len());
    encoded.extend_from_slice(&first_key(at));
    encoded.push(table.number());
    encoded.extend_from_slice(primary);
    encoded
}

/// The first key that an index row for `at` can have.
pub(crate) fn first_key(at: Deadline) -> [u8; 12] {
    let mut key = [0; 12];
    let (epoch, time) = key.split_at_mut(4);
    epoch.copy_from_slice(&at.epoch.to_be_bytes());
    time.copy_from_slice(&at.at_ms.to_be_bytes());
    key
}

/// Indexes the row at `primary` of `table` under `at`.
pub(crate) fn put(tx: &mut dyn Writer, at: Deadline, table: Table, primary: &[u8]) {
    if DeliberateFault::DropDerivedRow.is_on() {
        return;
    }
    tx.put(Table::EXPIRY, &encode_key(at, table, primary), Vec::new());
}

/// Removes the index row under `at` of the row at `primary` of `table`.
pub(crate) fn delete(tx: &mut dyn Writer, at: Deadline, table: Table, primary: &[u8]) {
    tx.delete(Table::EXPIRY, &encode_key(at, table, primary));
}

/// Indexes the row at `primary` of `table` under `to` instead of `from`. Stages nothing when
/// they are equal.
pub(crate) fn move_to(
    tx: &mut dyn Writer,
    from: Option<Deadline>,
    to: Deadline,
    table: Table,
    primary: &[u8],
) {
    if from == Some(to) {
        return;
    }
    if let Some(from) = from {
        delete(tx, from, table, primary);
    }
    put(tx, to, table, primary);
}

/// The newest epoch under which anything is indexed: every epoch takes one look.
pub(crate) fn newest_epoch(rows: &mut dyn Reader) -> Result<Option<u32>> {
    let (mut newest, mut next) = (None, Some(0));
    while let Some(epoch) = next {
        let from = first_key(Deadline { epoch, at_ms: 0 });
        let from = Bound::Included(from.as_slice());
        let mut first = RowCursor::range(Table::EXPIRY, from, Bound::Unbounded).up_to(1);
        let Some((key, _)) = first.next(rows)? else { break };
        let Some(epoch) = key.first_chunk().map(|epoch| u32::from_be_bytes(*epoch)) else { break };
        (newest, next) = (Some(epoch), epoch.checked_add(1));
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::decode::decode_key;
    use super::*;
    use crate::stores::map_tx::MapTx;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_frozen() {
        let encoded = encode_key(Deadline { epoch: 7, at_ms: 0x0102_0304 }, Table::HANDOFF, b"k\0");
        assert_eq!(encoded, b"\0\0\0\x07\0\0\0\0\x01\x02\x03\x04\x03k\0");
        assert_eq!(
            decode_key(&encoded),
            Some((Deadline { epoch: 7, at_ms: 0x0102_0304 }, Table::HANDOFF, &b"k\0"[..]))
        );
    }

    #[test]
    fn short_keys_and_unknown_tables_are_refused() {
        let encoded = encode_key(Deadline::at(7), Table::FORM_TOKEN, b"");
        for cut in 0..encoded.len() {
            assert_eq!(decode_key(&encoded[..cut]), None);
        }
        let mut foreign = encoded;
        foreign[12] = 250;
        assert_eq!(decode_key(&foreign), None);
    }

    #[test]
    fn a_move_leaves_one_row_and_no_move_stages_nothing() {
        let mut tx = MapTx::at(0);
        put(&mut tx, Deadline::at(5), Table::HANDOFF, b"k");
        move_to(&mut tx, Some(Deadline::at(5)), Deadline::at(9), Table::HANDOFF, b"k");
        assert_eq!(tx.keys(Table::EXPIRY), [encode_key(Deadline::at(9), Table::HANDOFF, b"k")]);
        let writes = tx.writes;
        move_to(&mut tx, Some(Deadline::at(9)), Deadline::at(9), Table::HANDOFF, b"k");
        assert_eq!(tx.writes, writes);
    }

    #[test]
    fn the_newest_epoch_is_that_of_the_last_row() {
        let mut tx = MapTx::at(0);
        assert_eq!(newest_epoch(&mut tx).unwrap(), None);
        for (epoch, at_ms) in [(0, 9), (0, u64::MAX), (3, 1), (700, 0)] {
            put(&mut tx, Deadline { epoch, at_ms }, Table::HANDOFF, b"k");
            assert_eq!(newest_epoch(&mut tx).unwrap(), Some(epoch));
        }
    }

    proptest! {
        #[test]
        fn keys_sort_by_epoch_and_time_first(a in any::<(u32, u64)>(), b in any::<(u32, u64)>(), tail in prop::collection::vec(any::<u8>(), 0..4)) {
            let [a, b] = [a, b].map(|(epoch, at_ms)| Deadline { epoch, at_ms });
            let (key_a, key_b) = (encode_key(a, Table::HANDOFF, &tail), encode_key(b, Table::HANDOFF, &tail));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
        }
    }
}
