//! The jobs of one named store of a room.

use super::ops::{self, Terms};
use super::row::{JOB_ROW_OVERHEAD, Progress, key_of, prefix_of};
use super::{DedupeEntry, DedupeStats, DedupeStore, Job, JobGuard, JobId, Registration};
use crate::Pending;
use crate::codec::key::prefix_end;
use crate::durability::Durability;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::limits::DEFAULT_JOB_TIMEOUT;
use crate::stores::cache::content::EncodedValue;
use crate::stores::frame::{FrameStep, StepRange, in_steps};
use crate::stores::page::{Cursor, Page};
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;
use crate::unique;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

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
    handle: StoreHandle,
    name: Arc<str>,
    terms: Terms,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Dedupe<T> {
    fn clone(&self) -> Self {
        let (handle, name) = (self.handle.clone(), Arc::clone(&self.name));
        Self { handle, name, terms: self.terms, values: PhantomData }
    }
}

impl<T> Dedupe<T> {
    /// The store called `name` in the room that `engine` runs.
    pub(crate) fn new(engine: Engine, name: &str) -> Self {
        let terms = default_terms(&engine);
        let handle = StoreHandle::new(engine, Durability::Os);
        Self { handle, name: name.into(), terms, values: PhantomData }
    }

    /// The same store, whose answers wait for this durability. The default is [`Durability::Os`]:
    /// jobs in flight die with their process anyway.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability), ..self }
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
        self.handle.read(|rows| ops::list(rows, &self.name, opening_id, cursor, limit))
    }

    /// Counts every job, by reading every one of them: the cost grows with what is stored, and
    /// other callers do not wait meanwhile.
    pub fn stats(&self) -> Pending<DedupeStats> {
        self.handle.read(|rows| {
            let prefix = prefix_of(&self.name)?;
            let waiters = self.handle.engine().waiters(
                Table::DEDUPE_JOB,
                &prefix,
                prefix_end(&prefix).as_deref(),
            );
            Ok(DedupeStats {
                waiters: waiters as u64,
                ..ops::stats(rows, &self.name, self.terms.opening_id)?
            })
        })
    }

    pub(super) fn handle(&self) -> &StoreHandle {
        &self.handle
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms
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
        self.handle.transact(&[(Table::DEDUPE_JOB, &key)], |tx| {
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
            .field("durability", &self.handle.durability())
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

impl<T: Serialize + DeserializeOwned + Send + 'static> Dedupe<T> {
    /// What a caller with this registration has become.
    pub(super) fn job_of(&self, hash: &str, registration: Registration) -> Job<T> {
        let Registration { job_id, is_owner } = registration;
        if !is_owner {
            return Job::Joiner(self.wait_for(hash));
        }
        let (completing, failing) = (self.clone(), self.clone());
        let (hash, of_failing) = (Arc::<str>::from(hash), Arc::<str>::from(hash));
        Job::Owner(JobGuard::new(
            job_id,
            move |value| completing.complete_owned(&hash, &job_id, value),
            move |error| failing.fail_owned(&of_failing, &job_id, error),
        ))
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> DedupeStore<T> for Dedupe<T> {
    fn register(&self, hash: &str) -> Pending<JobId> {
        let key = key_or_answer!(self, hash);
        let random = unique::ulid().random();
        self.handle.transact(&[(Table::DEDUPE_JOB, &key)], |tx| {
            Ok(ops::register_or_join(tx, &key, self.terms, random)?.job_id)
        })
    }

    fn register_or_join(&self, hash: &str) -> Pending<Registration> {
        let key = key_or_answer!(self, hash);
        let random = unique::ulid().random();
        self.handle.transact(&[(Table::DEDUPE_JOB, &key)], |tx| {
            ops::register_or_join(tx, &key, self.terms, random)
        })
    }

    fn own_or_join(&self, hash: &str) -> Pending<Job<T>> {
        let key = key_or_answer!(self, hash);
        let random = unique::ulid().random();
        let mut registered = None;
        let registration = self.handle.transact(&[(Table::DEDUPE_JOB, &key)], |tx| {
            registered = Some(ops::register_or_join(tx, &key, self.terms, random)?);
            Ok::<_, Error>(())
        });
        // After a call that failed there is nothing to guard.
        let registered = registered.filter(|_| !registration.has_failed());
        // Whichever it is, it is made now: a caller that drops the answer has been an owner.
        let job = registered.map(|registered| self.job_of(hash, registered));
        registration.then(|registered| {
            registered?;
            job.ok_or(Error::Unanswered)
        })
    }

    fn wait_for(&self, hash: &str) -> Pending<Option<T>> {
        let key = key_or_answer!(self, hash);
        let engine = match self.handle.checked() {
            Ok(engine) => engine,
            Err(refused) => return Pending::ready(Err(refused)),
        };
        engine.await_row(
            self.handle.durability(),
            Table::DEDUPE_JOB,
            &key,
            |rows| ops::look(rows, &key, self.terms.opening_id),
            ops::value_of,
        )
    }

    fn complete(&self, hash: &str, value: &T) -> Pending<()> {
        let encoded = ops::encode_value(value, max_value_bytes(self.handle.engine()));
        self.end(hash, None, as_completed(&encoded), drop)
    }

    fn fail(&self, hash: &str, error: &str) -> Pending<()> {
        self.end(hash, None, Ok(Progress::Failed(ops::kept_of(error))), drop)
    }

    fn is_in_progress(&self, hash: &str) -> Pending<bool> {
        let key = key_or_answer!(self, hash);
        self.handle.read(|rows| ops::is_in_progress(rows, &key, self.terms.opening_id))
    }

    /// Removes every job that was there when the call began, in steps of some hundreds of jobs in
    /// the order of the hashes. Between two steps other callers go on: they see which jobs are gone
    /// already, and one that they register meanwhile stays, or goes if its hash was still to come.
    /// An error, or a crash before the answer, leaves the rest in place. In `atomically` it is one
    /// step. When the call returns, all steps are done, unless the log is full: then a thread does
    /// the rest, and only the answer says that nothing is left.
    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        let prefix = key_or_answer!(self, scope.unwrap_or_default());
        let mut found = None;
        let listed = self.handle.read(|rows| {
            found = StepRange::of(rows, Table::DEDUPE_JOB, &prefix)?;
            Ok(())
        });
        if listed.has_failed() {
            return listed;
        }
        in_steps(&self.handle, move |tx, budget| {
            let is_last = match &mut found {
                Some(range) => ops::clear(tx, &prefix, range, budget)?,
                None => true,
            };
            Ok(FrameStep { answer: (), is_last })
        })
    }

    fn complete_owned(&self, hash: &str, job_id: &JobId, value: &T) -> Pending<bool> {
        let encoded = ops::encode_value(value, max_value_bytes(self.handle.engine()));
        self.end(hash, Some(job_id), as_completed(&encoded), |ended| ended)
    }

    fn fail_owned(&self, hash: &str, job_id: &JobId, error: &str) -> Pending<bool> {
        self.end(hash, Some(job_id), Ok(Progress::Failed(ops::kept_of(error))), |ended| ended)
    }
}

fn as_completed<'a>(encoded: &'a Result<EncodedValue<'_>>) -> Result<Progress<'a>> {
    match encoded {
        Ok(encoded) => Ok(encoded.content().into()),
        Err(error) => Err(error.clone()),
    }
}
