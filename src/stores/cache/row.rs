//! The rows and keys of caches. The name of the cache is the first part of every key.

use super::content::ValueContent;
use crate::codec::{self, key};
use crate::engine::time_line::{Deadline, Moment};
use crate::error::{Error, Result};
use crate::tables::Table;

/// What a row adds to its value: three integers of at most nine bytes, the flags, and the length.
pub(crate) const CACHE_ROW_OVERHEAD: usize = 37;

/// A row of [`Table::CACHE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheRow<'a> {
    /// [`Deadline::NEVER`] for what does not expire.
    pub(crate) expires_at: Deadline,
    /// In milliseconds since the Unix epoch: the order of use that is known when the room was just
    /// opened.
    pub(crate) stored_at_ms: u64,
    /// Whether there is a row of [`Table::CACHE_TAGS`], so that most entries are removed without
    /// looking.
    pub(crate) tagged: bool,
    pub(crate) content: ValueContent<'a>,
}

/// The bytes of a [`CacheRow`].
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct CacheRowBytes<'a> {
    expires_at: Deadline,
    stored_at_ms: u64,
    flags: u8,
    stored: &'a [u8],
}

/// The flag of an entry that has tags.
const TAGGED: u8 = 1;
/// The flag of a value that is bytes, and no JSON.
const IS_BYTES: u8 = 2;

/// A row of [`Table::CACHE_TAGS`]: at least one tag, in byte order, each once.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct TagsRow {
    pub(crate) tags: Vec<String>,
}

impl<'a> CacheRow<'a> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let is_bytes = match self.content {
            ValueContent::Json(_) => 0,
            ValueContent::Bytes(_) => IS_BYTES,
        };
        codec::encode(&CacheRowBytes {
            expires_at: self.expires_at,
            stored_at_ms: self.stored_at_ms,
            flags: is_bytes | if self.tagged { TAGGED } else { 0 },
            stored: self.content.stored(),
        })
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let table = Table::CACHE.name();
        let row: CacheRowBytes<'a> = codec::decode_row(table, bytes)?;
        let CacheRowBytes { expires_at, stored_at_ms, flags, stored } = row;
        if flags & !(TAGGED | IS_BYTES) != 0 {
            let location = format!("a row of table {table}");
            return Err(Error::corrupted(location, format!("unknown flags: {flags:#x}")));
        }
        let content = match flags & IS_BYTES {
            0 => ValueContent::Json(stored),
            _ => ValueContent::Bytes(stored),
        };
        Ok(Self { expires_at, stored_at_ms, tagged: flags & TAGGED != 0, content })
    }

    pub(crate) fn is_live(&self, now: &Moment) -> bool {
        !now.has_passed(self.expires_at)
    }
}

impl TagsRow {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        codec::decode_row(Table::CACHE_TAGS.name(), bytes)
    }
}

/// What every key of the cache called `name` begins with.
pub(crate) fn prefix_of(name: &str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(name.len() + 2);
    key::push_bytes(&mut prefix, name.as_bytes());
    prefix
}

/// The key of an entry in [`Table::CACHE`] and [`Table::CACHE_TAGS`].
pub(crate) fn entry_key(prefix: &[u8], hash: &str) -> Vec<u8> {
    [prefix, hash.as_bytes()].concat()
}

/// What the keys of all entries with this tag begin with, in [`Table::CACHE_BY_TAG`].
pub(crate) fn tag_prefix(prefix: &[u8], tag: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(prefix.len() + tag.len() + 2);
    encoded.extend_from_slice(prefix);
    key::push_bytes(&mut encoded, tag.as_bytes());
    encoded
}

/// The key of an entry in [`Table::CACHE_BY_TAG`].
pub(crate) fn tag_key(prefix: &[u8], tag: &str, hash: &str) -> Vec<u8> {
    let mut encoded = tag_prefix(prefix, tag);
    encoded.extend_from_slice(hash.as_bytes());
    encoded
}

/// The keys in [`Table::CACHE_BY_TAG`] of the entry at `key` of [`Table::CACHE`] that has the tags
/// of `row`.
pub(crate) fn tag_keys(key: &[u8], row: &TagsRow) -> Result<Vec<Vec<u8>>> {
    let (prefix, hash) = split_key(Table::CACHE_TAGS, key)?;
    Ok(row.tags.iter().map(|tag| tag_key(prefix, tag, hash)).collect())
}

/// What the key of an entry, or of another row that a name begins, begins with, and its hash.
pub(crate) fn split_key(table: Table, key: &[u8]) -> Result<(&[u8], &str)> {
    let damaged =
        || Error::corrupted(format!("a key of table {}", table.name()), "not a name and a hash");
    let (prefix, _) = split_name(key).ok_or_else(damaged)?;
    Ok((prefix, hash_in(table, prefix, key)?))
}

/// What the key in [`Table::CACHE`] of an entry begins with, one of its tags, and its hash, from a
/// key of [`Table::CACHE_BY_TAG`].
pub(crate) fn split_tag_key(key: &[u8]) -> Result<(&[u8], String, &str)> {
    let table = Table::CACHE_BY_TAG;
    let damaged = || {
        Error::corrupted(format!("a key of table {}", table.name()), "not a name, a tag and a hash")
    };
    let (prefix, _) = split_name(key).ok_or_else(damaged)?;
    let mut rest = key.get(prefix.len()..).ok_or_else(damaged)?;
    let tag = key::take_bytes(&mut rest)
        .and_then(|tag| String::from_utf8(tag).ok())
        .ok_or_else(damaged)?;
    Ok((prefix, tag, std::str::from_utf8(rest).map_err(|_| damaged())?))
}

/// The encoded name that a key begins with, and what follows it.
fn split_name(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = key;
    let name = key::take_bytes(&mut rest)?;
    std::str::from_utf8(&name).ok()?;
    key.split_at_checked(key.len() - rest.len())
}

/// The hash at the end of a key of `table` that begins with `prefix`.
pub(crate) fn hash_in<'a>(table: Table, prefix: &[u8], key: &'a [u8]) -> Result<&'a str> {
    key.strip_prefix(prefix).and_then(|hash| std::str::from_utf8(hash).ok()).ok_or_else(|| {
        Error::corrupted(format!("a key of table {}", table.name()), "a hash that is not UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROW: CacheRow<'_> = CacheRow {
        expires_at: Deadline::at(300),
        stored_at_ms: 7,
        tagged: true,
        content: ValueContent::Json(b"{}"),
    };

    #[test]
    fn rows_round_trip_in_frozen_bytes() {
        let bytes = ROW.encode().unwrap();
        assert_eq!(bytes, b"\0\xfb\x2c\x01\x07\x01\x02{}");
        assert_eq!(CacheRow::decode(&bytes).unwrap(), ROW);
        let raw = CacheRow { tagged: false, content: ValueContent::Bytes(b"{}"), ..ROW };
        let bytes = raw.encode().unwrap();
        assert_eq!(bytes, b"\0\xfb\x2c\x01\x07\x02\x02{}");
        assert_eq!(CacheRow::decode(&bytes).unwrap(), raw);
        let unknown = CacheRow::decode(b"\0\xfb\x2c\x01\x07\x04\x02{}");
        assert!(matches!(unknown, Err(Error::Corrupted { .. })), "{unknown:?}");
        let tags = TagsRow { tags: vec!["a".into(), "bc".into()] };
        let bytes = tags.encode().unwrap();
        assert_eq!(bytes, b"\x02\x01a\x02bc");
        assert_eq!(TagsRow::decode(&bytes).unwrap(), tags);
    }

    #[test]
    fn keys_are_frozen_and_no_string_forges_another() {
        let prefix = prefix_of("a\0b");
        assert_eq!(entry_key(&prefix, "h\0"), b"a\x00\xffb\x00\x00h\0");
        assert_eq!(tag_key(&prefix, "t", "h"), b"a\x00\xffb\x00\x00t\x00\x00h");
        assert_eq!(hash_in(Table::CACHE, &prefix, b"a\x00\xffb\x00\x00h\0").unwrap(), "h\0");
        assert!(!entry_key(&prefix_of("a"), "\0b").starts_with(&prefix));
        assert!(matches!(hash_in(Table::CACHE, &prefix, b"other"), Err(Error::Corrupted { .. })));
    }

    #[test]
    fn a_corrupt_byte_is_another_row_or_corruption() {
        let bytes = ROW.encode().unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            match CacheRow::decode(&bad) {
                Ok(row) => assert_ne!(row, ROW, "byte {at}"),
                Err(error) => {
                    assert!(matches!(error, Error::Corrupted { .. }), "byte {at}: {error}")
                }
            }
        }
    }

    #[test]
    fn a_row_adds_no_more_than_its_overhead() {
        const LATEST: Deadline = Deadline { epoch: u32::MAX, at_ms: u64::MAX };
        let stored = vec![b' '; 1 << 20];
        for content in [ValueContent::Json(&stored), ValueContent::Bytes(&stored)] {
            let row =
                CacheRow { expires_at: LATEST, stored_at_ms: u64::MAX, tagged: true, content };
            assert!(row.encode().unwrap().len() <= stored.len() + CACHE_ROW_OVERHEAD);
        }
    }

    #[test]
    fn never_is_later_than_any_time() {
        assert!(CacheRow { expires_at: Deadline::NEVER, ..ROW }.is_live(&Moment::manual(u64::MAX)));
        assert!(ROW.is_live(&Moment::manual(299)) && !ROW.is_live(&Moment::manual(300)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_corruption(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (CacheRow::decode(&bytes), TagsRow::decode(&bytes));
        }
    }
}
