//! The rows of form tokens: their keys, their bytes, and when they end.
//!
//! A key is one tag byte and the lookup key: tag 1 and the decoded bytes when it is lowercase hex
//! of even, non-zero length (a keyed hash, so the common case; it halves the log and the B-tree),
//! else tag 0 and its UTF-8. Both directions are one to one, and this is the order of listings:
//! first whatever is no hex, then hex, each in byte order.

use super::record::{FormTokenRecord, LookupKey, TokenSubject};
use crate::codec;
use crate::engine::time_line::{Deadline, Moment};
use crate::error::{Error, Result};
use crate::stores::length::check_len;
use crate::stores::page::decode_hex;
use crate::tables::Table;
use std::fmt::Write as _;

/// The rest of the key is UTF-8.
const TAG_TEXT: u8 = 0;
/// The rest of the key is the decoded hex.
const TAG_HEX: u8 = 1;

/// The key of a token's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenKey(Vec<u8>);

impl TokenKey {
    /// The key for `lookup_key`, unless that is too long to be one.
    pub(crate) fn encode(lookup_key: &LookupKey) -> Result<Self> {
        let text = lookup_key.as_str();
        check_len("the lookup key", text)?;
        let (tag, mut key) = match decode_hex(text) {
            Some(bytes) if !bytes.is_empty() => (TAG_HEX, bytes),
            _ => (TAG_TEXT, text.as_bytes().to_vec()),
        };
        key.insert(0, tag);
        Ok(Self(key))
    }

    /// The bytes of the key.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The lookup key that [`TokenKey::encode`] wrote as `key`.
pub(crate) fn decode_key(key: &[u8]) -> Result<LookupKey> {
    let damaged = |detail: &str| {
        Error::corrupted(format!("a key of table {}", Table::FORM_TOKEN.name()), detail)
    };
    match key.split_first() {
        Some((&TAG_TEXT, text)) => std::str::from_utf8(text)
            .map(LookupKey::new)
            .map_err(|_| damaged("a lookup key that is not UTF-8")),
        Some((&TAG_HEX, bytes)) => {
            let mut text = String::with_capacity(bytes.len() * 2);
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            Ok(LookupKey::new(text))
        }
        _ => Err(damaged("a lookup key without a known tag")),
    }
}

/// A subject, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) enum SubjectRow<'a> {
    Anonymous,
    Authenticated(&'a str),
    Flow(&'a str),
}

impl<'a> From<&'a TokenSubject> for SubjectRow<'a> {
    fn from(subject: &'a TokenSubject) -> Self {
        match subject {
            TokenSubject::Anonymous => SubjectRow::Anonymous,
            TokenSubject::Authenticated(id) => SubjectRow::Authenticated(id),
            TokenSubject::Flow(id) => SubjectRow::Flow(id),
        }
    }
}

impl From<SubjectRow<'_>> for TokenSubject {
    fn from(row: SubjectRow<'_>) -> Self {
        match row {
            SubjectRow::Anonymous => TokenSubject::Anonymous,
            SubjectRow::Authenticated(id) => TokenSubject::Authenticated(id.into()),
            SubjectRow::Flow(id) => TokenSubject::Flow(id.into()),
        }
    }
}

/// A row of [`Table::FORM_TOKEN`]. Only its end on the time line changes once it is there.
#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) struct TokenRow<'a> {
    pub(crate) key_version: &'a str,
    pub(crate) subject: SubjectRow<'a>,
    pub(crate) purpose: &'a str,
    pub(crate) bound_resource: Option<&'a str>,
    /// In seconds since the Unix epoch.
    pub(crate) issued_at: u64,
    /// In seconds since the Unix epoch.
    pub(crate) expires_at: u64,
    /// The same on the time line, by the trusted wall clock. No answer looks at it.
    pub(crate) ends_at: Deadline,
}

/// A row of [`Table::FORM_TOKEN_USE`]: the use of a consumed token. There is none without the
/// token's own row.
#[derive(Debug, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) struct UseRow<'a> {
    /// By the clock of the caller that consumed, in seconds since the Unix epoch.
    pub(crate) consumed_at: u64,
    /// How long after its expiry the token answers `Replay`. Fixed when it is consumed, so that
    /// every reader and the sweeper agree, whatever their handles say.
    pub(crate) grace_ms: u64,
    pub(crate) result_ref: Option<&'a str>,
}

/// The state of a token at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Ended, and therefore absent.
    Absent,
    /// Can be consumed.
    Unconsumed,
    /// Was consumed, and answers `Replay`.
    Consumed,
}

impl<'a> TokenRow<'a> {
    /// The row of `record`, unless one of its strings is too long.
    pub(crate) fn of(record: &'a FormTokenRecord, now: &Moment) -> Result<Self> {
        let row = Self {
            key_version: &record.key_version,
            subject: (&record.subject).into(),
            purpose: &record.purpose,
            bound_resource: record.bound_resource.as_deref(),
            issued_at: record.issued_at,
            expires_at: record.expires_at,
            ends_at: ends_at(record.expires_at, now),
        };
        check_len("the key version", row.key_version)?;
        check_binding(row.subject, row.purpose, row.bound_resource)?;
        Ok(row)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        codec::decode_row(Table::FORM_TOKEN.name(), bytes)
    }

    /// The record that this row is of.
    pub(crate) fn to_record(&self, lookup_key: LookupKey) -> FormTokenRecord {
        FormTokenRecord {
            lookup_key,
            key_version: self.key_version.into(),
            subject: self.subject.into(),
            purpose: self.purpose.into(),
            bound_resource: self.bound_resource.map(Into::into),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }

    /// Where a sweep indexes the token when it was consumed.
    pub(crate) fn grace_ends_at(&self, consumed: &UseRow<'_>) -> Deadline {
        self.ends_at.later(consumed.grace_ms)
    }

    /// What the token is at `now_ms`. Compared in 128 bits, so that no time a caller can write
    /// overflows or is rounded.
    pub(crate) fn phase(&self, consumed: Option<&UseRow<'_>>, now_ms: u128) -> Phase {
        let expires_ms = u128::from(self.expires_at) * 1_000;
        match consumed {
            None if now_ms < expires_ms => Phase::Unconsumed,
            Some(consumed) if now_ms < expires_ms + u128::from(consumed.grace_ms) => {
                Phase::Consumed
            }
            _ => Phase::Absent,
        }
    }
}

impl<'a> UseRow<'a> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        codec::decode_row(Table::FORM_TOKEN_USE.name(), bytes)
    }
}

/// Where the time line has an expiry, in seconds since the Unix epoch.
pub(crate) fn ends_at(expires_at: u64, now: &Moment) -> Deadline {
    now.deadline_at_trusted_wall(expires_at.saturating_mul(1_000))
}

/// Refuses a binding with a string that is too long.
pub(crate) fn check_binding(
    subject: SubjectRow<'_>,
    purpose: &str,
    bound_resource: Option<&str>,
) -> Result<()> {
    if let SubjectRow::Authenticated(id) | SubjectRow::Flow(id) = subject {
        check_len("the subject", id)?;
    }
    check_len("the purpose", purpose)?;
    check_len("the bound resource", bound_resource.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_KEY_LEN;
    use proptest::prelude::*;

    fn encoded(text: &str) -> Vec<u8> {
        TokenKey::encode(&LookupKey::new(text)).unwrap().as_bytes().to_vec()
    }

    #[test]
    fn lowercase_hex_is_packed_and_everything_else_is_kept() {
        assert_eq!(encoded("00ff7a"), [1, 0x00, 0xff, 0x7a]);
        assert_eq!(encoded(""), [0]);
        assert_eq!(encoded("abc"), b"\0abc");
        assert_eq!(encoded("AB"), b"\0AB");
        assert_eq!(encoded("é0"), "\0é0".as_bytes());
    }

    #[test]
    fn damaged_keys_are_corruption() {
        for bad in [&[][..], &[2, 1], &[0, 0xff]] {
            assert!(matches!(decode_key(bad), Err(Error::Corrupted { .. })));
        }
    }

    #[test]
    fn a_lookup_key_over_the_limit_is_refused() {
        assert!(TokenKey::encode(&LookupKey::new("f".repeat(MAX_KEY_LEN))).is_ok());
        let long = LookupKey::new("f".repeat(MAX_KEY_LEN + 1));
        assert!(matches!(TokenKey::encode(&long), Err(Error::TooLarge { .. })));
    }

    fn token_row() -> TokenRow<'static> {
        TokenRow {
            key_version: "v1",
            subject: SubjectRow::Flow("f"),
            purpose: "pay",
            bound_resource: Some("cart"),
            issued_at: 7,
            expires_at: 300,
            ends_at: Deadline { epoch: 2, at_ms: 9 },
        }
    }

    #[test]
    fn a_token_row_round_trips_in_frozen_bytes() {
        let bytes = token_row().encode().unwrap();
        assert_eq!(bytes, b"\x02v1\x02\x01f\x03pay\x01\x04cart\x07\xfb\x2c\x01\x02\x09");
        assert_eq!(TokenRow::decode(&bytes).unwrap(), token_row());
    }

    #[test]
    fn a_use_row_round_trips_in_frozen_bytes() {
        let row = UseRow { consumed_at: 9, grace_ms: 86_400_000, result_ref: Some("r7") };
        let bytes = row.encode().unwrap();
        assert_eq!(bytes, b"\x09\xfc\x00\x5c\x26\x05\x01\x02r7");
        assert_eq!(UseRow::decode(&bytes).unwrap(), row);
    }

    #[test]
    fn a_corrupt_byte_is_another_row_or_corruption_and_never_the_same_row() {
        let bytes = token_row().encode().unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x80;
            match TokenRow::decode(&bad) {
                Ok(row) => assert_ne!(row, token_row(), "byte {at}"),
                Err(error) => {
                    assert!(matches!(error, Error::Corrupted { .. }), "byte {at}: {error}")
                }
            }
        }
    }

    #[test]
    fn the_greatest_times_neither_overflow_nor_round() {
        let row = TokenRow { expires_at: u64::MAX, ..token_row() };
        let last_ms = u128::from(u64::MAX) * 1_000;
        assert_eq!(row.phase(None, last_ms - 1), Phase::Unconsumed);
        assert_eq!(row.phase(None, last_ms), Phase::Absent);
        let consumed = UseRow { consumed_at: 0, grace_ms: u64::MAX, result_ref: None };
        assert_eq!(row.phase(Some(&consumed), last_ms + u128::from(u64::MAX) - 1), Phase::Consumed);
        assert_eq!(row.phase(Some(&consumed), last_ms + u128::from(u64::MAX)), Phase::Absent);
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_never_collide(a in "[0-9a-f]{0,6}|.{0,4}", b in "[0-9a-f]{0,6}|.{0,4}") {
            prop_assert_eq!(decode_key(&encoded(&a)).unwrap(), LookupKey::new(a.clone()));
            prop_assert_eq!(encoded(&a) == encoded(&b), a == b);
        }

        #[test]
        fn any_bytes_decode_or_are_corruption(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (TokenRow::decode(&bytes), UseRow::decode(&bytes), decode_key(&bytes));
        }
    }
}
