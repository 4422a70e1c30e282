//! Which store a row belongs to.

use crate::codec::key;
use serde::ser::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A kind of store in a room, such as [`StoreKind::CACHE`]. They are ordered as the stores are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKind {
    order: u8,
    name: &'static str,
    entries: &'static str,
}

impl StoreKind {
    /// The kind with this `name`, whose `entries` are called so. `order` is a number of its own.
    pub(crate) const fn new(order: u8, name: &'static str, entries: &'static str) -> Self {
        Self { order, name, entries }
    }

    /// Its name in JSON and on the command line, such as `form_tokens`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.name
    }

    /// What its entries are called in a sentence, in the plural, such as `form tokens`.
    #[must_use]
    pub fn entries(self) -> &'static str {
        self.entries
    }
}

impl fmt::Debug for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKind({})", self.name)
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for StoreKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Where a row belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    pub(crate) store: StoreKind,
    /// The name of the store, for stores that have one.
    pub(crate) name: Option<Cow<'a, str>>,
    /// The key in the store, as it is stored.
    pub(crate) key: &'a [u8],
}

impl<'a> Owner<'a> {
    /// The owner of a row at `key` of a store without a name.
    pub(crate) fn unnamed(store: StoreKind, key: &'a [u8]) -> Option<Self> {
        Some(Self { store, name: None, key })
    }

    /// The owner of a row whose key begins with the name of its store.
    pub(crate) fn named(store: StoreKind, key: &'a [u8]) -> Option<Self> {
        let mut rest = key;
        let name = String::from_utf8(key::take_bytes(&mut rest)?).ok()?;
        Some(Self { store, name: Some(Cow::Owned(name)), key: rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::registry::catalogue;
    use crate::stores::{cache, rate_limit::limiter::Kind};
    use crate::tables::Table;
    use proptest::prelude::*;

    fn owner(table: Table, key: &[u8]) -> Option<(StoreKind, Option<String>, Vec<u8>)> {
        Owner::of(table, key)
            .map(|owner| (owner.store, owner.name.map(Cow::into_owned), owner.key.to_vec()))
    }

    #[test]
    fn a_row_belongs_to_the_store_that_wrote_it() {
        let entry = cache::row::entry_key(&cache::row::prefix_of("pages\0"), "h");
        let named =
            |store, name: &str, key: &[u8]| Some((store, Some(name.to_owned()), key.to_vec()));
        assert_eq!(owner(Table::CACHE_TAGS, &entry), named(StoreKind::CACHE, "pages\0", b"h"));
        let limit = [&[Kind::Adaptive as u8][..], b"api\0\0r"].concat();
        assert_eq!(
            owner(Table::RATE_LIMIT_CONFIG, &limit),
            named(StoreKind::ADAPTIVE_RATE_LIMIT, "api", b"r")
        );
        assert_eq!(
            owner(Table::RATE_LIMIT_STORE, b"\x01api"),
            named(StoreKind::RATE_LIMIT, "api", b"")
        );
        assert_eq!(
            owner(Table::HANDOFF_CLAIM, b"s"),
            Some((StoreKind::HANDOFF, None, b"s".to_vec()))
        );
    }

    #[test]
    fn what_belongs_to_no_one_store_has_no_place() {
        assert_eq!(owner(Table::RATE_LIMIT_STORE, b""), None);
        assert_eq!(owner(Table::RATE_LIMIT, b"\x07api\0\0r"), None);
        assert_eq!(owner(Table::CACHE, b"no end"), None);
        assert_eq!(owner(Table::RATE_LIMIT_REQUEST, &[0; 25]), None);
    }

    proptest! {
        #[test]
        fn any_key_has_a_place_or_none(number in 0u8..40, key in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(table) = catalogue().numbered(number) {
                let _ = Owner::of(table, &key);
            }
        }
    }
}
