//! A cache of a room.

use super::content::EncodedValue;
use super::ops::{self, Lookup, NewEntry};
use super::spec::Spec;
use super::state::CacheStates;
use super::{CacheEntry, CacheStats, CacheStore, CacheTx, Ttl};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::engine::access::Writer;
use crate::stores::frame::{FrameStep, in_steps};
use crate::stores::page::{Cursor, Page};
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

/// A named cache of a room: a [`CacheStore`]. A cheap clone.
///
/// Values are kept as JSON, so a program whose `T` has changed reads what still fits it, and misses
/// the rest. A value that JSON would change is [`Encode`](crate::Error::Encode): a float that is
/// not finite, `Some(None)` and `Some(())`, which would both come back as `None`, and whatever else
/// its own type does not read back. [`Bytes`](super::Bytes) are kept as they are.
///
/// # Limits
/// Without [`with_max_entries`](Self::with_max_entries) and
/// [`with_max_bytes`](Self::with_max_bytes) nothing is ever evicted. With them, a set through this
/// handle evicts the least recently used entries of the cache, in the same transaction, until both
/// hold; a set through a handle without limits evicts nothing. Entries that have expired do not
/// count. The order of use is kept in memory, so that a hit writes nothing: after the room was
/// opened, the entry that was stored first counts as used first, until it is used. Uses are noted
/// from the first call through a handle with a limit; the first change after it reads the whole
/// cache once, and other writers wait meanwhile.
///
/// ```
/// use cloakroom::Cloakroom;
/// use cloakroom::cache::{Cache, CacheStore};
/// let room = Cloakroom::builder().open_in_memory()?;
/// let pages: Cache<String> = room.cache("http").with_max_entries(10_000);
/// pages.set_with_tags("GET /a", &"<p>a".into(), 60, &["site"]).wait()?;
/// assert_eq!(pages.get("GET /a").wait()?.as_deref(), Some("<p>a"));
/// assert_eq!(pages.invalidate_by_tag("site").wait()?, 1);
/// assert_eq!(pages.get("GET /a").wait()?, None);
/// # Ok::<(), cloakroom::Error>(())
/// ```
pub struct Cache<T> {
    handle: StoreHandle,
    spec: Spec,
    values: PhantomData<fn() -> T>,
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), spec: self.spec.clone(), values: PhantomData }
    }
}

impl<T> Cache<T> {
    /// The cache called `name` of the room that `engine` runs.
    pub(crate) fn new(engine: Engine, caches: &CacheStates, name: &str) -> Self {
        let spec = Spec::new(&engine, caches, name);
        let handle = StoreHandle::new(engine, Durability::Os);
        Self { handle, spec, values: PhantomData }
    }

    /// The same cache, whose answers wait for this durability. The default is [`Durability::Os`].
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability), ..self }
    }

    /// The same cache; a value set through this handle is stored if its JSON (or
    /// [`Bytes`](super::Bytes)) has at most this many bytes. The default is 5 MiB, or what one log
    /// segment can hold if that is less. An entry whose name, hash and tags leave no space for its
    /// value in a segment (they are written several times) is treated as too large as well.
    ///
    /// Zero, and what no log segment of this room can hold, make every call through the handle
    /// answer [`InvalidConfig`](crate::Error::InvalidConfig).
    #[must_use]
    pub fn with_max_entry_bytes(mut self, max_entry_bytes: u64) -> Self {
        let checked = self.spec.set_max_entry_bytes(max_entry_bytes);
        Self { handle: self.handle.with(checked), ..self }
    }

    /// The same cache; a set through this handle leaves at most this many live entries. Zero keeps
    /// nothing. By default there is no limit.
    ///
    /// One set evicts no more than fits its frame of the log, which is thousands. When the limit
    /// was lowered by more, the next sets go on.
    #[must_use]
    pub fn with_max_entries(mut self, max_entries: u64) -> Self {
        self.spec.max_entries = Some(max_entries);
        self
    }

    /// The same cache; a set through this handle leaves live entries of at most this many bytes,
    /// hashes and encoded values together. A value that alone is over it is not stored. By default
    /// there is no limit.
    ///
    /// One set evicts no more than fits its frame, as with
    /// [`with_max_entries`](Self::with_max_entries).
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.spec.max_bytes = Some(max_bytes);
        self
    }

    /// The cache in `tx`, a transaction of `engine`, with the options of this handle.
    pub(crate) fn view<'a>(&self, engine: &Engine, tx: &'a mut dyn Writer) -> CacheTx<'a, T> {
        CacheTx::of(self.handle.within(engine, tx), self.spec.clone())
    }

    /// Up to `limit` live entries after `cursor`, or from the first one without a cursor, in byte
    /// order of their hashes.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store or cache.
    pub fn list(&self, cursor: Option<&Cursor>, limit: usize) -> Pending<Page<CacheEntry>> {
        self.handle.read(|rows| ops::list(rows, &self.spec, cursor, limit))
    }

    /// Counts every entry, by reading every one of them: the cost grows with what is stored, and
    /// other callers do not wait meanwhile.
    pub fn stats(&self) -> Pending<CacheStats> {
        self.handle.read(|rows| ops::stats(rows, &self.spec))
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("durability", &self.handle.durability())
            .field("max_entry_bytes", &self.spec.max_entry_bytes)
            .field("max_entries", &self.spec.max_entries)
            .field("max_bytes", &self.spec.max_bytes)
            .finish_non_exhaustive()
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Cache<T> {
    /// As [`set_with_tags`](CacheStore::set_with_tags), for a time to live in milliseconds, or
    /// without end.
    pub fn set_for_with_tags(&self, hash: &str, value: &T, ttl: Ttl, tags: &[&str]) -> Pending<()> {
        self.store(hash, value, ttl, Some(tags))
    }

    fn store(&self, hash: &str, value: &T, ttl: Ttl, tags: Option<&[&str]>) -> Pending<()> {
        let spec = &self.spec;
        let encoded = spec.key(hash).and_then(|key| Ok((key, EncodedValue::of(value)?)));
        let (key, encoded) = match encoded {
            Ok(encoded) => encoded,
            Err(error) => return Pending::ready(Err(error)),
        };
        if spec.state.will_load(spec.is_limited()) {
            // What cannot be read is reported by the set.
            drop(self.handle.read(|rows| ops::warm(rows, spec)));
        }
        let new = NewEntry { content: encoded.content(), ttl, tags };
        self.handle.transact(&rows_of(&key), |tx| ops::set(tx, spec, hash, new))
    }

    fn invalidate(&self, tags: &[&str]) -> Pending<u64> {
        let (spec, mut removed, mut found) = (self.spec.clone(), 0, VecDeque::new());
        let listed = self.handle.read(|rows| {
            found = ops::tagged_with(rows, &spec, tags)?;
            Ok(0)
        });
        if listed.has_failed() {
            return listed;
        }
        in_steps(&self.handle, move |tx, budget| {
            removed += ops::invalidate(tx, &spec, &mut found, budget)?;
            Ok(FrameStep { answer: removed, is_last: found.is_empty() })
        })
    }
}

/// The rows under `key`, to be read before the engine's lock is taken.
fn rows_of(key: &[u8]) -> [(Table, &[u8]); 2] {
    [(Table::CACHE, key), (Table::CACHE_TAGS, key)]
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> CacheStore<T> for Cache<T> {
    fn get(&self, hash: &str) -> Pending<Option<T>> {
        let mut undecodable = false;
        let answer = self.handle.read(|rows| {
            Ok(match ops::look_up(rows, &self.spec, hash)? {
                Lookup::Value(value) => Some(value),
                Lookup::Nothing => None,
                Lookup::Undecodable => {
                    undecodable = true;
                    None
                }
            })
        });
        if undecodable {
            // It is a miss whether or not it can be removed now.
            drop(
                self.handle.transact(&[], |tx| ops::delete_undecodable::<T>(tx, &self.spec, hash)),
            );
        }
        answer
    }

    fn set(&self, hash: &str, value: &T, ttl_seconds: i64) -> Pending<()> {
        self.store(hash, value, Ttl::of_seconds(ttl_seconds), None)
    }

    fn set_for(&self, hash: &str, value: &T, ttl: Ttl) -> Pending<()> {
        self.store(hash, value, ttl, None)
    }

    fn delete(&self, hash: &str) -> Pending<()> {
        let key = match self.spec.key(hash) {
            Ok(key) => key,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.handle.transact(&rows_of(&key), |tx| ops::delete(tx, &self.spec, hash))
    }

    /// Removes every entry that was there when the call began, in steps of some hundreds of entries
    /// in the order of the hashes. Each entry goes whole, with its tags. Between two steps other
    /// callers go on: they see which entries are gone already, and an entry that they set
    /// meanwhile stays, or goes if its hash was still to come. An error, or a crash before the
    /// answer, leaves the rest in place. In `atomically` it is one step.
    ///
    /// When the call returns, all steps are done, unless the log is full: a call does not wait for
    /// space, so a thread does the rest, and only the answer says that nothing is left.
    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        let (spec, scope) = (self.spec.clone(), scope.unwrap_or_default().to_owned());
        let mut found = None;
        let listed = self.handle.read(|rows| {
            found = ops::entries_in(rows, &spec, &scope)?;
            Ok(())
        });
        if listed.has_failed() {
            return listed;
        }
        in_steps(&self.handle, move |tx, budget| {
            let is_last = match &mut found {
                Some(range) => ops::clear(tx, &spec, &scope, range, budget)?,
                None => true,
            };
            Ok(FrameStep { answer: (), is_last })
        })
    }

    fn set_with_tags(&self, hash: &str, value: &T, ttl_seconds: i64, tags: &[&str]) -> Pending<()> {
        self.store(hash, value, Ttl::of_seconds(ttl_seconds), Some(tags))
    }

    fn invalidate_by_tag(&self, tag: &str) -> Pending<u64> {
        self.invalidate(&[tag])
    }

    /// In steps, as [`clear`](Self::clear), tag after tag. An entry that has several of the tags
    /// goes with the first of them, and counts once.
    fn invalidate_by_tags(&self, tags: &[&str]) -> Pending<u64> {
        self.invalidate(tags)
    }
}
