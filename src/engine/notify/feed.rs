//! The change feed: every committed transaction, in order, to those who watch.
//!
//! # Why the order is that of the log
//! A transaction is shown to the watchers under the serial lock, when its frame has its position
//! (LSN). Each takes out what it wants and keeps it in a queue of its own.
//!
//! # Why nothing is shown that a crash can take away
//! A watcher is given the first transaction of its queue when the log says that its frame is
//! durable, and waits for that like any other task. Frames become durable in order, so the first
//! one is the one to wait for.
//!
//! # Why no writer waits for a watcher
//! A queue holds so many changes and no more. A transaction that does not fit begins a gap, which
//! goes on until the watcher has taken everything before it and was told of it; what is committed
//! meanwhile is counted and not kept. A transaction that finds the queue empty is taken whatever
//! its size, which a segment of the log limits.

use crate::engine::kernel::{
    CommitObserver, CommittedRows, HeldInterest, Interest, Kernel, Wakeup,
};
use crate::error::{Result, unlinked_path};
use crate::fault::DeliberateFault;
use crate::log::{Log, WaitTicket};
use crate::observe;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// What a watcher wants of a transaction. Called under the serial lock: it must be short and call
/// nothing of others.
pub(crate) type Select<T> = dyn Fn(CommittedRows<'_>) -> Vec<T> + Send + Sync;

/// All watchers of a room. `T` is what they keep of a changed row.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    listed: Mutex<Vec<Listed<T>>>,
    overtaken: AtomicU64,
    /// Held once for each watcher.
    interest: Interest,
}

#[derive(Debug)]
struct Listed<T> {
    queue: Arc<Queue<T>>,
    _interest: HeldInterest,
}

/// What is shown at one moment.
pub(crate) struct FeedStats {
    pub(crate) watchers: u64,
    pub(crate) buffered: u64,
    pub(crate) lag: u64,
    pub(crate) overtaken: u64,
}

impl<T> Feed<T> {
    /// A feed without watchers, which holds `interest` while it has some.
    pub(crate) fn new(interest: Interest) -> Self {
        Self { listed: Mutex::default(), overtaken: AtomicU64::new(0), interest }
    }

    /// Has every watcher look again, because there is nothing more to come or the log has failed.
    /// `closed` tells which.
    fn rouse(&self, closed: bool) -> Vec<Wakeup> {
        let listed = self.listed.lock();
        let wakers = listed.iter().filter_map(|listed| listed.queue.rouse(closed));
        wakers.map(Wakeup::Task).collect()
    }

    /// What is shown when the newest transaction is at `newest_lsn`.
    pub(crate) fn stats(&self, newest_lsn: u64) -> FeedStats {
        let listed = self.listed.lock();
        let behind: Vec<_> = listed.iter().map(|listed| listed.queue.behind()).collect();
        let lag = |from_lsn: u64| (newest_lsn + 1).saturating_sub(from_lsn);
        FeedStats {
            watchers: listed.len() as u64,
            buffered: behind.iter().map(|behind| behind.buffered as u64).sum(),
            lag: behind
                .iter()
                .filter_map(|behind| behind.from_lsn.map(lag))
                .max()
                .unwrap_or_default(),
            overtaken: self.overtaken.load(Ordering::Relaxed),
        }
    }

    /// The caller holds the serial lock, so that the watcher misses nothing.
    fn add(&self, queue: Arc<Queue<T>>) {
        self.listed.lock().push(Listed { queue, _interest: self.interest.hold() });
    }

    fn remove(&self, queue: &Arc<Queue<T>>) {
        let mut listed = self.listed.lock();
        let at = listed.iter().position(|listed| Arc::ptr_eq(&listed.queue, queue));
        let removed = at.map(|at| listed.remove(at));
        drop(listed);
        drop(removed);
    }
}

impl<T: fmt::Debug + Send> CommitObserver for Feed<T> {
    /// Shows the transaction to the watchers.
    fn committed(&self, rows: CommittedRows<'_>) -> Vec<Wakeup> {
        let mut wakeups = Vec::new();
        for listed in &*self.listed.lock() {
            let shown = listed.queue.show(rows);
            self.overtaken.fetch_add(u64::from(shown.overtaken), Ordering::Relaxed);
            wakeups.extend(shown.waker.map(Wakeup::Task));
        }
        wakeups
    }

    fn failed(&self) -> Vec<Wakeup> {
        self.rouse(false)
    }

    fn closed(&self) -> Vec<Wakeup> {
        self.rouse(true)
    }
}

/// What a queue did with a transaction that was shown.
struct Shown {
    waker: Option<Waker>,
    /// Whether a gap began with it.
    overtaken: bool,
}

/// What a watcher has not taken yet.
struct Behind {
    buffered: usize,
    /// The position of the first transaction of it.
    from_lsn: Option<u64>,
}

/// What a watcher keeps of one transaction: at least one item.
#[derive(Debug)]
pub(crate) struct Selected<T> {
    pub(crate) lsn: u64,
    pub(crate) items: Vec<T>,
}

/// Transactions that were not kept.
#[derive(Debug, Clone, Copy)]
struct Gap {
    from_lsn: u64,
    last_lsn: u64,
}

struct Queue<T> {
    select: Box<Select<T>>,
    /// How many items it holds at the most, unless they are of one transaction.
    capacity: usize,
    state: Mutex<QueueState<T>>,
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

struct QueueState<T> {
    waiting: VecDeque<Selected<T>>,
    /// How many items these have together.
    items: usize,
    gap: Option<Gap>,
    waker: Option<Waker>,
    closed: bool,
}

impl<T> Queue<T> {
    fn show(&self, rows: CommittedRows<'_>) -> Shown {
        let items = (self.select)(rows);
        if items.is_empty() {
            return Shown { waker: None, overtaken: false };
        }
        let mut state = self.state.lock();
        let mut overtaken = false;
        if let Some(gap) = &mut state.gap {
            gap.last_lsn = rows.lsn;
        } else if !state.waiting.is_empty() && state.items + items.len() > self.capacity {
            state.gap = Some(Gap { from_lsn: rows.lsn, last_lsn: rows.lsn });
            overtaken = true;
        } else {
            state.items += items.len();
            state.waiting.push_back(Selected { lsn: rows.lsn, items });
        }
        let waker = if DeliberateFault::LoseWatcher.is_on() { None } else { state.waker.take() };
        Shown { waker, overtaken }
    }

    fn rouse(&self, closed: bool) -> Option<Waker> {
        let mut state = self.state.lock();
        state.closed |= closed;
        state.waker.take()
    }

    fn behind(&self) -> Behind {
        let state = self.state.lock();
        let first = state.waiting.front().map(|selected| selected.lsn);
        Behind { buffered: state.items, from_lsn: first.or(state.gap.map(|gap| gap.from_lsn)) }
    }
}

/// Why a watcher is given no transaction.
#[derive(Debug, Clone)]
pub(crate) enum NoMore {
    /// It was too slow; it goes on behind what it missed.
    Overtaken { missed_from_lsn: u64, resumes_at_lsn: u64 },
    /// The log failed, and what is not durable may never be.
    Poisoned(Arc<io::Error>),
    /// The file was removed or replaced, so nothing more becomes durable.
    Unlinked(PathBuf),
    /// This is a fork of the process that opened the room.
    Forked,
    /// The engine was closed, and everything durable was given.
    Closed,
}

impl NoMore {
    /// After the log has failed.
    fn after(failure: &Arc<io::Error>) -> Self {
        match unlinked_path(failure) {
            Some(path) => NoMore::Unlinked(path.clone()),
            None => NoMore::Poisoned(Arc::clone(failure)),
        }
    }
}

/// A place in the stream of transactions. It does not keep the engine open.
pub(crate) struct Subscription<T> {
    feed: Arc<Feed<T>>,
    log: Arc<Log>,
    queue: Arc<Queue<T>>,
    /// The registration of the wait for the log.
    ticket: Option<WaitTicket>,
}

/// What stands first in a queue.
enum First {
    Nothing,
    At(u64),
}

impl<T> Subscription<T> {
    /// The next transaction that is durable, if there is one now.
    pub(crate) fn try_next(&mut self) -> Option<Result<Selected<T>, NoMore>> {
        if self.log.has_forked() {
            return Some(Err(NoMore::Forked));
        }
        match self.first(None) {
            Ok(First::Nothing) => None,
            Ok(First::At(lsn)) if self.log.durable() >= lsn => self.take().map(Ok),
            Ok(First::At(_)) => {
                let failure = self.log.failure()?;
                Some(Err(NoMore::after(failure)))
            }
            Err(none) => Some(Err(none)),
        }
    }

    /// The next transaction, or else `waker` is called when there may be one, instead of the one
    /// given before.
    pub(crate) fn poll_next(&mut self, waker: &Waker) -> Poll<Result<Selected<T>, NoMore>> {
        if self.log.has_forked() {
            return Poll::Ready(Err(NoMore::Forked));
        }
        let lsn = match self.first(Some(waker)) {
            Ok(First::Nothing) => return Poll::Pending,
            Ok(First::At(lsn)) => lsn,
            Err(none) => return Poll::Ready(Err(none)),
        };
        match self.log.poll_patiently(lsn, &mut self.ticket, waker) {
            None => Poll::Pending,
            Some(Ok(())) => match self.take() {
                Some(selected) => Poll::Ready(Ok(selected)),
                None => Poll::Pending,
            },
            Some(Err(error)) => {
                let unknown = || Arc::new(io::Error::other(error.to_string()));
                let failure = self.log.failure().map_or_else(unknown, Arc::clone);
                Poll::Ready(Err(NoMore::after(&failure)))
            }
        }
    }

    /// What stands first; when nothing does, `waker` is called when something may.
    fn first(&self, waker: Option<&Waker>) -> Result<First, NoMore> {
        // Before the queue is looked at: what was durable before a failure was in the queue before
        // it.
        let failure = self.log.failure();
        let mut state = self.queue.state.lock();
        if let Some(first) = state.waiting.front() {
            return Ok(First::At(first.lsn));
        }
        if let Some(gap) = state.gap.take() {
            drop(state);
            let (missed_from_lsn, resumes_at_lsn) = (gap.from_lsn, gap.last_lsn + 1);
            observe::overtaken(missed_from_lsn, resumes_at_lsn);
            return Err(NoMore::Overtaken { missed_from_lsn, resumes_at_lsn });
        }
        if let Some(failure) = failure {
            return Err(NoMore::after(failure));
        }
        if state.closed {
            return Err(NoMore::Closed);
        }
        let old = waker.and_then(|waker| state.waker.replace(waker.clone()));
        drop(state);
        // Dropping a waker may run code of others.
        drop(old);
        Ok(First::Nothing)
    }

    fn take(&self) -> Option<Selected<T>> {
        let mut state = self.queue.state.lock();
        let selected = state.waiting.pop_front()?;
        state.items -= selected.items.len();
        Some(selected)
    }

    /// Takes back the wakers that were given.
    pub(crate) fn stop_waiting(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.log.forget(ticket);
        }
        let waker = self.queue.state.lock().waker.take();
        drop(waker);
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        if self.log.has_forked() {
            return;
        }
        self.stop_waiting();
        self.feed.remove(&self.queue);
    }
}

/// Has `feed`, which observes `kernel`, keep what `select` wants of every transaction after this
/// call: at most `capacity` items, unless one transaction has more.
///
/// # Errors
/// [`Error::Closed`](crate::Error::Closed), [`Error::Poisoned`](crate::Error::Poisoned), and
/// [`Error::NestedTransaction`](crate::Error::NestedTransaction) inside a transaction.
pub(in crate::engine) fn subscribe<T>(
    kernel: &Kernel,
    feed: &Arc<Feed<T>>,
    select: Box<Select<T>>,
    capacity: usize,
) -> Result<Subscription<T>> {
    let state =
        QueueState { waiting: VecDeque::new(), items: 0, gap: None, waker: None, closed: false };
    let queue = Arc::new(Queue { select, capacity, state: Mutex::new(state) });
    let _turn = kernel.take_turn()?;
    // Under the serial lock, so that it sees every later transaction and none before.
    let _serial = kernel.lock_serial();
    drop(kernel.hold_open()?);
    kernel.check_log()?;
    feed.add(Arc::clone(&queue));
    let (feed, log) = (Arc::clone(feed), Arc::clone(kernel.log()));
    Ok(Subscription { feed, log, queue, ticket: None })
}
