//! A change as a watcher sees it, and how it is told from the rows that a transaction changed.

use crate::engine::CommittedRows;
use crate::stores::hidden::Hidden;
use crate::stores::owner::StoreKind;
use crate::stores::state::Identity;
use crate::tables::{Table, Value};
use std::fmt;

/// Something that a transaction did to one entry of a store. It says that it happened and to what,
/// and carries no content. To read it, ask the store, which may have changed since. What only
/// changes how an entry is kept is not a change: a question, a window that the sweeper indexes
/// under a later end, an entry that is swept in parts, a checkpoint, a compaction.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The position of the transaction. Changes of one transaction have the same, and those of a
    /// later one a greater one.
    pub lsn: u64,
    /// Whether this is the last change of its transaction that passes the filter. The changes of
    /// one transaction come right behind one another.
    pub last_of_transaction: bool,
    /// The kind of store.
    pub store: StoreKind,
    /// The name of the store, for caches, stores of jobs and limiters.
    pub name: Option<String>,
    /// The key of the entry: the lookup key of a token, the id of a claim-check state, the hash of
    /// a cached value or a job, the resource of a window, the origin of a cooldown, the kind of an
    /// agent state, and of what the adapter for `codlet` keeps the id or the caller's key. Empty
    /// for [`Cleared`](ChangeKind::Cleared).
    pub key: String,
    /// Whose an agent state is; `None` for every other store.
    pub identity: Option<Identity>,
    /// What happened.
    pub kind: ChangeKind,
}

/// Keeps the key to itself where a caller who has it can use or take what it leads to.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = [
            StoreKind::CACHE,
            StoreKind::DEDUPE,
            StoreKind::RATE_LIMIT,
            StoreKind::ADAPTIVE_RATE_LIMIT,
            StoreKind::STATE,
        ];
        let hidden = Hidden::bytes(&self.key);
        let key: &dyn fmt::Debug = if is_open.contains(&self.store) { &self.key } else { &hidden };
        f.debug_struct("Change")
            .field("lsn", &self.lsn)
            .field("last_of_transaction", &self.last_of_transaction)
            .field("store", &self.store)
            .field("name", &self.name)
            .field("key", key)
            .field("identity", &self.identity)
            .field("kind", &self.kind)
            .finish()
    }
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was stored, new or over an earlier one: a token inserted, a state or value set, a job
    /// registered or ended, a request recorded in a window.
    Put,
    /// A form token was consumed.
    Consumed,
    /// A form token, consumed now or earlier, has a result that a replay answers.
    ResultSet,
    /// A claim-check state was claimed.
    Claimed,
    /// A claim on a state was released, and the state can be seen again. (A claim that is
    /// acknowledged removes the state, and one whose lease ends changes nothing.)
    Released,
    /// A resource of a limiter got a configuration of its own.
    Configured,
    /// An origin of a limiter got a cooldown.
    Paused,
    /// The cooldown of an origin was taken back, or swept.
    Resumed,
    /// It was removed by a call: taken, deleted, evicted, invalidated, the window of a resource
    /// reset. Also when it was made in the same transaction.
    Removed,
    /// It was removed when its time had passed already, by the sweeper or by a call that found it.
    /// That an entry becomes absent by the passing of time alone is not a change.
    Expired,
    /// All windows and cooldowns of a limiter were forgotten at once. No further change tells when
    /// the sweeper takes them.
    Cleared,
}

/// A row that a transaction changed, as the schema of its table is shown it.
pub(crate) struct ChangedRow<'a> {
    /// Everything that the transaction changed.
    pub(crate) rows: CommittedRows<'a>,
    pub(crate) table: Table,
    pub(crate) key: &'a [u8],
    /// `None` when it was removed.
    pub(crate) value: Option<&'a Value>,
    /// Whether the row at a key was removed when its time had come.
    pub(super) has_ended: &'a dyn Fn(Table, &[u8]) -> bool,
}

impl ChangedRow<'_> {
    /// What the change means when the row is an entry.
    pub(crate) fn of_entry(&self) -> ChangeKind {
        if self.value.is_some() {
            return ChangeKind::Put;
        }
        match (self.has_ended)(self.table, self.key) {
            true => ChangeKind::Expired,
            false => ChangeKind::Removed,
        }
    }
}
