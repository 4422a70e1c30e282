//! The jobs of one named store as a transaction sees them.

use super::handle::{default_terms, max_value_bytes};
use super::ops::{self, Terms};
use super::row::{Progress, key_of};
use super::{JobId, Registration};
use crate::engine::access::Writer;
use crate::engine::{Engine, Found};
use crate::error::Result;
use crate::stores::frame::FrameBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;
use ulid::Ulid;

/// The jobs of one named store inside a transaction: the operations of
/// [`DedupeStore`](super::DedupeStore), answering at once and seeing what the transaction has done
/// so far. What they change is kept or lost with the transaction; the callers that wait for a job
/// are woken when the transaction has been kept.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct DedupeTx<'a, T> {
    tx: &'a mut dyn Writer,
    name: &'a str,
    terms: Terms,
    max_value_bytes: usize,
    values: PhantomData<fn(T) -> T>,
}

impl<'a, T: Serialize + DeserializeOwned> DedupeTx<'a, T> {
    /// The store called `name` in `tx`, a transaction of `engine`.
    pub(crate) fn new(tx: &'a mut dyn Writer, engine: &Engine, name: &'a str) -> Self {
        let (terms, max_value_bytes) = (default_terms(engine), max_value_bytes(engine));
        Self { tx, name, terms, max_value_bytes, values: PhantomData }
    }

    /// The same view, with another job timeout. See
    /// [`Dedupe::with_job_timeout`](super::Dedupe::with_job_timeout).
    #[must_use]
    pub fn with_job_timeout(self, job_timeout: Duration) -> Self {
        let terms = Terms { timeout_ms: ops::timeout_ms(job_timeout), ..self.terms };
        Self { terms, ..self }
    }

    /// See [`DedupeStore::register`](super::DedupeStore::register).
    pub fn register(&mut self, hash: &str) -> Result<JobId> {
        Ok(self.register_or_join(hash)?.job_id)
    }

    /// See [`DedupeStore::register_or_join`](super::DedupeStore::register_or_join).
    pub fn register_or_join(&mut self, hash: &str) -> Result<Registration> {
        let key = key_of(self.name, hash)?;
        ops::register_or_join(self.tx, &key, self.terms, Ulid::generate().random())
    }

    /// What [`DedupeStore::wait_for`](super::DedupeStore::wait_for) would answer at once: a
    /// transaction does not wait, so the answer is `None` for a pending job too.
    pub fn wait_for(&mut self, hash: &str) -> Result<Option<T>> {
        let key = key_of(self.name, hash)?;
        match ops::look(self.tx, &key, self.terms.opening_id)? {
            Found::Now(value) => Ok(value),
            Found::Later(..) => Ok(None),
        }
    }

    /// See [`DedupeStore::complete`](super::DedupeStore::complete).
    pub fn complete(&mut self, hash: &str, value: &T) -> Result<()> {
        self.end_with(hash, None, value).map(drop)
    }

    /// See [`DedupeStore::fail`](super::DedupeStore::fail).
    pub fn fail(&mut self, hash: &str, error: &str) -> Result<()> {
        self.end(hash, None, Progress::Failed(ops::kept_of(error))).map(drop)
    }

    /// See [`DedupeStore::is_in_progress`](super::DedupeStore::is_in_progress).
    pub fn is_in_progress(&mut self, hash: &str) -> Result<bool> {
        let key = key_of(self.name, hash)?;
        ops::is_in_progress(self.tx, &key, self.terms.opening_id)
    }

    /// See [`DedupeStore::clear`](super::DedupeStore::clear), but all at once: the transaction is
    /// [`TooLarge`](crate::Error::TooLarge) when there are more jobs than one frame of the log can
    /// name.
    pub fn clear(&mut self, scope: Option<&str>) -> Result<()> {
        let prefix = key_of(self.name, scope.unwrap_or_default())?;
        ops::clear(self.tx, &prefix, None, FrameBudget::UNBOUNDED).map(drop)
    }

    /// See [`DedupeStore::complete_owned`](super::DedupeStore::complete_owned).
    pub fn complete_owned(&mut self, hash: &str, job_id: &JobId, value: &T) -> Result<bool> {
        self.end_with(hash, Some(job_id), value)
    }

    /// See [`DedupeStore::fail_owned`](super::DedupeStore::fail_owned).
    pub fn fail_owned(&mut self, hash: &str, job_id: &JobId, error: &str) -> Result<bool> {
        self.end(hash, Some(job_id), Progress::Failed(ops::kept_of(error)))
    }

    fn end_with(&mut self, hash: &str, job_id: Option<&JobId>, value: &T) -> Result<bool> {
        let json = ops::encode_value(value, self.max_value_bytes)?;
        self.end(hash, job_id, Progress::Completed(&json))
    }

    fn end(&mut self, hash: &str, job_id: Option<&JobId>, progress: Progress<'_>) -> Result<bool> {
        let key = key_of(self.name, hash)?;
        ops::end(self.tx, &key, self.terms, job_id, progress)
    }
}

impl<T> fmt::Debug for DedupeTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedupeTx").field("name", &self.name).finish_non_exhaustive()
    }
}
