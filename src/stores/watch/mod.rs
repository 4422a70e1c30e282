//! The change feed: what was changed in the stores of a room, in order, as soon as it is durable.

mod change;
mod filter;
mod select;

pub(crate) use change::ChangedRow;
pub use change::{Change, ChangeKind};
pub use filter::WatchFilter;

use crate::engine::{Engine, Feed, NoMore, Selected, Subscription};
use crate::error::{Result, after_failure};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// The changes of a room, from the call of [`Cloakroom::watch`](crate::Cloakroom::watch) on.
///
/// - *What*: every change that passes the [`WatchFilter`], once, in the order of the log. A
///   transaction is shown as what it came to: one change for each entry and thing that happened to
///   it, in the order of the stores and their keys, and what was overwritten within it is not
///   shown.
/// - *When*: when it is durable, whatever the durability of the store. What a crash can take away
///   is never shown. A watch that waits has the log flushed as a [`Sync`](crate::Durability::Sync)
///   caller does, also for changes of [`Os`](crate::Durability::Os) stores, whose callers do not
///   wait for it.
/// - *Slow watchers*: the changes that it has not taken are kept up to the
///   [buffer](WatchFilter::buffer), and no writer ever waits for it. When they are more, it is
///   first given what was kept, then [`WatchError::Overtaken`] once, which says what it missed, and
///   then what comes after that.
/// - *The end*: after the room is closed, it is given the rest and then [`WatchError::Closed`]. It
///   does not keep the room open.
///
/// It is an iterator that blocks, and ends with the room. Nothing polls while it waits. Dropping it
/// frees what was kept.
///
/// It must not be waited for inside a transaction of the same room, which everybody else waits for
/// then.
pub struct Watch {
    changes: Subscription<Change>,
    /// The rest of the transaction that was taken last.
    rest: VecDeque<Change>,
}

/// Why a [`Watch`] gives no change.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The watcher was too slow: changes were committed and will not be shown, at least those of
    /// the transactions at both ends of the range. It is told this once; the watch goes on with
    /// what comes at or after `resumes_at_lsn`. A program that keeps a copy of the entries
    /// should read them again now.
    #[error(
        "overtaken: the changes from LSN {missed_from_lsn} to before LSN {resumes_at_lsn} were missed"
    )]
    Overtaken {
        /// The position of the first transaction that was missed.
        missed_from_lsn: u64,
        /// The position behind the last one.
        resumes_at_lsn: u64,
    },
    /// The log failed. Everything that was durable has been shown; what was not may or may not
    /// survive, and there will be nothing more.
    #[error("poisoned: the log failed ({source}); {}", after_failure(source))]
    Poisoned {
        /// The failure that poisoned the room.
        source: Arc<io::Error>,
    },
    /// The file was removed or replaced while the room was open
    /// ([`Error::Unlinked`](crate::Error::Unlinked)), so nothing more becomes durable.
    #[error(
        "{}: unlinked: this file was removed or replaced while it was open; back the room up to keep what it holds, \
         close it, and open the path again",
        path.display()
    )]
    Unlinked {
        /// The path that no longer leads to the file.
        path: PathBuf,
    },
    /// The room was opened by another process, of which this one is a fork
    /// ([`Error::Forked`](crate::Error::Forked)).
    #[error("forked: this room was opened by another process, of which this one is a fork")]
    Forked,
    /// The room was closed, and everything that came before has been shown.
    #[error("closed: the room was closed")]
    Closed,
}

// A panic elsewhere takes nothing from the queue.
impl UnwindSafe for Watch {}
impl RefUnwindSafe for Watch {}

impl From<NoMore> for WatchError {
    fn from(none: NoMore) -> Self {
        match none {
            NoMore::Overtaken { missed_from_lsn, resumes_at_lsn } => {
                WatchError::Overtaken { missed_from_lsn, resumes_at_lsn }
            }
            NoMore::Poisoned(source) => WatchError::Poisoned { source },
            NoMore::Unlinked(path) => WatchError::Unlinked { path },
            NoMore::Forked => WatchError::Forked,
            NoMore::Closed => WatchError::Closed,
        }
    }
}

impl Watch {
    /// Watches what `filter` lets pass of the room that `engine` runs and `feed` observes.
    pub(crate) fn new(
        engine: &Engine,
        feed: &Arc<Feed<Change>>,
        filter: WatchFilter,
    ) -> Result<Self> {
        let capacity = filter.capacity();
        let changes =
            engine.subscribe(feed, Box::new(move |rows| filter.select(rows)), capacity)?;
        Ok(Self { changes, rest: VecDeque::new() })
    }

    /// The next change, waiting for one.
    ///
    /// # Errors
    /// See [`WatchError`]. After `Overtaken` the next call goes on; the others are for good.
    pub fn recv(&mut self) -> Result<Change, WatchError> {
        loop {
            if let Some(answer) = self.recv_until(None) {
                return answer;
            }
        }
    }

    /// The next change, waiting for at most `timeout`; `None` when none came.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Change>, WatchError> {
        // A time that the clock cannot express never comes.
        match Instant::now().checked_add(timeout) {
            None => self.recv().map(Some),
            deadline => self.recv_until(deadline).transpose(),
        }
    }

    /// The next change that is durable already; `None` when there is none. It does not have the log
    /// flushed, so changes that no other caller has flushed stay undelivered however often this is
    /// called.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Change>, WatchError> {
        if let Some(change) = self.rest.pop_front() {
            return Ok(Some(change));
        }
        match self.changes.try_next() {
            Some(selected) => self.begin(selected).map(Some),
            None => Ok(None),
        }
    }

    /// The next change, as a future that any executor can run. Dropping it loses nothing.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_async(&mut self) -> impl Future<Output = Result<Change, WatchError>> + Send + '_ {
        poll_fn(|context| self.poll_recv(context))
    }

    /// The next change, for a stream or future around this: when it is pending, the
    /// context's waker is called when it should be asked again, and no earlier one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Change, WatchError>> {
        if let Some(change) = self.rest.pop_front() {
            return Poll::Ready(Ok(change));
        }
        self.changes.poll_next(context.waker()).map(|selected| self.begin(selected))
    }

    /// The first change of a transaction; the others wait.
    fn begin(&mut self, selected: Result<Selected<Change>, NoMore>) -> Result<Change, WatchError> {
        let Selected { items, lsn } = selected?;
        self.rest = items.into();
        // The engine keeps no transaction of which nothing passed.
        self.rest
            .pop_front()
            .ok_or(WatchError::Overtaken { missed_from_lsn: lsn, resumes_at_lsn: lsn + 1 })
    }

    fn recv_until(&mut self, deadline: Option<Instant>) -> Option<Result<Change, WatchError>> {
        match self.try_recv() {
            Ok(None) => {}
            answer => return answer.transpose(),
        }
        let sleeper =
            Arc::new(Sleeper { thread: thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&sleeper));
        loop {
            if let Poll::Ready(answer) = self.poll_recv(&mut Context::from_waker(&waker)) {
                return Some(answer);
            }
            if !sleeper.sleep(deadline) {
                self.changes.stop_waiting();
                return None;
            }
        }
    }
}

impl Iterator for Watch {
    type Item = Result<Change, WatchError>;

    /// The next change, waiting for one; `None` when the room is closed.
    fn next(&mut self) -> Option<Self::Item> {
        match self.recv() {
            Err(WatchError::Closed) => None,
            answer => Some(answer),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}

/// A thread that waits for a change.
struct Sleeper {
    thread: Thread,
    woken: AtomicBool,
}

impl Sleeper {
    /// Sleeps until it is woken, or answers `false` when the deadline has passed.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.woken.swap(false, Ordering::Acquire) {
                return true;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return false,
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
