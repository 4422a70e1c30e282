//! The rows of agent states: their keys and their bytes.
//!
//! Every key names a slot, in an order of its own. The rows by kind are empty, because their keys
//! say everything; so they change only when a slot comes or goes, and not when its state is
//! replaced.

use super::StateError;
use super::record::{Identity, StateRecord};
use crate::codec;
use crate::codec::key::{prefix_end, push_bytes, take_bytes};
use crate::error::{Error, Result};
use crate::stores::page::Cursor;
use crate::tables::Table;
use std::ops::Bound;

/// A row of [`Table::STATE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) struct StateRow<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) version: i64,
    /// In milliseconds since the Unix epoch.
    pub(crate) updated_at_ms: u64,
    pub(crate) bytes: &'a [u8],
}

impl<'a> StateRow<'a> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        codec::decode_row(Table::STATE.name(), bytes)
    }

    /// The record in this row, under this key.
    pub(crate) fn record(&self, slot: StateSlot) -> StateRecord {
        StateRecord {
            id: self.event_id.into(),
            identity: slot.identity,
            kind: slot.kind,
            version: self.version,
            bytes: self.bytes.to_vec(),
            updated_at: Some(self.updated_at_ms),
        }
    }
}

/// The place of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateSlot {
    pub(crate) identity: Identity,
    pub(crate) kind: String,
}

/// A key of these parts. The last one is not escaped.
fn tuple<const N: usize>(first: [&str; N], last: &str) -> Vec<u8> {
    let mut key = prefix(first);
    key.extend_from_slice(last.as_bytes());
    key
}

/// What all keys that begin with these parts begin with.
fn prefix<const N: usize>(parts: [&str; N]) -> Vec<u8> {
    let mut key = Vec::with_capacity(parts.iter().map(|part| part.len() + 2).sum::<usize>() + 32);
    parts.iter().for_each(|part| push_bytes(&mut key, part.as_bytes()));
    key
}

/// What all keys begin with whose part behind `parts` begins with `start`, when other parts follow
/// it.
fn open_prefix<const N: usize>(parts: [&str; N], start: &str) -> Vec<u8> {
    let mut key = prefix(parts);
    push_bytes(&mut key, start.as_bytes());
    // Without the end mark of the part; its escapes are the same in whatever extends it.
    key.truncate(key.len() - 2);
    key
}

/// The key in [`Table::STATE`].
pub(crate) fn slot_key(identity: &Identity, kind: &str) -> Vec<u8> {
    let Identity { tenant, user, session, run } = identity;
    tuple([tenant, user, session, run], kind)
}

/// The key in [`Table::STATE_KIND`].
pub(crate) fn kind_key(identity: &Identity, kind: &str) -> Vec<u8> {
    let Identity { tenant, user, session, run } = identity;
    tuple([kind, tenant, user, session], run)
}

/// The key in [`Table::STATE_TENANT_KIND`].
pub(crate) fn tenant_kind_key(identity: &Identity, kind: &str) -> Vec<u8> {
    let Identity { tenant, user, session, run } = identity;
    tuple([tenant, kind, user, session], run)
}

/// What all slot keys of a tenant begin with.
pub(crate) fn tenant_prefix(tenant: &str) -> Vec<u8> {
    prefix([tenant])
}

/// What all slot keys of a session begin with.
pub(crate) fn session_prefix(tenant: &str, user: &str, session: &str) -> Vec<u8> {
    prefix([tenant, user, session])
}

/// What all slot keys of one identity begin with.
pub(crate) fn identity_prefix(identity: &Identity) -> Vec<u8> {
    slot_key(identity, "")
}

/// What all keys of [`Table::STATE_KIND`] begin with whose kind begins with `kind_prefix`.
pub(crate) fn kinds_prefix(kind_prefix: &str) -> Vec<u8> {
    open_prefix([], kind_prefix)
}

/// What all keys of [`Table::STATE_TENANT_KIND`] of a tenant begin with whose kind begins with
/// `kind_prefix`.
pub(crate) fn tenant_kinds_prefix(tenant: &str, kind_prefix: &str) -> Vec<u8> {
    open_prefix([tenant], kind_prefix)
}

/// What all keys of [`Table::STATE_TENANT_KIND`] of a tenant and a kind begin with.
pub(crate) fn tenant_kind_prefix(tenant: &str, kind: &str) -> Vec<u8> {
    prefix([tenant, kind])
}

/// The end of the range of keys that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Bound<Vec<u8>> {
    prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded)
}

/// The five parts of a key.
fn take_parts(key: &[u8]) -> Option<[String; 5]> {
    let mut rest = key;
    let mut part = || String::from_utf8(take_bytes(&mut rest)?).ok();
    let (first, second, third, fourth) = (part()?, part()?, part()?, part()?);
    let last = std::str::from_utf8(rest).ok()?.to_owned();
    Some([first, second, third, fourth, last])
}

fn parts(table: Table, key: &[u8]) -> Result<[String; 5]> {
    take_parts(key).ok_or_else(|| {
        Error::corrupted(format!("a key of table {}", table.name()), "not five parts of UTF-8")
    })
}

/// The slot that [`slot_key`] wrote.
pub(crate) fn decode_slot_key(key: &[u8]) -> Result<StateSlot> {
    let [tenant, user, session, run, kind] = parts(Table::STATE, key)?;
    Ok(StateSlot { identity: Identity { tenant, user, session, run }, kind })
}

/// The slot that [`kind_key`] wrote.
pub(crate) fn decode_kind_key(key: &[u8]) -> Result<StateSlot> {
    let [kind, tenant, user, session, run] = parts(Table::STATE_KIND, key)?;
    Ok(StateSlot { identity: Identity { tenant, user, session, run }, kind })
}

/// The slot that [`tenant_kind_key`] wrote.
pub(crate) fn decode_tenant_kind_key(key: &[u8]) -> Result<StateSlot> {
    let [tenant, kind, user, session, run] = parts(Table::STATE_TENANT_KIND, key)?;
    Ok(StateSlot { identity: Identity { tenant, user, session, run }, kind })
}

/// A place in the scan of a tenant's kinds, behind this slot. It carries what was asked, so that it
/// is good for no other question.
pub(crate) fn scan_cursor(tenant: &str, kind_prefix: &str, slot_key: &[u8]) -> Cursor {
    let mut key = prefix([tenant, kind_prefix]);
    key.extend_from_slice(slot_key);
    Cursor::new(Table::STATE_TENANT_KIND, key)
}

/// The slot key that the scan of these kinds goes on behind.
pub(crate) fn scan_position(
    cursor: &Cursor,
    tenant: &str,
    kind_prefix: &str,
) -> Result<Vec<u8>, StateError> {
    let refuse = |why: &str| {
        StateError::InvalidScan(format!("the cursor {why}; pass the one of the last page"))
    };
    let key =
        cursor.key_in(Table::STATE_TENANT_KIND).map_err(|_| refuse("is of another listing"))?;
    let position = key
        .strip_prefix(prefix([tenant, kind_prefix]).as_slice())
        .ok_or_else(|| refuse("is of another tenant or prefix"))?;
    match decode_slot_key(position) {
        Ok(slot) if slot.identity.tenant == tenant && slot.kind.starts_with(kind_prefix) => {
            Ok(position.to_vec())
        }
        _ => Err(refuse("was altered")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROW: StateRow<'_> =
        StateRow { event_id: "e1", version: -3, updated_at_ms: 300, bytes: b"\0\xff" };

    fn identity() -> Identity {
        Identity::new("t", "u\0", "s", "")
    }

    #[test]
    fn a_row_round_trips_in_frozen_bytes() {
        let bytes = ROW.encode().unwrap();
        assert_eq!(bytes, b"\x02e1\x05\xfb\x2c\x01\x02\x00\xff");
        assert_eq!(StateRow::decode(&bytes).unwrap(), ROW);
    }

    #[test]
    fn a_corrupt_byte_is_another_row_or_corruption() {
        let bytes = ROW.encode().unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            match StateRow::decode(&bad) {
                Ok(row) => assert_ne!(row, ROW, "byte {at}"),
                Err(error) => {
                    assert!(matches!(error, Error::Corrupted { .. }), "byte {at}: {error}")
                }
            }
            assert!(StateRow::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn the_keys_are_frozen() {
        assert_eq!(slot_key(&identity(), "k"), b"t\0\0u\0\xff\0\0s\0\0\0\0k");
        assert_eq!(kind_key(&identity(), "k"), b"k\0\0t\0\0u\0\xff\0\0s\0\0");
        assert_eq!(tenant_kind_key(&identity(), "k"), b"t\0\0k\0\0u\0\xff\0\0s\0\0");
        assert_eq!(kinds_prefix("a\0"), b"a\0\xff");
        assert_eq!(tenant_kinds_prefix("t", "a"), b"t\0\0a");
    }

    #[test]
    fn keys_of_fewer_parts_or_no_text_are_corruption() {
        for bad in
            [&b""[..], b"t\0\0u\0\0s\0\0", b"t\0\0u\0\0s\0\0r\0\0\xff", b"\xff\0\0u\0\0s\0\0r\0\0k"]
        {
            assert!(matches!(decode_slot_key(bad), Err(Error::Corrupted { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_own_question_only() {
        let key = slot_key(&identity(), "kind");
        let cursor = scan_cursor("t", "ki", &key);
        assert_eq!(scan_position(&cursor, "t", "ki").unwrap(), key);
        let foreign = Cursor::new(Table::STATE, key.clone());
        let elsewhere =
            scan_cursor("t", "ki", &slot_key(&Identity::new("other", "u", "s", ""), "kind"));
        for (cursor, tenant, kind_prefix) in [
            (&cursor, "t", "k"),
            (&cursor, "t", "kin"),
            (&cursor, "t2", "ki"),
            (&foreign, "t", "ki"),
            (&elsewhere, "t", "ki"),
        ] {
            let answer = scan_position(cursor, tenant, kind_prefix);
            assert!(matches!(answer, Err(StateError::InvalidScan(_))), "{tenant} {kind_prefix}");
        }
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_prefixes_are_literal(
            parts in prop::array::uniform5("[\0a\u{1}]{0,3}"),
            other in "[\0a\u{1}]{0,3}",
        ) {
            let [tenant, user, session, run, kind] = parts;
            let identity = Identity { tenant, user, session, run };
            let slot = StateSlot { identity: identity.clone(), kind: kind.clone() };
            prop_assert_eq!(&decode_slot_key(&slot_key(&identity, &kind)).unwrap(), &slot);
            prop_assert_eq!(&decode_kind_key(&kind_key(&identity, &kind)).unwrap(), &slot);
            prop_assert_eq!(&decode_tenant_kind_key(&tenant_kind_key(&identity, &kind)).unwrap(), &slot);
            prop_assert_eq!(kind_key(&identity, &kind).starts_with(&kinds_prefix(&other)), kind.starts_with(&other));
            let by_tenant = tenant_kind_key(&identity, &kind);
            let begins = by_tenant.starts_with(&tenant_kinds_prefix(&identity.tenant, &other));
            prop_assert_eq!(begins, kind.starts_with(&other));
        }

        #[test]
        fn any_bytes_decode_or_are_corruption(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (StateRow::decode(&bytes), decode_slot_key(&bytes), decode_kind_key(&bytes));
        }
    }
}
