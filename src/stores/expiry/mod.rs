//! The expiry index: what ends when, over all stores.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..8 | the time in milliseconds since the Unix epoch, big-endian, so that keys sort by time |
//! | 8 | the number of the table that the row is in |
//! | 9.. | the key of the row in that table |
//!
//! The value is empty. A row is a hint: a sweeper reads the primary row, which alone decides. (A
//! consumed form token, for example, outlives its index row by its grace, and is then indexed under
//! the end of that.)

pub(crate) mod decode;
pub(crate) mod schema;

use crate::codec::key;
use crate::engine::access::Writer;
use crate::tables::Table;

/// How much longer the key of an index row is than that of the row it is for.
pub(crate) const KEY_OVERHEAD: usize = 9;

/// The key of the index row for the row at `primary` of `table`.
pub(crate) fn encode_key(time_ms: u64, table: Table, primary: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(KEY_OVERHEAD + primary.len());
    key::push_u64(&mut encoded, time_ms);
    encoded.push(table.number());
    encoded.extend_from_slice(primary);
    encoded
}

/// The first key that an index row for `time_ms` can have.
pub(crate) fn first_key(time_ms: u64) -> [u8; 8] {
    time_ms.to_be_bytes()
}

/// Indexes the row at `primary` of `table` under `time_ms`.
pub(crate) fn put(tx: &mut dyn Writer, time_ms: u64, table: Table, primary: &[u8]) {
    tx.put(Table::EXPIRY, &encode_key(time_ms, table, primary), Vec::new());
}

/// Removes the index row under `time_ms` of the row at `primary` of `table`.
pub(crate) fn delete(tx: &mut dyn Writer, time_ms: u64, table: Table, primary: &[u8]) {
    tx.delete(Table::EXPIRY, &encode_key(time_ms, table, primary));
}

/// Indexes the row at `primary` of `table` under `to_ms` instead of `from_ms`. Stages nothing when
/// they are equal.
pub(crate) fn move_to(
    tx: &mut dyn Writer,
    from_ms: Option<u64>,
    to_ms: u64,
    table: Table,
    primary: &[u8],
) {
    if from_ms == Some(to_ms) {
        return;
    }
    if let Some(from_ms) = from_ms {
        delete(tx, from_ms, table, primary);
    }
    put(tx, to_ms, table, primary);
}

#[cfg(test)]
mod tests {
    use super::decode::decode_key;
    use super::*;
    use crate::stores::map_tx::MapTx;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_frozen() {
        let encoded = encode_key(0x0102_0304, Table::HANDOFF, b"k\0");
        assert_eq!(encoded, b"\0\0\0\0\x01\x02\x03\x04\x03k\0");
        assert_eq!(decode_key(&encoded), Some((0x0102_0304, Table::HANDOFF, &b"k\0"[..])));
    }

    #[test]
    fn short_keys_and_unknown_tables_are_refused() {
        let encoded = encode_key(7, Table::FORM_TOKEN, b"");
        for cut in 0..encoded.len() {
            assert_eq!(decode_key(&encoded[..cut]), None);
        }
        let mut foreign = encoded;
        foreign[8] = 250;
        assert_eq!(decode_key(&foreign), None);
    }

    #[test]
    fn a_move_leaves_one_row_and_no_move_stages_nothing() {
        let mut tx = MapTx::at(0);
        put(&mut tx, 5, Table::HANDOFF, b"k");
        move_to(&mut tx, Some(5), 9, Table::HANDOFF, b"k");
        assert_eq!(tx.keys(Table::EXPIRY), [encode_key(9, Table::HANDOFF, b"k")]);
        let writes = tx.writes;
        move_to(&mut tx, Some(9), 9, Table::HANDOFF, b"k");
        assert_eq!(tx.writes, writes);
    }

    proptest! {
        #[test]
        fn keys_sort_by_time_first(a in any::<u64>(), b in any::<u64>(), tail in prop::collection::vec(any::<u8>(), 0..4)) {
            let (key_a, key_b) = (encode_key(a, Table::HANDOFF, &tail), encode_key(b, Table::HANDOFF, &tail));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
        }
    }
}
