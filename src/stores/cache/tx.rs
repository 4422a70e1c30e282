//! A cache as a transaction sees it.

use super::json;
use super::ops::{self, NewEntry};
use super::spec::Spec;
use super::state::CacheStates;
use crate::engine::Engine;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::frame::FrameBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;

/// A cache inside a transaction: the operations of [`CacheStore`](super::CacheStore), answering at
/// once and seeing what the transaction has done so far. What they change is kept or lost with the
/// transaction. A hit counts as a use at once.
///
/// An operation that answers an error has changed nothing, unless a damaged row stopped it
/// part-way; the transaction can go on.
pub struct CacheTx<'a, T> {
    tx: &'a mut dyn Writer,
    spec: Spec,
    values: PhantomData<fn() -> T>,
}

impl<'a, T> CacheTx<'a, T> {
    /// The cache called `name` of `caches` in `tx`, the transaction of `engine` that is under way.
    pub(crate) fn new(
        tx: &'a mut dyn Writer,
        engine: &Engine,
        caches: &CacheStates,
        name: &str,
    ) -> Self {
        Self { tx, spec: Spec::new(engine, caches, name), values: PhantomData }
    }

    /// See [`Cache::with_max_entry_bytes`](super::Cache::with_max_entry_bytes).
    pub fn with_max_entry_bytes(mut self, max_entry_bytes: usize) -> Result<Self> {
        self.spec.set_max_entry_bytes(max_entry_bytes)?;
        Ok(self)
    }

    /// See [`Cache::with_max_entries`](super::Cache::with_max_entries).
    #[must_use]
    pub fn with_max_entries(mut self, max_entries: u64) -> Self {
        self.spec.max_entries = Some(max_entries);
        self
    }

    /// See [`Cache::with_max_bytes`](super::Cache::with_max_bytes).
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.spec.max_bytes = Some(max_bytes);
        self
    }
}

impl<T: Serialize + DeserializeOwned> CacheTx<'_, T> {
    /// See [`CacheStore::get`](super::CacheStore::get).
    pub fn get(&mut self, hash: &str) -> Result<Option<T>> {
        ops::get(self.tx, &self.spec, hash)
    }

    /// See [`CacheStore::set`](super::CacheStore::set).
    pub fn set(&mut self, hash: &str, value: &T, ttl_seconds: i64) -> Result<()> {
        self.store(hash, value, ttl_seconds, None)
    }

    /// See [`CacheStore::delete`](super::CacheStore::delete).
    pub fn delete(&mut self, hash: &str) -> Result<()> {
        ops::delete(self.tx, &self.spec, hash)
    }

    /// See [`CacheStore::clear`](super::CacheStore::clear). It is always one step: when there is
    /// too much for one frame of the log, the transaction answers
    /// [`TooLarge`](crate::Error::TooLarge) and leaves nothing.
    pub fn clear(&mut self, scope: Option<&str>) -> Result<()> {
        let scope = scope.unwrap_or_default();
        ops::clear(self.tx, &self.spec, scope, None, FrameBudget::UNBOUNDED).map(|_| ())
    }

    /// See [`CacheStore::set_with_tags`](super::CacheStore::set_with_tags).
    pub fn set_with_tags(
        &mut self,
        hash: &str,
        value: &T,
        ttl_seconds: i64,
        tags: &[&str],
    ) -> Result<()> {
        self.store(hash, value, ttl_seconds, Some(tags))
    }

    /// See [`CacheStore::invalidate_by_tag`](super::CacheStore::invalidate_by_tag).
    pub fn invalidate_by_tag(&mut self, tag: &str) -> Result<u64> {
        self.invalidate_by_tags(&[tag])
    }

    /// See [`CacheStore::invalidate_by_tags`](super::CacheStore::invalidate_by_tags). One step, as
    /// [`clear`](Self::clear).
    pub fn invalidate_by_tags(&mut self, tags: &[&str]) -> Result<u64> {
        ops::invalidate(self.tx, &self.spec, tags, FrameBudget::UNBOUNDED).map(|done| done.removed)
    }

    fn store(
        &mut self,
        hash: &str,
        value: &T,
        ttl_seconds: i64,
        tags: Option<&[&str]>,
    ) -> Result<()> {
        let json = json::encode(value)?;
        ops::set(self.tx, &self.spec, hash, NewEntry { json: &json, ttl_seconds, tags })
    }
}

impl<T> fmt::Debug for CacheTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheTx")
            .field("max_entry_bytes", &self.spec.max_entry_bytes)
            .finish_non_exhaustive()
    }
}
