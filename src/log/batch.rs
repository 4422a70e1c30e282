//! Batches: the row operations of one frame.
//!
//! A batch is a list in bincode (see [`crate::codec`]): the number of operations, then for each
//! operation its table number (one byte), its key (length and bytes) and its value (`0` for a
//! delete; `1`, length and bytes for a put). Counts and lengths are variable-length integers, which
//! take one byte below 251.

use crate::codec;
use crate::error::Result;
use crate::tables::{Catalogue, Table};
use bincode::de::{BorrowDecode, BorrowDecoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use std::cell::Cell;

/// One row operation of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op<'a> {
    /// The table of the row.
    pub table: Table,
    /// The key of the row.
    pub key: &'a [u8],
    /// The new value of the row. `None` deletes the row.
    pub value: Option<&'a [u8]>,
}

/// Encodes the operations of one frame.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn encode_batch<'a>(
    ops: impl ExactSizeIterator<Item = (Table, &'a [u8], Option<&'a [u8]>)>,
) -> Result<Vec<u8>> {
    let mut buf = Vec::new();
    encode_batch_into(&mut buf, ops)?;
    Ok(buf)
}

/// Appends the encoded operations of one frame to `buf`. After an error `buf` is as it was.
pub(crate) fn encode_batch_into<'a>(
    buf: &mut Vec<u8>,
    ops: impl ExactSizeIterator<Item = (Table, &'a [u8], Option<&'a [u8]>)>,
) -> Result<()> {
    codec::encode_into(&EncodedOps(Cell::new(Some(ops))), buf)
}

/// Decodes the payload of a frame, borrowing keys and values from it. The error says what is wrong
/// with the bytes; the caller knows where in the file they are.
pub(crate) fn decode_batch(tables: Catalogue, payload: &[u8]) -> Result<Vec<Op<'_>>, String> {
    let DecodedOps(ops) = codec::decode(payload)?;
    let known = ops.into_iter().map(|(number, key, value)| {
        let table = tables.numbered(number);
        let table = table.ok_or_else(|| format!("no table has the number {number}"))?;
        Ok(Op { table, key, value })
    });
    known.collect()
}

/// Operations to encode. `Encode` takes `&self` but consumes the iterator, hence the cell.
struct EncodedOps<I>(Cell<Option<I>>);

impl<'a, I> Encode for EncodedOps<I>
where
    I: ExactSizeIterator<Item = (Table, &'a [u8], Option<&'a [u8]>)>,
{
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let ops = self.0.take().ok_or(EncodeError::Other("a batch can be encoded only once"))?;
        let count =
            u64::try_from(ops.len()).map_err(|_| EncodeError::Other("too many operations"))?;
        count.encode(encoder)?;
        for (table, key, value) in ops {
            (table.number(), key, value).encode(encoder)?;
        }
        Ok(())
    }
}

/// A decoded operation: the number of its table, its key and its value.
type DecodedOp<'a> = (u8, &'a [u8], Option<&'a [u8]>);

/// Decoded operations, whose tables may not exist.
struct DecodedOps<'a>(Vec<DecodedOp<'a>>);

impl<'de> BorrowDecode<'de, ()> for DecodedOps<'de> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = ()>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        /// The list grows with the operations that are present. A damaged count must not reserve
        /// memory.
        const RESERVE_MAX: u64 = 64;
        let count = u64::borrow_decode(decoder)?;
        let mut ops =
            Vec::with_capacity(usize::try_from(count.min(RESERVE_MAX)).unwrap_or_default());
        for _ in 0..count {
            ops.push(DecodedOp::borrow_decode(decoder)?);
        }
        Ok(DecodedOps(ops))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::frame::frame_len;
    use crate::stores::registry::catalogue;

    fn encoded(ops: &[Op<'_>]) -> Vec<u8> {
        encode_batch(ops.iter().map(|op| (op.table, op.key, op.value))).unwrap()
    }

    const BATCH: [Op<'static>; 3] = [
        Op { table: Table::FORM_TOKEN_USE, key: b"ab", value: Some(&[9, 8, 7]) },
        Op { table: Table::EXPIRY, key: b"", value: Some(b"") },
        Op { table: Table::HANDOFF, key: b"k", value: None },
    ];

    #[test]
    fn a_batch_round_trips_in_frozen_bytes() {
        let bytes = encoded(&BATCH);
        #[rustfmt::skip]
        let expected = [
            3,
            2, 2, b'a', b'b', 1, 3, 9, 8, 7,
            5, 0, 1, 0,
            3, 1, b'k', 0,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode_batch(catalogue(), &bytes), Ok(BATCH.to_vec()));
    }

    #[test]
    fn encoding_appends_to_the_buffer() {
        let mut buf = vec![42];
        encode_batch_into(&mut buf, BATCH.iter().map(|op| (op.table, op.key, op.value))).unwrap();
        assert_eq!(buf[0], 42);
        assert_eq!(buf[1..], encoded(&BATCH));
    }

    #[test]
    fn big_keys_and_values_round_trip() {
        let key = vec![7; crate::limits::MAX_KEY_LEN];
        let value = vec![8; 300_000];
        let batch = [Op { table: Table::HANDOFF, key: &key, value: Some(&value) }];
        assert_eq!(decode_batch(catalogue(), &encoded(&batch)), Ok(batch.to_vec()));
    }

    #[test]
    fn no_changed_byte_decodes_to_the_same_batch_or_panics() {
        let bytes = encoded(&BATCH);
        for index in 0..bytes.len() {
            for mask in 1..=255 {
                let mut damaged = bytes.clone();
                damaged[index] ^= mask;
                assert_ne!(
                    decode_batch(catalogue(), &damaged),
                    Ok(BATCH.to_vec()),
                    "byte {index}, mask {mask:#x}"
                );
            }
        }
    }

    #[test]
    fn every_truncated_batch_and_every_extra_byte_is_an_error() {
        let bytes = encoded(&BATCH);
        for cut in 0..bytes.len() {
            assert!(decode_batch(catalogue(), &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = bytes;
        long.push(0);
        assert!(decode_batch(catalogue(), &long).is_err());
    }

    #[test]
    fn an_unknown_table_is_an_error_that_names_it() {
        let error = decode_batch(catalogue(), &[1, 200, 0, 0]).unwrap_err();
        assert!(error.contains("200"), "{error}");
    }

    #[test]
    fn an_absurd_count_reserves_no_memory() {
        assert!(decode_batch(catalogue(), &[253, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }

    #[test]
    fn the_frame_of_a_consume_is_small() {
        let bytes =
            encoded(&[Op { table: Table::FORM_TOKEN_USE, key: &[7; 33], value: Some(&[1; 12]) }]);
        assert!(frame_len(bytes.len()) <= 96, "{}", frame_len(bytes.len()));
    }
}
