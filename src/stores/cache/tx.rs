//! A cache as a transaction sees it.

use super::Ttl;
use super::content::EncodedValue;
use super::ops::{self, NewEntry};
use super::spec::Spec;
use super::state::CacheStates;
use crate::engine::Engine;
use crate::engine::access::Writer;
use crate::error::Result;
use crate::stores::frame::{FrameBudget, StepRange};
use crate::stores::store_tx::StoreTx;
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
    tx: StoreTx<'a>,
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
        Self::of(StoreTx::new(tx), Spec::new(engine, caches, name))
    }

    /// The cache of `spec` in `tx`.
    pub(super) fn of(tx: StoreTx<'a>, spec: Spec) -> Self {
        Self { tx, spec, values: PhantomData }
    }

    /// See [`Cache::with_max_entry_bytes`](super::Cache::with_max_entry_bytes).
    #[must_use]
    pub fn with_max_entry_bytes(mut self, max_entry_bytes: u64) -> Self {
        let checked = self.spec.set_max_entry_bytes(max_entry_bytes);
        Self { tx: self.tx.with(checked), ..self }
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

impl<T: Serialize + DeserializeOwned + 'static> CacheTx<'_, T> {
    /// See [`CacheStore::get`](super::CacheStore::get).
    pub fn get(&mut self, hash: &str) -> Result<Option<T>> {
        ops::get(self.tx.get()?, &self.spec, hash)
    }

    /// See [`CacheStore::set`](super::CacheStore::set).
    pub fn set(&mut self, hash: &str, value: &T, ttl_seconds: i64) -> Result<()> {
        self.store(hash, value, Ttl::of_seconds(ttl_seconds), None)
    }

    /// See [`CacheStore::set_for`](super::CacheStore::set_for).
    pub fn set_for(&mut self, hash: &str, value: &T, ttl: Ttl) -> Result<()> {
        self.store(hash, value, ttl, None)
    }

    /// See [`Cache::set_for_with_tags`](super::Cache::set_for_with_tags).
    pub fn set_for_with_tags(
        &mut self,
        hash: &str,
        value: &T,
        ttl: Ttl,
        tags: &[&str],
    ) -> Result<()> {
        self.store(hash, value, ttl, Some(tags))
    }

    /// See [`CacheStore::delete`](super::CacheStore::delete).
    pub fn delete(&mut self, hash: &str) -> Result<()> {
        ops::delete(self.tx.get()?, &self.spec, hash)
    }

    /// See [`CacheStore::clear`](super::CacheStore::clear). It is always one step: when there is
    /// too much for one frame of the log, the transaction answers
    /// [`TooLarge`](crate::Error::TooLarge) and leaves nothing.
    pub fn clear(&mut self, scope: Option<&str>) -> Result<()> {
        let scope = scope.unwrap_or_default();
        let mut all = StepRange::default();
        ops::clear(self.tx.get()?, &self.spec, scope, &mut all, FrameBudget::UNBOUNDED).map(drop)
    }

    /// See [`CacheStore::set_with_tags`](super::CacheStore::set_with_tags).
    pub fn set_with_tags(
        &mut self,
        hash: &str,
        value: &T,
        ttl_seconds: i64,
        tags: &[&str],
    ) -> Result<()> {
        self.store(hash, value, Ttl::of_seconds(ttl_seconds), Some(tags))
    }

    /// See [`CacheStore::invalidate_by_tag`](super::CacheStore::invalidate_by_tag).
    pub fn invalidate_by_tag(&mut self, tag: &str) -> Result<u64> {
        self.invalidate_by_tags(&[tag])
    }

    /// See [`CacheStore::invalidate_by_tags`](super::CacheStore::invalidate_by_tags). One step, as
    /// [`clear`](Self::clear).
    pub fn invalidate_by_tags(&mut self, tags: &[&str]) -> Result<u64> {
        let mut tags = ops::tagged_with(self.tx.get()?, &self.spec, tags)?;
        ops::invalidate(self.tx.get()?, &self.spec, &mut tags, FrameBudget::UNBOUNDED)
    }

    fn store(&mut self, hash: &str, value: &T, ttl: Ttl, tags: Option<&[&str]>) -> Result<()> {
        let encoded = EncodedValue::of(value)?;
        let new = NewEntry { content: encoded.content(), ttl, tags };
        ops::set(self.tx.get()?, &self.spec, hash, new)
    }
}

impl<T> fmt::Debug for CacheTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheTx")
            .field("max_entry_bytes", &self.spec.max_entry_bytes)
            .finish_non_exhaustive()
    }
}
