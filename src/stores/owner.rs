//! Which store a row belongs to.

use crate::codec::key;
use crate::tables::Table;
use serde::ser::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A kind of store in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StoreKind {
    /// Form tokens ([`Cloakroom::form_tokens`](crate::Cloakroom::form_tokens)).
    FormTokens,
    /// Claim-check states ([`Cloakroom::handoff`](crate::Cloakroom::handoff)).
    Handoff,
    /// Caches ([`Cloakroom::cache`](crate::Cloakroom::cache)), by name.
    Cache,
    /// Jobs ([`Cloakroom::dedupe`](crate::Cloakroom::dedupe)), by the name of their store.
    Dedupe,
    /// Plain limiters ([`Cloakroom::rate_limit`](crate::Cloakroom::rate_limit)), by name.
    RateLimit,
    /// Adaptive limiters
    /// ([`Cloakroom::adaptive_rate_limit`](crate::Cloakroom::adaptive_rate_limit)), by name.
    AdaptiveRateLimit,
    /// Agent states ([`Cloakroom::state`](crate::Cloakroom::state)).
    State,
    /// One-time codes of the adapter for `codlet`.
    CodletCodes,
    /// Sessions of the adapter for `codlet`.
    CodletSessions,
    /// Counted failures of the adapter for `codlet`.
    CodletFailures,
}

impl StoreKind {
    /// Its name in JSON and on the command line, such as `form_tokens`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StoreKind::FormTokens => "form_tokens",
            StoreKind::Handoff => "handoff",
            StoreKind::Cache => "cache",
            StoreKind::Dedupe => "dedupe",
            StoreKind::RateLimit => "rate_limit",
            StoreKind::AdaptiveRateLimit => "adaptive_rate_limit",
            StoreKind::State => "state",
            StoreKind::CodletCodes => "codlet_codes",
            StoreKind::CodletSessions => "codlet_sessions",
            StoreKind::CodletFailures => "codlet_failures",
        }
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
    /// The owner of the row at `key` of `table`. `None` for a key that no store writes, for the
    /// rows of a room's limiters together, and for tables whose keys do not say: requests name a
    /// window by number, index rows another row.
    pub(crate) fn of(table: Table, key: &'a [u8]) -> Option<Self> {
        let unnamed = |store| Some(Self { store, name: None, key });
        match table {
            Table::FORM_TOKEN | Table::FORM_TOKEN_USE => unnamed(StoreKind::FormTokens),
            Table::HANDOFF | Table::HANDOFF_CLAIM => unnamed(StoreKind::Handoff),
            Table::CACHE | Table::CACHE_TAGS | Table::CACHE_BY_TAG => {
                Self::named(StoreKind::Cache, key)
            }
            Table::DEDUPE_JOB => Self::named(StoreKind::Dedupe, key),
            Table::RATE_LIMIT
            | Table::ADAPTIVE_RATE_LIMIT
            | Table::RATE_LIMIT_CONFIG
            | Table::RATE_LIMIT_COOLDOWN => {
                let (store, rest) = limiter(key)?;
                Self::named(store, rest)
            }
            Table::RATE_LIMIT_STORE => {
                let (store, name) = limiter(key)?;
                let name = std::str::from_utf8(name).ok()?;
                Some(Self { store, name: Some(Cow::Borrowed(name)), key: &[] })
            }
            Table::STATE | Table::STATE_EVENT | Table::STATE_KIND | Table::STATE_TENANT_KIND => {
                unnamed(StoreKind::State)
            }
            Table::CODLET_CODE | Table::CODLET_CODE_KEY => unnamed(StoreKind::CodletCodes),
            Table::CODLET_SESSION | Table::CODLET_SESSION_KEY => unnamed(StoreKind::CodletSessions),
            Table::CODLET_FAILURES => unnamed(StoreKind::CodletFailures),
            _ => None,
        }
    }

    /// The owner of a row whose key begins with the name of its store.
    fn named(store: StoreKind, key: &'a [u8]) -> Option<Self> {
        let mut rest = key;
        let name = String::from_utf8(key::take_bytes(&mut rest)?).ok()?;
        Some(Self { store, name: Some(Cow::Owned(name)), key: rest })
    }
}

/// The kind of limiter that a key begins with.
fn limiter(key: &[u8]) -> Option<(StoreKind, &[u8])> {
    match key.split_first()? {
        (1, rest) => Some((StoreKind::RateLimit, rest)),
        (2, rest) => Some((StoreKind::AdaptiveRateLimit, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::schema::catalogue;
    use crate::stores::{cache, rate_limit::limiter::Kind};
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
        assert_eq!(owner(Table::CACHE_TAGS, &entry), named(StoreKind::Cache, "pages\0", b"h"));
        let limit = [&[Kind::Adaptive as u8][..], b"api\0\0r"].concat();
        assert_eq!(
            owner(Table::RATE_LIMIT_CONFIG, &limit),
            named(StoreKind::AdaptiveRateLimit, "api", b"r")
        );
        assert_eq!(
            owner(Table::RATE_LIMIT_STORE, b"\x01api"),
            named(StoreKind::RateLimit, "api", b"")
        );
        assert_eq!(
            owner(Table::HANDOFF_CLAIM, b"s"),
            Some((StoreKind::Handoff, None, b"s".to_vec()))
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
