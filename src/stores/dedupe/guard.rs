//! What a caller of `own_or_join` has become, and the guard of an owner.

use super::JobId;
use crate::Pending;
use crate::error::Error;
use std::fmt;
use std::sync::Arc;
use std::thread;

/// What a caller of [`DedupeStore::own_or_join`](super::DedupeStore::own_or_join) has become.
#[derive(Debug)]
#[must_use = "dropping an owner's guard fails the job"]
pub enum Job<T> {
    /// The job is the caller's, who completes or fails it through the guard.
    Owner(JobGuard<T>),
    /// Another caller owns the job: the wait for its value, as that of
    /// [`wait_for`](super::DedupeStore::wait_for).
    Joiner(Pending<Option<T>>),
}

/// The error of a job whose guard was dropped.
const DROPPED: &str = "its owner gave it up";
/// The error of a job whose value could not be stored.
const NOT_STORED: &str = "its value could not be stored";

type CompleteJob<T> = dyn Fn(&T) -> Pending<bool> + Send + Sync;
type FailJob = dyn Fn(&str) -> Pending<bool> + Send + Sync;

/// The ownership of a job. When it is dropped before the job was ended, because the owner panicked
/// or its task was cancelled, the job fails at once, and the callers that wait for it go on.
///
/// It ends this job and no other: when the job has timed out and another caller has taken it over,
/// the guard changes nothing. In a room that was closed it does nothing.
///
/// Dropped inside a transaction of the room, it fails the job when that has ended, from a thread of
/// its own; where the system starts none, the job ends with its timeout.
#[must_use = "dropping it fails the job"]
pub struct JobGuard<T> {
    job_id: JobId,
    ends: Option<(Box<CompleteJob<T>>, Arc<FailJob>)>,
}

impl<T> JobGuard<T> {
    /// The guard of the job `job_id`, as a driver makes it: `complete` and `fail` end this job, and
    /// answer whether they did, as [`complete_owned`](super::DedupeStore::complete_owned) and
    /// [`fail_owned`](super::DedupeStore::fail_owned) do.
    pub fn new(
        job_id: JobId,
        complete: impl Fn(&T) -> Pending<bool> + Send + Sync + 'static,
        fail: impl Fn(&str) -> Pending<bool> + Send + Sync + 'static,
    ) -> Self {
        Self { job_id, ends: Some((Box::new(complete), Arc::new(fail))) }
    }

    /// The job.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.job_id
    }

    /// Ends the job with `value`, and wakes the callers that wait for it. `false` after any end of
    /// the job; then nothing changes.
    ///
    /// A value that cannot be stored is an error as in
    /// [`complete`](super::DedupeStore::complete), and the job fails.
    pub fn complete(mut self, value: &T) -> Pending<bool> {
        let Some((complete, fail)) = self.ends.take() else { return Pending::ready(Ok(false)) };
        let answer = complete(value);
        if answer.failure().is_some() {
            drop(fail(NOT_STORED));
        }
        answer
    }

    /// Ends the job without a value. `false` after any end of the job; then nothing changes.
    pub fn fail(mut self, error: &str) -> Pending<bool> {
        let Some((_, fail)) = self.ends.take() else { return Pending::ready(Ok(false)) };
        fail(error)
    }

    /// Gives the guard up and leaves the job pending, for who ends it by its id.
    pub fn keep(mut self) -> JobId {
        self.ends = None;
        self.job_id
    }
}

impl<T> Drop for JobGuard<T> {
    fn drop(&mut self) {
        let Some((_, fail)) = self.ends.take() else { return };
        let answer = fail(DROPPED);
        if matches!(answer.failure(), Some(Error::NestedTransaction)) {
            // This thread runs a transaction of the room, so another one waits until it has ended.
            // Without a thread the job times out.
            drop(thread::Builder::new().spawn(move || drop(fail(DROPPED))));
        }
    }
}

impl<T> fmt::Debug for JobGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobGuard").field("job_id", &self.job_id).finish_non_exhaustive()
    }
}
