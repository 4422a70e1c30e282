//! The change feed: every committed transaction, in order, to whoever watches.
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
//! # Why nobody waits for a watcher
//! A queue holds so many changes and no more. A transaction that does not fit begins a gap, which
//! goes on until the watcher has taken everything before it and was told of it; what is committed
//! meanwhile is counted and not kept. A transaction that finds the queue empty is taken whatever
//! its size, which a segment of the log limits.

use super::tx::Staged;
use super::{Engine, Turn};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::observe;
use crate::tables::{Table, Value};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};

/// The rows that a transaction changed, whole.
#[derive(Clone, Copy)]
pub(crate) struct CommittedRows<'a> {
    staged: &'a Staged,
    /// The position of the transaction.
    pub(crate) lsn: u64,
    /// The room's time when it was decided, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
}

impl<'a> CommittedRows<'a> {
    /// Every changed row by table and key; `None` when it was removed.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Table, &'a [u8], Option<&'a Value>)> {
        self.staged.iter().map(|((table, key), value)| (*table, key.as_slice(), value.as_ref()))
    }

    /// What became of one row: nothing, or else what it is now.
    pub(crate) fn get(self, table: Table, key: &[u8]) -> Option<Option<&'a Value>> {
        self.staged.get(&(table, key.to_vec())).map(Option::as_ref)
    }
}

/// What a watcher wants.
pub(crate) trait Selector: Send + Sync + 'static {
    /// What it keeps of a changed row.
    type Item: Send;

    /// What it wants of a transaction. Called under the serial lock: it must be short and call
    /// nothing of others.
    fn select(&self, rows: CommittedRows<'_>) -> Vec<Self::Item>;
}

/// All watchers of an engine.
#[derive(Default)]
pub(super) struct Feed {
    /// How many there are, so that a transaction that nobody watches pays for one load.
    watchers: AtomicUsize,
    listed: Mutex<Vec<Arc<dyn Listener>>>,
    overtaken: AtomicU64,
}

/// What is shown at one moment.
pub(super) struct FeedStats {
    pub(super) watchers: u64,
    pub(super) buffered: u64,
    pub(super) lag: u64,
    pub(super) overtaken: u64,
}

impl Feed {
    /// Whether anybody watches. The caller holds the serial lock, under which watchers come.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Shows a transaction to the watchers. The caller holds the serial lock, and wakes who is
    /// answered when it holds no lock.
    #[cold]
    pub(super) fn show(&self, staged: &Staged, lsn: u64, now_ms: u64) -> Vec<Waker> {
        let rows = CommittedRows { staged, lsn, now_ms };
        let shown =
            self.listed.lock().iter().map(|listener| listener.show(rows)).collect::<Vec<_>>();
        self.overtaken.fetch_add(
            shown.iter().filter(|shown| shown.overtaken).count() as u64,
            Ordering::Relaxed,
        );
        shown.into_iter().filter_map(|shown| shown.waker).collect()
    }

    /// Has every watcher look again, because there is nothing more to come or the log has failed.
    /// `closed` tells which.
    pub(super) fn rouse(&self, closed: bool) {
        let listed = self.listed.lock().clone();
        listed.iter().filter_map(|listener| listener.rouse(closed)).for_each(Waker::wake);
    }

    pub(super) fn stats(&self, newest_lsn: u64) -> FeedStats {
        let listed = self.listed.lock();
        let behind: Vec<_> = listed.iter().map(|listener| listener.behind()).collect();
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

    fn add(&self, listener: Arc<dyn Listener>) {
        let mut listed = self.listed.lock();
        listed.push(listener);
        self.watchers.store(listed.len(), Ordering::Relaxed);
    }

    fn remove(&self, listener: &Arc<dyn Listener>) {
        let mut listed = self.listed.lock();
        listed.retain(|other| !Arc::ptr_eq(other, listener));
        self.watchers.store(listed.len(), Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("watchers", &self.watchers).finish_non_exhaustive()
    }
}

/// What became of a transaction that was shown.
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

/// A queue, whatever it keeps.
trait Listener: Send + Sync {
    fn show(&self, rows: CommittedRows<'_>) -> Shown;
    fn rouse(&self, closed: bool) -> Option<Waker>;
    fn behind(&self) -> Behind;
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

struct Queue<S: Selector> {
    selector: S,
    /// How many items it holds at the most, unless they are of one transaction.
    capacity: usize,
    state: Mutex<QueueState<S::Item>>,
}

struct QueueState<T> {
    waiting: VecDeque<Selected<T>>,
    /// How many items these have together.
    items: usize,
    gap: Option<Gap>,
    waker: Option<Waker>,
    closed: bool,
}

impl<S: Selector> Listener for Queue<S> {
    fn show(&self, rows: CommittedRows<'_>) -> Shown {
        let items = self.selector.select(rows);
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
        Shown { waker: state.waker.take(), overtaken }
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
    /// The engine was closed, and everything durable was given.
    Closed,
}

/// A place in the stream of transactions. It does not keep the engine open.
pub(crate) struct Subscription<S: Selector> {
    feed: Arc<Feed>,
    log: Arc<Log>,
    queue: Arc<Queue<S>>,
    /// The registration of the wait for the log.
    ticket: Option<u64>,
}

/// What stands first in a queue.
enum First {
    Nothing,
    At(u64),
}

impl<S: Selector> Subscription<S> {
    /// The next transaction that is durable, if there is one now.
    pub(crate) fn try_next(&mut self) -> Option<Result<Selected<S::Item>, NoMore>> {
        match self.first(None) {
            Ok(First::Nothing) => None,
            Ok(First::At(lsn)) if self.log.durable() >= lsn => self.take().map(Ok),
            Ok(First::At(_)) => {
                let failure = self.log.failure()?;
                Some(Err(NoMore::Poisoned(Arc::clone(failure))))
            }
            Err(none) => Some(Err(none)),
        }
    }

    /// The next transaction, or else `waker` is called when there may be one, instead of the one
    /// given before.
    pub(crate) fn poll_next(&mut self, waker: &Waker) -> Poll<Result<Selected<S::Item>, NoMore>> {
        let lsn = match self.first(Some(waker)) {
            Ok(First::Nothing) => return Poll::Pending,
            Ok(First::At(lsn)) => lsn,
            Err(none) => return Poll::Ready(Err(none)),
        };
        match self.log.poll(lsn, Durability::Sync, &mut self.ticket, waker) {
            None => Poll::Pending,
            Some(Ok(())) => match self.take() {
                Some(selected) => Poll::Ready(Ok(selected)),
                None => Poll::Pending,
            },
            Some(Err(error)) => {
                let unknown = || Arc::new(io::Error::other(error.to_string()));
                let failure = self.log.failure().map_or_else(unknown, Arc::clone);
                Poll::Ready(Err(NoMore::Poisoned(failure)))
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
            return Err(NoMore::Poisoned(Arc::clone(failure)));
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

    fn take(&self) -> Option<Selected<S::Item>> {
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

impl<S: Selector> Drop for Subscription<S> {
    fn drop(&mut self) {
        self.stop_waiting();
        let queue: Arc<dyn Listener> = Arc::clone(&self.queue) as _;
        self.feed.remove(&queue);
    }
}

impl Engine {
    /// RowWaits every transaction after this call.
    pub(crate) fn subscribe<S: Selector>(
        &self,
        selector: S,
        capacity: usize,
    ) -> Result<Subscription<S>> {
        let core = &self.core;
        let state = QueueState {
            waiting: VecDeque::new(),
            items: 0,
            gap: None,
            waker: None,
            closed: false,
        };
        let queue = Arc::new(Queue { selector, capacity, state: Mutex::new(state) });
        let _turn = Turn::take(core)?;
        // Under the serial lock, so that it sees every later transaction and none before.
        let _serial = core.serial.lock();
        if core.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if let Some(source) = core.log.failure() {
            return Err(Error::Poisoned { source: Arc::clone(source) });
        }
        core.feed.add(Arc::clone(&queue) as _);
        Ok(Subscription {
            feed: Arc::clone(&core.feed),
            log: Arc::clone(&core.log),
            queue,
            ticket: None,
        })
    }
}
