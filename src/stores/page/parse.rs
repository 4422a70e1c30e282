//! The string form of a cursor, read back.

use super::{CURSOR_VERSION, Cursor, CursorParseError, NO_TABLE, decode_hex};
use crate::stores::registry::catalogue;
use std::str::FromStr;

impl FromStr for Cursor {
    type Err = CursorParseError;

    fn from_str(text: &str) -> Result<Self, CursorParseError> {
        let bytes = decode_hex(text).ok_or(CursorParseError::Malformed)?;
        let (content, checksum) =
            bytes.split_last_chunk::<4>().ok_or(CursorParseError::Malformed)?;
        let (&[version, number], key) =
            content.split_first_chunk::<2>().ok_or(CursorParseError::Malformed)?;
        if version != CURSOR_VERSION {
            return Err(CursorParseError::Malformed);
        }
        if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
            return Err(CursorParseError::Altered);
        }
        let table = match number {
            NO_TABLE => None,
            number => Some(catalogue().numbered(number).ok_or(CursorParseError::Malformed)?),
        };
        Ok(Self { table, key: key.to_vec() })
    }
}
