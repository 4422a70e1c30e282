//! The bytes of rows, frames and keys.
//!
//! This is the only module that uses bincode's configuration. Everything is little-endian with
//! variable-length integers (`bincode::config::standard()`), and decoding never allocates more than
//! the input can justify. Golden tests freeze the bytes.

pub(crate) mod key;

use crate::error::{Error, Result};
use crate::observe;
use bincode::config::{self, Configuration};

/// The most bytes that one decoded value may claim, whatever its input.
const DECODE_LIMIT: usize = 1 << 30;

/// How many times its bytes a value may claim: its integers are stored in as little as one byte,
/// and an empty string of a list takes one and 24 in memory.
const CLAIM_FACTOR: usize = 32;

/// Inputs of up to so many bytes. A limit is a part of bincode's type, so there are some, and an
/// input has the smallest that fits it: a damaged or hostile length requests no more memory than
/// the largest input under that limit could justify.
const SMALL: usize = 1 << 10;
const MEDIUM: usize = 32 << 10;
const LARGE: usize = 1 << 20;

type Limited<const LIMIT: usize> =
    Configuration<config::LittleEndian, config::Varint, config::Limit<LIMIT>>;

fn configuration() -> Limited<DECODE_LIMIT> {
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
    let decoded = if bytes.len() <= SMALL {
        decode_within::<T, { CLAIM_FACTOR * SMALL }>(bytes)
    } else if bytes.len() <= MEDIUM {
        decode_within::<T, { CLAIM_FACTOR * MEDIUM }>(bytes)
    } else if bytes.len() <= LARGE {
        decode_within::<T, { CLAIM_FACTOR * LARGE }>(bytes)
    } else {
        decode_within::<T, DECODE_LIMIT>(bytes)
    };
    let (value, used) = decoded.map_err(|error| error.to_string())?;
    if used != bytes.len() {
        return Err(format!("{} surplus bytes after a value of {used} bytes", bytes.len() - used));
    }
    Ok(value)
}

fn decode_within<'a, T: bincode::BorrowDecode<'a, ()>, const LIMIT: usize>(
    bytes: &'a [u8],
) -> std::result::Result<(T, usize), bincode::error::DecodeError> {
    bincode::borrow_decode_from_slice(bytes, config::standard().with_limit::<LIMIT>())
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
    fn a_length_claims_no_more_memory_than_its_input_can_justify() {
        // 2^20 bytes of a name, in a row of 5.
        let refused = decode::<SampleRow>(&[252, 0, 0, 16, 0]).unwrap_err();
        assert!(refused.contains("LimitExceeded"), "{refused}");
        // 2^28, in a row of 40,000.
        let mut claims = vec![252, 0, 0, 0, 16];
        claims.resize(40_000, 0);
        let refused = decode::<SampleRow>(&claims).unwrap_err();
        assert!(refused.contains("LimitExceeded"), "{refused}");
        // What is densest: empty strings and small integers, on both sides of each limit.
        for len in [1, SMALL - 3, SMALL, MEDIUM - 5, MEDIUM, LARGE - 5, LARGE, LARGE + 1] {
            let strings = vec![String::new(); len];
            assert_eq!(decode::<Vec<String>>(&encode(&strings).unwrap()).as_ref(), Ok(&strings));
            let numbers = vec![0_u64; len];
            assert_eq!(decode::<Vec<u64>>(&encode(&numbers).unwrap()).as_ref(), Ok(&numbers));
        }
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
