//! The bytes of rows, frames and keys.
//!
//! This is the only module that uses bincode's configuration. Everything is little-endian with
//! variable-length integers (`bincode::config::standard()`), and decoding never allocates more than
//! the input can justify. Golden tests freeze the bytes.

pub(crate) mod key;

use crate::error::{Error, Result};
use crate::observe;
use bincode::config::{self, Configuration};

/// The most bytes that one decoded value may claim, so that a damaged length cannot request all
/// memory.
const DECODE_LIMIT: usize = 1 << 30;

fn configuration()
-> Configuration<config::LittleEndian, config::Varint, config::Limit<DECODE_LIMIT>> {
    config::standard().with_limit::<DECODE_LIMIT>()
}

/// Encodes a row or a frame payload.
pub(crate) fn encode<T: bincode::Encode>(value: &T) -> Result<Vec<u8>> {
    bincode::encode_to_vec(value, configuration()).map_err(|error| Error::Encode(error.to_string()))
}

/// Appends the bytes of [`encode`] to `buf`, in one pass. After an error `buf` is as it was.
pub(crate) fn encode_into<T: bincode::Encode>(value: &T, buf: &mut Vec<u8>) -> Result<()> {
    let start = buf.len();
    if let Err(error) = bincode::encode_into_std_write(value, buf, configuration()) {
        buf.truncate(start);
        return Err(Error::Encode(error.to_string()));
    }
    Ok(())
}

/// Decodes the bytes of [`encode`]. Surplus bytes are an error.
pub(crate) fn decode<'a, T: bincode::BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, String> {
    let (value, used) = bincode::borrow_decode_from_slice(bytes, configuration())
        .map_err(|error| error.to_string())?;
    if used != bytes.len() {
        return Err(format!("{} surplus bytes after a value of {used} bytes", bytes.len() - used));
    }
    Ok(value)
}

/// Decodes a row of `table`, which the error names.
pub(crate) fn decode_row<'a, T: bincode::BorrowDecode<'a, ()>>(
    table: &'static str,
    bytes: &'a [u8],
) -> Result<T> {
    decode(bytes).map_err(|detail| {
        let location = format!("a row of table {table}");
        observe::corruption(&location, &detail);
        Error::corrupted(location, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(bincode::Encode, bincode::Decode, Debug, PartialEq)]
    struct SampleRow {
        name: String,
        at: u64,
        note: Option<Vec<u8>>,
    }

    #[test]
    fn a_row_round_trips_in_frozen_bytes() {
        let row = SampleRow { name: "pay".into(), at: 300, note: Some(vec![7]) };
        let bytes = encode(&row).unwrap();
        assert_eq!(bytes, [3, b'p', b'a', b'y', 251, 44, 1, 1, 1, 7]);
        assert_eq!(decode::<SampleRow>(&bytes), Ok(row));
    }

    #[test]
    fn short_long_and_absurd_rows_are_errors() {
        let bytes = encode(&SampleRow { name: "pay".into(), at: 300, note: None }).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode::<SampleRow>(&bytes[..cut]).is_err());
        }
        let mut long = bytes.clone();
        long.push(0);
        assert!(decode::<SampleRow>(&long).is_err());
        // A length of 2^64 - 1 must not be allocated.
        assert!(decode::<SampleRow>(&[253, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }
}
