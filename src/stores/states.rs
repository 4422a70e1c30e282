//! What the stores of one open room keep in memory, in addition to their rows.

use super::adaptive_rate_limit::capacities::Capacities;
use super::cache::CacheStates;
use super::rate_limit::longest_window::LongestWindows;
use super::sweep::Sweeper;
use super::watch::Change;
use crate::engine::{CommitHook, CommitObserver, CommittedRows, Feed, Interest, Wakeup};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// The in-memory state of all stores of a room. It is made before the room opens, observes its
/// transactions, and lives as long as the room or a handle of it. It holds no handle itself.
#[derive(Debug)]
pub(crate) struct StoreStates {
    /// Held by what is to be shown transactions.
    interest: Interest,
    pub(crate) sweeper: Sweeper,
    /// The caches by name: their order of use, and counters.
    pub(crate) caches: CacheStates,
    /// How long plain limiters keep requests.
    pub(crate) longest_windows: LongestWindows,
    /// The capacities of adaptive limiters.
    pub(crate) capacities: Arc<Capacities>,
    /// The change feed.
    pub(crate) feed: Arc<Feed<Change>>,
}

// What a transaction that panics did to them is undone, as its rows are.
impl UnwindSafe for StoreStates {}
impl RefUnwindSafe for StoreStates {}

impl StoreStates {
    /// The states of a room that is about to be opened.
    pub(crate) fn new() -> Arc<Self> {
        let interest = Interest::default();
        Arc::new(Self {
            sweeper: Sweeper::default(),
            caches: CacheStates::new(interest.clone()),
            longest_windows: LongestWindows::default(),
            capacities: Arc::new(Capacities::new(interest.clone())),
            feed: Arc::new(Feed::new(interest.clone())),
            interest,
        })
    }

    /// The hook for the engine of the room.
    pub(crate) fn hook(self: &Arc<Self>) -> CommitHook {
        CommitHook::new(self.interest.clone(), Arc::clone(self) as _)
    }
}

impl StoreStates {
    /// The transaction under way has ended.
    fn end(&self, is_kept: bool) {
        self.caches.changed().end(is_kept);
        self.capacities.end(is_kept);
    }
}

impl CommitObserver for StoreStates {
    fn committed(&self, rows: CommittedRows<'_>) -> Vec<Wakeup> {
        self.end(true);
        self.feed.committed(rows)
    }

    fn unchanged(&self) {
        self.end(true);
    }

    fn aborted(&self) {
        self.end(false);
    }

    fn failed(&self) -> Vec<Wakeup> {
        self.feed.failed()
    }

    fn closed(&self) -> Vec<Wakeup> {
        self.feed.closed()
    }
}
