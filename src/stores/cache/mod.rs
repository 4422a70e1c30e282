//! Caches: values under hashes, for a time, with tags to remove them by.

mod bytes;
pub(crate) mod content;
mod handle;
pub(crate) mod json;
mod lines;
mod ops;
mod recency;
pub(crate) mod row;
pub(crate) mod schema;
mod spec;
mod state;
mod strict;
pub(crate) mod sweep;
mod ttl;
mod tx;

pub use bytes::Bytes;
pub use handle::Cache;
pub(crate) use state::CacheStates;
pub use ttl::Ttl;
pub use tx::CacheTx;

use crate::Pending;
use std::sync::Arc;

/// A cache of values of one type.
///
/// Every method has applied its change, in order, when it returns; the [`Pending`] waits for its
/// durability, and says what a call may wait for. An entry that has expired behaves as one that was
/// never there.
///
/// # Errors
/// Of every method: [`TooLarge`](crate::Error::TooLarge) when a hash or tag (or the name of the
/// cache) is over [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN), and the errors of a write to the
/// log. Nothing was applied, unless the error is [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
pub trait CacheStore<T>: Send + Sync {
    /// Reads the value under `hash` and leaves it. `None` when there is none, when it has expired,
    /// and when its bytes do not decode as a `T` any more; in that last case the entry is removed.
    fn get(&self, hash: &str) -> Pending<Option<T>>;

    /// Stores `value` under `hash` and replaces the earlier value: for `ttl_seconds` from now when
    /// that is positive, without end when it is zero, and not at all when it is negative (the
    /// earlier value is removed). The tags of a live entry stay.
    ///
    /// A value that is larger than the store allows is not stored, and the earlier value is
    /// removed; that is no error. [`Encode`](crate::Error::Encode) when the value cannot be
    /// encoded, or would be read back as another value or none, such as a float that is not finite;
    /// the earlier value is untouched.
    fn set(&self, hash: &str, value: &T, ttl_seconds: i64) -> Pending<()>;

    /// As [`set`](Self::set), for a time to live in milliseconds, or without end.
    fn set_for(&self, hash: &str, value: &T, ttl: Ttl) -> Pending<()>;

    /// Removes the entry. `Ok` when there is none.
    fn delete(&self, hash: &str) -> Pending<()>;

    /// Removes every entry whose hash starts with `scope`, literally; every entry of this cache
    /// without one.
    fn clear(&self, scope: Option<&str>) -> Pending<()>;

    /// As [`set`](Self::set), and gives the entry exactly these tags, in one step. A tag that is
    /// listed twice counts once; an empty list leaves the entry without tags.
    fn set_with_tags(&self, hash: &str, value: &T, ttl_seconds: i64, tags: &[&str]) -> Pending<()>;

    /// Removes every entry that has this tag, and answers how many there were.
    fn invalidate_by_tag(&self, tag: &str) -> Pending<u64>;

    /// Removes every entry that has any of these tags, and answers how many there were, each
    /// counted once.
    fn invalidate_by_tags(&self, tags: &[&str]) -> Pending<u64>;
}

/// An entry in a listing: its particulars without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheEntry {
    /// What it is stored under.
    pub hash: String,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When it ends, in milliseconds since the Unix epoch, or `None` when it never does.
    pub expires_at_ms: Option<u64>,
    /// The size of the stored value in bytes.
    pub bytes: u64,
    /// Its tags, in byte order, each once.
    pub tags: Vec<String>,
}

/// What a cache holds, and what happened to it since the room was opened.
///
/// The last four count what all handles of this name did, calls in a transaction that was not kept
/// included. They start at zero again when no handle of this name is kept and those of 64 other
/// names were used since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Entries that can be read.
    pub live: u64,
    /// Entries that have ended and were not swept yet.
    pub expired: u64,
    /// Bytes of the hashes and encoded values of all these, those not swept yet included; tags are
    /// not counted.
    pub bytes: u64,
    /// Calls of `get` that found a value.
    pub hits: u64,
    /// Calls of `get` that found none.
    pub misses: u64,
    /// Entries that were removed to keep a limit.
    pub evictions: u64,
    /// Values that were not stored because they are too large.
    pub oversized: u64,
}

/// A shared store is a store.
impl<T, S: CacheStore<T> + ?Sized> CacheStore<T> for Arc<S> {
    fn get(&self, hash: &str) -> Pending<Option<T>> {
        (**self).get(hash)
    }

    fn set(&self, hash: &str, value: &T, ttl_seconds: i64) -> Pending<()> {
        (**self).set(hash, value, ttl_seconds)
    }

    fn set_for(&self, hash: &str, value: &T, ttl: Ttl) -> Pending<()> {
        (**self).set_for(hash, value, ttl)
    }

    fn delete(&self, hash: &str) -> Pending<()> {
        (**self).delete(hash)
    }

    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        (**self).clear(scope)
    }

    fn set_with_tags(&self, hash: &str, value: &T, ttl_seconds: i64, tags: &[&str]) -> Pending<()> {
        (**self).set_with_tags(hash, value, ttl_seconds, tags)
    }

    fn invalidate_by_tag(&self, tag: &str) -> Pending<u64> {
        (**self).invalidate_by_tag(tag)
    }

    fn invalidate_by_tags(&self, tags: &[&str]) -> Pending<u64> {
        (**self).invalidate_by_tags(tags)
    }
}
