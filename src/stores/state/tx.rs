//! The agent states as a transaction sees them.

use super::record::{EventId, Identity, ListScope, SlotExpectation, StateRecord};
use super::{StateError, ops, scan};
use crate::engine::access::Writer;
use crate::stores::frame::FrameBudget;
use crate::stores::page::{Cursor, Page};
use std::fmt;

/// The agent states inside a transaction: the operations of [`StateStore`](super::StateStore),
/// answering at once and seeing what the transaction has done so far. What they change is kept or
/// lost with the transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on. A
/// [`StateError`] turns into an [`Error`](crate::Error) and back, so that operations on several
/// stores may share either.
pub struct StateTx<'a> {
    tx: &'a mut dyn Writer,
}

impl<'a> StateTx<'a> {
    /// The agent states in `tx`.
    pub(crate) fn new(tx: &'a mut dyn Writer) -> Self {
        Self { tx }
    }

    /// See [`StateStore::save`](super::StateStore::save).
    pub fn save(&mut self, record: StateRecord) -> Result<(), StateError> {
        ops::save(self.tx, &record)
    }

    /// See [`StateStore::load`](super::StateStore::load).
    pub fn load(&mut self, identity: &Identity, kind: &str) -> Result<StateRecord, StateError> {
        ops::load(self.tx, identity, kind)
    }

    /// See [`StateStore::load_by_event_id`](super::StateStore::load_by_event_id).
    pub fn load_by_event_id(&mut self, event_id: &EventId) -> Result<StateRecord, StateError> {
        ops::load_by_event_id(self.tx, event_id)
    }

    /// See [`StateStore::delete`](super::StateStore::delete).
    pub fn delete(&mut self, identity: &Identity, kind: &str) -> Result<(), StateError> {
        ops::delete(self.tx, identity, kind)
    }

    /// See [`StateStore::list_kind`](super::StateStore::list_kind).
    pub fn list_kind(
        &mut self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Result<Vec<StateRecord>, StateError> {
        scan::list_kind(self.tx, scope, kind_prefix)
    }

    /// See [`StateStore::save_if`](super::StateStore::save_if).
    pub fn save_if(
        &mut self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Result<(), StateError> {
        ops::save_batch_if(self.tx, expectations, &[next])
    }

    /// See [`StateStore::save_batch_if`](super::StateStore::save_batch_if).
    pub fn save_batch_if(
        &mut self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Result<(), StateError> {
        ops::save_batch_if(self.tx, expectations, &writes)
    }

    /// See [`StateStore::delete_if`](super::StateStore::delete_if).
    pub fn delete_if(&mut self, expectation: &SlotExpectation) -> Result<bool, StateError> {
        ops::delete_if(self.tx, expectation)
    }

    /// See [`StateStore::delete_scope`](super::StateStore::delete_scope). All of it belongs to this
    /// transaction, which is [`TooLarge`](crate::Error::TooLarge) when it does not fit a frame of
    /// the log.
    pub fn delete_scope(
        &mut self,
        tenant: &str,
        user: &str,
        session: &str,
    ) -> Result<u64, StateError> {
        let (scope, budget) = ((tenant, user, session), FrameBudget::UNBOUNDED);
        ops::delete_scope(self.tx, scope, None, budget).map(|(count, _)| count)
    }

    /// See [`StateStore::list_kind_for_identity`](super::StateStore::list_kind_for_identity).
    pub fn list_kind_for_identity(
        &mut self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Result<Vec<StateRecord>, StateError> {
        scan::list_kind_for_identity(self.tx, identity, kind_prefix, limit)
    }

    /// See [`StateStore::scan_kind_for_tenant`](super::StateStore::scan_kind_for_tenant).
    pub fn scan_kind_for_tenant(
        &mut self,
        scope: ListScope,
        tenant: &str,
        kind_prefix: &str,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Result<Page<StateRecord>, StateError> {
        scan::scan_kind_for_tenant(self.tx, scope, (tenant, kind_prefix), limit, cursor)
    }
}

impl fmt::Debug for StateTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTx").finish_non_exhaustive()
    }
}
