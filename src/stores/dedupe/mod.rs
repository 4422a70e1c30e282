//! Deduplication: of many callers that want the same thing, one fetches it and the others wait for
//! it.

mod guard;
mod handle;
mod job;
mod lines;
mod ops;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod sweep;
mod tx;

pub use guard::{Job, JobGuard};
pub use handle::Dedupe;
pub use job::{JobId, JobIdParseError};
pub use tx::DedupeTx;

use crate::Pending;
use crate::stores::hidden::Hidden;
use std::fmt;
use std::sync::Arc;

/// A store of jobs in flight, each under the hash of what it is to fetch.
///
/// A job begins with [`register`](Self::register) or [`register_or_join`](Self::register_or_join)
/// and is *pending* until its first end: [`complete`](Self::complete), [`fail`](Self::fail),
/// [`clear`](Self::clear), or its timeout. Whatever comes after the first end changes nothing. A
/// finished job is kept for the job timeout from its end, for callers that ask late. After that it
/// is as if it had never existed.
///
/// The handle in a room is [`Dedupe`]; its default timeout is
/// [`DEFAULT_JOB_TIMEOUT`](crate::limits::DEFAULT_JOB_TIMEOUT). There, a job left pending by an
/// earlier opening of the file counts as failed: a process that died while it owned a job blocks no
/// other.
///
/// Every method has applied its change, in order, when it returns; the [`Pending`] waits for its
/// durability and, in [`wait_for`](Self::wait_for), for the end of the job. It says what a call may
/// wait for.
///
/// # Errors
/// Of every method: [`TooLarge`](crate::Error::TooLarge) when the hash (or scope), or the name of
/// the store, is over [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN), and the errors of a write to the
/// log. Nothing was applied, unless the error is
/// [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
pub trait DedupeStore<T>: Send + Sync {
    /// The job under `hash`: the pending one, or else a new one. As
    /// [`register_or_join`](Self::register_or_join), for callers that know they are the owner.
    fn register(&self, hash: &str) -> Pending<JobId>;

    /// The job under `hash`: the pending one, or else a new one, which is the caller's. Of any
    /// number of concurrent callers exactly one is the owner; the others get the same job id.
    fn register_or_join(&self, hash: &str) -> Pending<Registration>;

    /// As [`register_or_join`](Self::register_or_join), and answers what the caller needs next: a
    /// guard that ends the job, also when it is dropped, or the wait for the owner's value.
    ///
    /// Dropping the [`Pending`] of an owner drops its guard.
    fn own_or_join(&self, hash: &str) -> Pending<Job<T>>;

    /// The value of the job under `hash`, once it has one: at once when the job is completed,
    /// otherwise when its owner completes it.
    ///
    /// `None`, and never an error, when there is no job, and when it fails, is cleared, times out,
    /// or left a value that is no `T`; also when the room closes meanwhile. Dropping the
    /// [`Pending`] ends the wait and leaves nothing behind.
    fn wait_for(&self, hash: &str) -> Pending<Option<T>>;

    /// Ends the pending job under `hash` with `value`, and wakes the callers that wait for it.
    /// Changes nothing when there is none.
    ///
    /// [`Encode`](crate::Error::Encode) when the value has no JSON, or one that is nested deeper
    /// than [`MAX_STATE_DEPTH`](crate::limits::MAX_STATE_DEPTH) or would be read back as another
    /// value or none, such as a float that is not finite; and
    /// [`TooLarge`](crate::Error::TooLarge) when a segment of the log cannot hold it; then the job
    /// is still pending.
    fn complete(&self, hash: &str, value: &T) -> Pending<()>;

    /// Ends the pending job under `hash` without a value; the callers that wait for it get `None`.
    /// Changes nothing when there is none. `error` is kept for [`Dedupe::list`], its first
    /// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN) bytes.
    fn fail(&self, hash: &str, error: &str) -> Pending<()>;

    /// Whether the job under `hash` is pending.
    fn is_in_progress(&self, hash: &str) -> Pending<bool>;

    /// Removes every job whose hash begins with `scope`, literally, or every one without a scope.
    /// The callers that wait for one of them get `None`. Very many jobs are removed in several
    /// steps, between which other calls may look.
    fn clear(&self, scope: Option<&str>) -> Pending<()>;

    /// As [`complete`](Self::complete), if the pending job is this one. `false` after any end of
    /// the job, whether or not another caller has taken it over since; then nothing changes.
    fn complete_owned(&self, hash: &str, job_id: &JobId, value: &T) -> Pending<bool>;

    /// As [`fail`](Self::fail), if the pending job is this one. `false` exactly when
    /// [`complete_owned`](Self::complete_owned) would answer `false`.
    fn fail_owned(&self, hash: &str, job_id: &JobId, error: &str) -> Pending<bool>;
}

/// What a caller of [`DedupeStore::register_or_join`] has become.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registration {
    /// The job.
    pub job_id: JobId,
    /// Whether the job is the caller's, who must complete or fail it; otherwise another caller
    /// does.
    pub is_owner: bool,
}

impl Registration {
    /// The registration of the caller who owns the job, as a driver answers it.
    #[must_use]
    pub fn owner(job_id: JobId) -> Self {
        Self { job_id, is_owner: true }
    }

    /// The registration of a caller who joins the job of another one, as a driver answers it.
    #[must_use]
    pub fn joiner(job_id: JobId) -> Self {
        Self { job_id, is_owner: false }
    }
}

/// How far a job has come.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// Its owner works on it.
    Pending,
    /// It left a value.
    Completed {
        /// The size of the stored value in bytes.
        bytes: u64,
    },
    /// It failed.
    Failed {
        /// What its owner said, or why it counts as failed.
        error: String,
    },
}

/// Keeps what an owner said to itself.
impl fmt::Debug for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobState::Pending => f.write_str("Pending"),
            JobState::Completed { bytes } => {
                f.debug_struct("Completed").field("bytes", bytes).finish()
            }
            JobState::Failed { error } => {
                f.debug_struct("Failed").field("error", &Hidden::bytes(error)).finish()
            }
        }
    }
}

/// A job in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DedupeEntry {
    /// What it is registered under.
    pub hash: String,
    /// The job.
    pub job_id: JobId,
    /// How far it has come.
    pub state: JobState,
    /// When it was registered, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When a pending job times out and another one is forgotten, in milliseconds since the Unix
    /// epoch; `None` for never.
    pub ends_at_ms: Option<u64>,
}

/// What a deduplicating store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DedupeStats {
    /// Jobs that an owner works on.
    pub pending: u64,
    /// Jobs that left a value.
    pub completed: u64,
    /// Jobs that failed, and those left pending by an earlier opening.
    pub failed: u64,
    /// Jobs that have timed out or are forgotten, and were not swept yet.
    pub expired: u64,
    /// Bytes of keys and values of all these, those not swept yet included; index rows are not
    /// counted.
    pub bytes: u64,
    /// Calls that wait for a job to end, in this process.
    pub waiters: u64,
}

/// A shared store is a store.
impl<T, S: DedupeStore<T> + ?Sized> DedupeStore<T> for Arc<S> {
    fn register(&self, hash: &str) -> Pending<JobId> {
        (**self).register(hash)
    }

    fn register_or_join(&self, hash: &str) -> Pending<Registration> {
        (**self).register_or_join(hash)
    }

    fn own_or_join(&self, hash: &str) -> Pending<Job<T>> {
        (**self).own_or_join(hash)
    }

    fn wait_for(&self, hash: &str) -> Pending<Option<T>> {
        (**self).wait_for(hash)
    }

    fn complete(&self, hash: &str, value: &T) -> Pending<()> {
        (**self).complete(hash, value)
    }

    fn fail(&self, hash: &str, error: &str) -> Pending<()> {
        (**self).fail(hash, error)
    }

    fn is_in_progress(&self, hash: &str) -> Pending<bool> {
        (**self).is_in_progress(hash)
    }

    fn clear(&self, scope: Option<&str>) -> Pending<()> {
        (**self).clear(scope)
    }

    fn complete_owned(&self, hash: &str, job_id: &JobId, value: &T) -> Pending<bool> {
        (**self).complete_owned(hash, job_id, value)
    }

    fn fail_owned(&self, hash: &str, job_id: &JobId, error: &str) -> Pending<bool> {
        (**self).fail_owned(hash, job_id, error)
    }
}
