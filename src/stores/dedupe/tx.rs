//! The jobs of one named store as a transaction sees them.

use super::handle::max_value_bytes;
use super::ops;
use super::row::{Progress, key_of};
use super::{Dedupe, DedupeStore, Job, JobId, Registration};
use crate::Pending;
use crate::engine::access::Writer;
use crate::engine::{Engine, Found};
use crate::error::Result;
use crate::stores::frame::{FrameBudget, StepRange};
use crate::stores::store_tx::StoreTx;
use crate::unique;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

/// The jobs of one named store inside a transaction: the operations of
/// [`DedupeStore`](super::DedupeStore), answering at once and seeing what the transaction has done
/// so far. What they change is kept or lost with the transaction; the callers that wait for a job
/// are woken when the transaction has been kept.
///
/// An operation that answers an error has changed nothing; the transaction can go on.
pub struct DedupeTx<'a, T> {
    tx: StoreTx<'a>,
    /// The store, with the options of the view.
    store: Dedupe<T>,
    max_value_bytes: usize,
}

impl<T> Dedupe<T> {
    /// The jobs in `tx`, a transaction of `engine`, with the options of this handle.
    pub(crate) fn view<'a>(&self, engine: &Engine, tx: &'a mut dyn Writer) -> DedupeTx<'a, T> {
        DedupeTx::of(self.handle().within(engine, tx), self.clone(), max_value_bytes(engine))
    }
}

impl<'a, T> DedupeTx<'a, T> {
    /// The store called `name` in `tx`, a transaction of `engine`.
    pub(crate) fn new(tx: &'a mut dyn Writer, engine: &Engine, name: &str) -> Self {
        let store = Dedupe::new(engine.clone(), name);
        Self::of(StoreTx::new(tx), store, max_value_bytes(engine))
    }

    /// The view of `store` in `tx`.
    fn of(tx: StoreTx<'a>, store: Dedupe<T>, max_value_bytes: usize) -> Self {
        Self { tx, store, max_value_bytes }
    }

    /// The same view, with another job timeout. See
    /// [`Dedupe::with_job_timeout`](super::Dedupe::with_job_timeout).
    #[must_use]
    pub fn with_job_timeout(self, job_timeout: Duration) -> Self {
        Self { store: self.store.with_job_timeout(job_timeout), ..self }
    }

    fn key(&self, hash: &str) -> Result<Vec<u8>> {
        key_of(self.store.name(), hash)
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> DedupeTx<'_, T> {
    /// See [`DedupeStore::register`](super::DedupeStore::register).
    pub fn register(&mut self, hash: &str) -> Result<JobId> {
        Ok(self.register_or_join(hash)?.job_id)
    }

    /// See [`DedupeStore::register_or_join`](super::DedupeStore::register_or_join).
    pub fn register_or_join(&mut self, hash: &str) -> Result<Registration> {
        let key = self.key(hash)?;
        ops::register_or_join(self.tx.get()?, &key, self.store.terms(), unique::ulid().random())
    }

    /// See [`DedupeStore::own_or_join`](super::DedupeStore::own_or_join). The guard of an owner
    /// outlives the transaction: the job is pending when that was kept, and never was otherwise.
    /// The wait of a joiner begins when it is first waited for or polled, which has to be after the
    /// transaction.
    pub fn own_or_join(&mut self, hash: &str) -> Result<Job<T>> {
        let registration = self.register_or_join(hash)?;
        if registration.is_owner {
            return Ok(self.store.job_of(hash, registration));
        }
        // A transaction cannot wait for a job: the wait begins when it is first looked at.
        let (store, hash) = (self.store.clone(), hash.to_owned());
        Ok(Job::Joiner(Pending::deferred(move || store.wait_for(&hash))))
    }

    /// What [`DedupeStore::wait_for`](super::DedupeStore::wait_for) would answer at once: a
    /// transaction does not wait, so the answer is `None` for a pending job too.
    pub fn wait_for(&mut self, hash: &str) -> Result<Option<T>> {
        let key = self.key(hash)?;
        match ops::look(self.tx.get()?, &key, self.store.terms().opening_id)? {
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
        let key = self.key(hash)?;
        ops::is_in_progress(self.tx.get()?, &key, self.store.terms().opening_id)
    }

    /// See [`DedupeStore::clear`](super::DedupeStore::clear), but all at once: the transaction is
    /// [`TooLarge`](crate::Error::TooLarge) when there are more jobs than one frame of the log can
    /// name.
    pub fn clear(&mut self, scope: Option<&str>) -> Result<()> {
        let prefix = self.key(scope.unwrap_or_default())?;
        let mut all = StepRange::default();
        ops::clear(self.tx.get()?, &prefix, &mut all, FrameBudget::UNBOUNDED).map(drop)
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
        let encoded = ops::encode_value(value, self.max_value_bytes)?;
        self.end(hash, job_id, encoded.content().into())
    }

    fn end(&mut self, hash: &str, job_id: Option<&JobId>, progress: Progress<'_>) -> Result<bool> {
        let key = self.key(hash)?;
        ops::end(self.tx.get()?, &key, self.store.terms(), job_id, progress)
    }
}

impl<T> fmt::Debug for DedupeTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedupeTx").field("name", &self.store.name()).finish_non_exhaustive()
    }
}
