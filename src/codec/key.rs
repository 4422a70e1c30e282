//! Order-preserving keys.
//!
//! A key is a tuple of parts. The bytes of keys compare as the tuples do, and no string can imitate
//! a separator:
//!
//! - a string or byte part writes each `00` as `00 FF` and ends with `00 00`, unless it is the last
//!   part, which is written as it is;
//! - an integer part is big-endian, fixed width.
//!
//! The escape is that of FoundationDB's tuple layer: `00 00` sorts before `00 FF` and before every
//! other byte, so a part sorts before its own extensions.

/// Ends a byte part that is not the last.
const TERMINATOR: [u8; 2] = [0x00, 0x00];
/// Stands for a `00` inside such a part.
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xFF];

/// Writes a byte part that is not the last.
pub(crate) fn push_bytes(key: &mut Vec<u8>, part: &[u8]) {
    for &byte in part {
        if byte == 0 {
            key.extend_from_slice(&ESCAPED_ZERO);
        } else {
            key.push(byte);
        }
    }
    key.extend_from_slice(&TERMINATOR);
}

/// Writes an integer part.
pub(crate) fn push_u64(key: &mut Vec<u8>, part: u64) {
    key.extend_from_slice(&part.to_be_bytes());
}

/// Takes a byte part that is not the last off the front of `key`. `None` when the key was not
/// written this way.
pub(crate) fn take_bytes(key: &mut &[u8]) -> Option<Vec<u8>> {
    let mut part = Vec::new();
    let mut rest = *key;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte != 0 {
            part.push(byte);
            continue;
        }
        let (&mark, after) = rest.split_first()?;
        rest = after;
        match [byte, mark] {
            TERMINATOR => {
                *key = rest;
                return Some(part);
            }
            ESCAPED_ZERO => part.push(0),
            _ => return None,
        }
    }
}

/// Takes an integer part off the front of `key`.
pub(crate) fn take_u64(key: &mut &[u8]) -> Option<u64> {
    let (part, rest) = key.split_first_chunk::<8>()?;
    *key = rest;
    Some(u64::from_be_bytes(*part))
}

/// The first key after every key that starts with `prefix`, or `None` when there is no such key.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last != u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(first: &[u8], number: u64, last: &[u8]) -> Vec<u8> {
        let mut key = Vec::new();
        push_bytes(&mut key, first);
        push_u64(&mut key, number);
        key.extend_from_slice(last);
        key
    }

    #[test]
    fn the_bytes_are_frozen() {
        assert_eq!(tuple(b"a\0b", 1, b"z"), b"a\x00\xffb\x00\x00\0\0\0\0\0\0\0\x01z");
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn a_part_without_a_terminator_is_refused() {
        for mut bad in [&b"abc"[..], b"abc\0", b"abc\0\x01", b""] {
            assert_eq!(take_bytes(&mut bad), None);
        }
    }

    proptest! {
        #[test]
        fn tuples_round_trip_and_keep_their_order(
            a in (prop::collection::vec(0u8..3, 0..6), any::<u64>(), prop::collection::vec(any::<u8>(), 0..4)),
            b in (prop::collection::vec(0u8..3, 0..6), any::<u64>(), prop::collection::vec(any::<u8>(), 0..4)),
        ) {
            let (key_a, key_b) = (tuple(&a.0, a.1, &a.2), tuple(&b.0, b.1, &b.2));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            let mut rest = &key_a[..];
            prop_assert_eq!(take_bytes(&mut rest), Some(a.0));
            prop_assert_eq!(take_u64(&mut rest), Some(a.1));
            prop_assert_eq!(rest, &a.2[..]);
        }
    }
}
