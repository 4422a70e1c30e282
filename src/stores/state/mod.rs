//! Agent state: what an agent remembers, by whose it is, with optimistic concurrency.

pub(crate) mod check;
mod handle;
mod late;
mod lines;
mod ops;
mod record;
pub(crate) mod row;
mod scan;
pub(crate) mod schema;
mod tx;

pub use crate::error::StateError;
pub use handle::State;
pub use record::{
    EventId, Identity, ListScope, SlotExpectation, StateRecord, validate_identity,
    validate_list_kind, validate_record,
};
pub(crate) use record::{validate_event_id, validate_session, validate_slot};
pub use tx::StateTx;

use super::page::{Cursor, CursorParseError, Page};
use crate::Pending;
use std::sync::Arc;

/// A store of agent states: one per slot, which is an [`Identity`] and a kind.
///
/// Every method has applied its change, in order, when it returns; the [`Pending`] waits for its
/// durability, and says what a call may wait for.
///
/// # Errors
/// After an error nothing was applied, unless it is
/// [`OutcomeUnknown`](crate::Error::OutcomeUnknown), inside [`StateError::Store`], or the answer of
/// a [`delete_scope`](Self::delete_scope) that took several steps. Every method that takes an
/// identity answers [`IdentityRequired`](StateError::IdentityRequired) when its tenant, user or
/// session is empty, every one that takes a kind, a kind's prefix or an event id
/// [`InvalidRecord`](StateError::InvalidRecord) when that is empty, and
/// [`TooLarge`](crate::Error::TooLarge) for a string over
/// [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN). After [`close`](Self::close) every method answers
/// [`StoreClosed`](StateError::StoreClosed).
pub trait StateStore: Send + Sync {
    /// Saves a state, replacing the one in its slot, whose event id is then no longer found.
    ///
    /// An event is saved once: the same record again (its time does not count) answers `Ok` and
    /// writes nothing; the same event id with other bytes, another version or another slot is
    /// [`IdempotencyConflict`](StateError::IdempotencyConflict).
    ///
    /// That holds while the event is the current one of its slot. An event that is delivered again
    /// after a newer one took its slot, or after the slot was deleted, is new, and overwrites. Two
    /// things prevent that: [`save_if`](Self::save_if), which says what the slot must hold, and
    /// [`State::with_late_window`], which remembers replaced events for a while; within it such a
    /// save is `Ok` and writes nothing.
    fn save(&self, record: StateRecord) -> Pending<(), StateError>;

    /// The state in a slot. [`NotFound`](StateError::NotFound) when there is none.
    fn load(&self, identity: &Identity, kind: &str) -> Pending<StateRecord, StateError>;

    /// The state that an event wrote. [`NotFound`](StateError::NotFound) when there is none, or it
    /// has been replaced.
    fn load_by_event_id(&self, event_id: &EventId) -> Pending<StateRecord, StateError>;

    /// Removes the state in a slot, and its event id. `Ok` when there is none.
    fn delete(&self, identity: &Identity, kind: &str) -> Pending<(), StateError>;

    /// Every state of every tenant whose kind begins with `kind_prefix`, literally; by kind, then
    /// identity.
    ///
    /// [`MaintenanceScopeRequired`](StateError::MaintenanceScopeRequired) unless the scope is
    /// [`ListScope::maintenance`].
    fn list_kind(
        &self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Pending<Vec<StateRecord>, StateError>;

    /// The first states (up to `limit`, 1 to
    /// [`MAX_BOUNDED_LIST_LIMIT`](crate::limits::MAX_BOUNDED_LIST_LIMIT)) that
    /// [`list_kind`](Self::list_kind) would answer, in its order. A caller that asks for one more
    /// than it wants learns whether there are more.
    /// [`InvalidRecord`](StateError::InvalidRecord) for another limit.
    fn list_kind_bounded(
        &self,
        scope: ListScope,
        kind_prefix: &str,
        limit: usize,
    ) -> Pending<Vec<StateRecord>, StateError>;

    /// Makes every earlier call durable, and closes this store and its clones. Closing twice is
    /// fine.
    fn close(&self) -> Pending<(), StateError>;

    /// Saves `next` if every expectation holds; one of them has to be of its slot. As
    /// [`save_batch_if`](Self::save_batch_if) with one write.
    fn save_if(
        &self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Pending<(), StateError>;

    /// Saves all `writes` if every expectation holds; otherwise nothing changes, and the answer is
    /// [`ConditionFailed`](StateError::ConditionFailed), also when the events were saved before.
    /// When the expectations hold, the event ids are checked as [`save`](Self::save) checks them,
    /// each against what was there before the batch.
    ///
    /// [`InvalidRecord`](StateError::InvalidRecord) for no expectation, no write, two expectations
    /// of or two writes to one slot, one event id in two writes, and a write to a slot that no
    /// expectation covers.
    fn save_batch_if(
        &self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Pending<(), StateError>;

    /// Removes the state in a slot if it is the expected one, and says whether it did.
    /// [`InvalidRecord`](StateError::InvalidRecord) when the slot is expected to be absent.
    fn delete_if(&self, expectation: &SlotExpectation) -> Pending<bool, StateError>;

    /// Removes every state of a session, of all its runs and kinds, and counts them.
    ///
    /// A driver may remove a session that is too large for one step in several, each whole by
    /// itself. Then other calls may see it half removed meanwhile, and after an error in between
    /// the rest is still there; the call can be made again.
    fn delete_scope(&self, tenant: &str, user: &str, session: &str) -> Pending<u64, StateError>;

    /// The first states (up to `limit`, 1 to
    /// [`MAX_IDENTITY_LIST_LIMIT`](crate::limits::MAX_IDENTITY_LIST_LIMIT); all without one) of
    /// exactly this identity whose kind begins with `kind_prefix`, literally; by kind.
    /// [`InvalidRecord`](StateError::InvalidRecord) for another limit.
    fn list_kind_for_identity(
        &self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Pending<Vec<StateRecord>, StateError>;

    /// A page of a tenant's states whose kind begins with `kind_prefix`, literally, in byte order
    /// of (user, session, run, kind), from behind `cursor` on. One page shows one moment; several
    /// pages together do not.
    ///
    /// [`MaintenanceScopeRequired`](StateError::MaintenanceScopeRequired) unless the scope is
    /// [`ListScope::maintenance`]; [`InvalidScan`](StateError::InvalidScan) for an empty tenant or
    /// prefix, a limit outside 1 to [`MAX_SCAN_LIMIT`](crate::limits::MAX_SCAN_LIMIT), and a cursor
    /// that is not of a page of this tenant and prefix.
    fn scan_kind_for_tenant(
        &self,
        scope: ListScope,
        tenant: &str,
        kind_prefix: &str,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Pending<Page<StateRecord>, StateError>;
}

/// A state in a listing: its particulars without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateEntry {
    /// The event that wrote it.
    pub event_id: EventId,
    /// Whose it is.
    pub identity: Identity,
    /// What it is.
    pub kind: String,
    /// The caller's version.
    pub version: i64,
    /// The size of the state in bytes.
    pub bytes: u64,
    /// When it was saved, in milliseconds since the Unix epoch.
    pub updated_at: u64,
}

/// What a store of agent states holds. Nothing in it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StateStats {
    /// States.
    pub states: u64,
    /// Bytes of keys and values of all these; index rows are not counted.
    pub bytes: u64,
}

/// A string that is no cursor is no cursor of a scan.
impl From<CursorParseError> for StateError {
    fn from(error: CursorParseError) -> Self {
        Self::InvalidScan(error.to_string())
    }
}

/// A shared store is a store.
impl<S: StateStore + ?Sized> StateStore for Arc<S> {
    fn save(&self, record: StateRecord) -> Pending<(), StateError> {
        (**self).save(record)
    }

    fn load(&self, identity: &Identity, kind: &str) -> Pending<StateRecord, StateError> {
        (**self).load(identity, kind)
    }

    fn load_by_event_id(&self, event_id: &EventId) -> Pending<StateRecord, StateError> {
        (**self).load_by_event_id(event_id)
    }

    fn delete(&self, identity: &Identity, kind: &str) -> Pending<(), StateError> {
        (**self).delete(identity, kind)
    }

    fn list_kind(
        &self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Pending<Vec<StateRecord>, StateError> {
        (**self).list_kind(scope, kind_prefix)
    }

    fn list_kind_bounded(
        &self,
        scope: ListScope,
        kind_prefix: &str,
        limit: usize,
    ) -> Pending<Vec<StateRecord>, StateError> {
        (**self).list_kind_bounded(scope, kind_prefix, limit)
    }

    fn close(&self) -> Pending<(), StateError> {
        (**self).close()
    }

    fn save_if(
        &self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Pending<(), StateError> {
        (**self).save_if(expectations, next)
    }

    fn save_batch_if(
        &self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Pending<(), StateError> {
        (**self).save_batch_if(expectations, writes)
    }

    fn delete_if(&self, expectation: &SlotExpectation) -> Pending<bool, StateError> {
        (**self).delete_if(expectation)
    }

    fn delete_scope(&self, tenant: &str, user: &str, session: &str) -> Pending<u64, StateError> {
        (**self).delete_scope(tenant, user, session)
    }

    fn list_kind_for_identity(
        &self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Pending<Vec<StateRecord>, StateError> {
        (**self).list_kind_for_identity(identity, kind_prefix, limit)
    }

    fn scan_kind_for_tenant(
        &self,
        scope: ListScope,
        tenant: &str,
        kind_prefix: &str,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Pending<Page<StateRecord>, StateError> {
        (**self).scan_kind_for_tenant(scope, tenant, kind_prefix, limit, cursor)
    }
}
