//! The jobs of one named store of a room.

use super::ops::{self, Terms};
use super::row::{JOB_ROW_OVERHEAD, Progress, key_of, prefix_of};
use super::{DedupeEntry, DedupeStats, DedupeStore, JobId, Registration};
use crate::Pending;
use crate::codec::key::prefix_end;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::error::Result;
use crate::limits::DEFAULT_JOB_TIMEOUT;
use crate::stores::frame::{FrameStep, in_frames};
use crate::stores::page::{Cursor, Page};
use crate::tables::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use ulid::Ulid;

/// The jobs of one named store of a room: a [`DedupeStore`]. A cheap clone.
///
/// Stores of different names never see each other's jobs. Values are kept as JSON, so a handle of
/// another `T` under the same name gets `None` for what is no `T` of its own.
///
/// ```
/// use cloakroom::Cloakroom;
/// use cloakroom::dedupe::DedupeStore;
/// let room = Cloakroom::builder().open_in_memory()?;
/// let jobs = room.dedupe::<String>("http");
/// assert!(jobs.register_or_join("GET /weather").wait()?.is_owner);
/// // Every other caller joins, and waits for the owner.
/// assert!(!jobs.register_or_join("GET /weather").wait()?.is_owner);
/// let waiting = jobs.wait_for("GET /weather");
/// jobs.complete("GET /weather", &"rain".to_owned()).wait()?;
/// assert_eq!(waiting.wait()?.as_deref(), Some("rain"));
/// # Ok::<(), cloakroom::Error>(())
/// ```
pub struct Dedupe<T> {
    engine: Engine,
    name: Arc<str>,
    durability: Durability,
    terms: Terms,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Dedupe<T> {
    fn clone(&self) -> Self {
        let (engine, name) = (self.engine.clone(), Arc::clone(&self.name));
        Self { engine, name, durability: self.durability, terms: self.terms, values: PhantomData }
    }
}

impl<T> Dedupe<T> {
    /// The store called `name` in the room that `engine` runs.
    pub(crate) fn new(engine: Engine, name: &str) -> Self {
        let terms = default_terms(&engine);
        Self { engine, name: name.into(), durability: Durability::Os, terms, values: PhantomData }
    }

    /// The same store, whose answers wait for this durability. The default is [`Durability::Os`]:
    /// jobs in flight die with their process anyway.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// The same store. A job registered through this handle times out after this long, and one
    /// ended through it is kept so long from its end. It is rounded up to milliseconds; zero means
    /// never. The default is [`DEFAULT_JOB_TIMEOUT`].
    #[must_use]
    pub fn with_job_timeout(self, job_timeout: Duration) -> Self {
        let terms = Terms { timeout_ms: ops::timeout_ms(job_timeout), ..self.terms };
        Self { terms, ..self }
    }

    /// Up to `limit` jobs after `cursor`, or from the first one without a cursor, in byte order of
    /// their hashes.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another store;
    /// [`TooLarge`](crate::Error::TooLarge) for a name over
    /// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN).
    pub fn list(&self, cursor: Option<&Cursor>, limit: usize) -> Pending<Page<DedupeEntry>> {
        let opening_id = self.terms.opening_id;
        self.engine
            .read(self.durability, |rows| ops::list(rows, &self.name, opening_id, cursor, limit))
    }

    /// Counts every job, by reading every one of them: the cost grows with what is stored, and
    /// other callers do not wait meanwhile.
    pub fn stats(&self) -> Pending<DedupeStats> {
        self.engine.read(self.durability, |rows| {
            let prefix = prefix_of(&self.name)?;
            let waiters =
                self.engine.waiters(Table::DEDUPE_JOB, &prefix, prefix_end(&prefix).as_deref());
            Ok(DedupeStats {
                waiters: waiters as u64,
                ..ops::stats(rows, &self.name, self.terms.opening_id)?
            })
        })
    }

    /// Ends a job, and answers what `answer` makes of whether it did.
    fn end<R>(
        &self,
        hash: &str,
        job_id: Option<&JobId>,
        progress: Result<Progress<'_>>,
        answer: fn(bool) -> R,
    ) -> Pending<R> {
        let (key, progress) = match key_of(&self.name, hash).and_then(|key| Ok((key, progress?))) {
            Ok(checked) => checked,
            Err(error) => return Pending::ready(Err(error)),
        };
        self.engine.transact(self.durability, &[(Table::DEDUPE_JOB, &key)], |tx| {
            ops::end(tx, &key, self.terms, job_id, progress).map(answer)
        })
    }
}

/// The terms of a handle without options.
pub(super) fn default_terms(engine: &Engine) -> Terms {
    Terms { opening_id: engine.opening_id(), timeout_ms: ops::timeout_ms(DEFAULT_JOB_TIMEOUT) }
}

/// The most bytes of JSON that fit in a row.
pub(super) fn max_value_bytes(engine: &Engine) -> usize {
    engine.max_row_bytes().saturating_sub(JOB_ROW_OVERHEAD)
}

impl<T> fmt::Debug for Dedupe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedupe")
            .field("name", &self.name)
            .field("durability", &self.durability)
            .field("job_timeout_ms", &self.terms.timeout_ms)
            .finish_non_exhaustive()
    }
}

/// The key of `hash`, or else an answer that says why there is none.
macro_rules! key_or_answer {
    ($store:expr, $hash:expr) => {
        match key_of(&$store.name, $hash) {
            Ok(key) => key,
            Err(error) => return Pending::ready(Err(error)),
        }
    };
}

impl<T: Serialize + DeserializeOwned + Send + 'static> DedupeStore<T> for Dedupe<T> {
    fn register(&self, hash: &str) -> Pending<JobId> {
        let key = key_or_answer!(self, hash);
        let random = Ulid::generate().random();
        self.engine.transact(self.durability, &[(Table::DEDUPE_JOB, &key)], |tx| {
            Ok(ops::register_or_join(tx, &key, self.terms, random)?.job_id)
        })
    }

    fn register_or_join(&self, hash: &str) -> Pending<Registration> {
        let key = key_or_answer!(self, hash);
        let random = Ulid::generate().random();
        self.engine.transact(self.durability, &[(Table::DEDUPE_JOB, &key)], |tx| {
            ops::register_or_join(tx, &key, self.terms, random)
        })
    }

    fn wait_for(&self, hash: &str) -> Pending<Option<T>> {
        let key = key_or_answer!(self, hash);
        self.engine.await_row(
            self.durability,
            Table::DEDUPE_JOB,
            &key,
            |rows| ops::look(rows, &key, self.terms.opening_id),
            ops::value_of,
        )
    }

    fn complete(&self, hash: &str, value: &T) -> Pending<()> {
        let json = ops::encode_value(value, max_value_bytes(&self.engine));
        self.end(hash, None, as_completed(&json), drop)
    }

    fn fail(&self, hash: &str, error: &str) -> Pending<()> {
        self.end(hash, None, Ok(Progress::Failed(ops::kept_of(error))), drop)
    }

    fn is_in_progress(&self, hash: &str) -> Pending<bool> {
        let key = key_or_answer!(self, hash);
        self.engine
            .read(self.durability, |rows| ops::is_in_progress(rows, &key, self.terms.opening_id))
    }

    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        let prefix = key_or_answer!(self, scope.unwrap_or_default());
        let mut after = None;
        in_frames(&self.engine, self.durability, |tx, budget| {
            after = ops::clear(tx, &prefix, after.take(), budget)?;
            Ok(FrameStep { answer: (), is_last: after.is_none() })
        })
    }

    fn complete_owned(&self, hash: &str, job_id: &JobId, value: &T) -> Pending<bool> {
        let json = ops::encode_value(value, max_value_bytes(&self.engine));
        self.end(hash, Some(job_id), as_completed(&json), |ended| ended)
    }

    fn fail_owned(&self, hash: &str, job_id: &JobId, error: &str) -> Pending<bool> {
        self.end(hash, Some(job_id), Ok(Progress::Failed(ops::kept_of(error))), |ended| ended)
    }
}

fn as_completed(json: &Result<Vec<u8>>) -> Result<Progress<'_>> {
    match json {
        Ok(json) => Ok(Progress::Completed(json)),
        Err(error) => Err(error.clone()),
    }
}
