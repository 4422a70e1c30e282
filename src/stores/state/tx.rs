//! The agent states as a transaction sees them.

use super::late::LateWindowMs;
use super::record::{EventId, Identity, ListScope, SlotExpectation, StateRecord};
use super::{StateError, ops, scan};
use crate::engine::access::Writer;
use crate::stores::frame::{FrameBudget, StepRange};
use crate::stores::page::{Cursor, Page};
use crate::stores::span::span_ms;
use crate::stores::store_tx::StoreTx;
use std::fmt;
use std::time::Duration;

/// The agent states inside a transaction: the operations of [`StateStore`](super::StateStore),
/// answering at once and seeing what the transaction has done so far. What they change is kept or
/// lost with the transaction.
///
/// An operation that answers an error has changed nothing; the transaction can go on. A
/// [`StateError`] turns into an [`Error`](crate::Error) and back, so that operations on several
/// stores may share either.
pub struct StateTx<'a> {
    tx: StoreTx<'a>,
    late: LateWindowMs,
}

impl<'a> StateTx<'a> {
    /// The agent states in `tx`.
    pub(crate) fn new(tx: &'a mut dyn Writer) -> Self {
        Self::of(StoreTx::new(tx), None)
    }

    /// The agent states in `tx`, with the options of a handle.
    pub(super) fn of(tx: StoreTx<'a>, late: LateWindowMs) -> Self {
        Self { tx, late }
    }

    /// The same view; see [`State::with_late_window`](super::State::with_late_window).
    #[must_use]
    pub fn with_late_window(self, window: Duration) -> Self {
        Self { late: Some(span_ms(window)).filter(|ms| *ms > 0), ..self }
    }

    /// See [`StateStore::save`](super::StateStore::save).
    pub fn save(&mut self, record: StateRecord) -> Result<(), StateError> {
        ops::save(self.tx.get()?, self.late, &record)
    }

    /// See [`StateStore::load`](super::StateStore::load).
    pub fn load(&mut self, identity: &Identity, kind: &str) -> Result<StateRecord, StateError> {
        ops::load(self.tx.get()?, identity, kind)
    }

    /// See [`StateStore::load_by_event_id`](super::StateStore::load_by_event_id).
    pub fn load_by_event_id(&mut self, event_id: &EventId) -> Result<StateRecord, StateError> {
        ops::load_by_event_id(self.tx.get()?, event_id)
    }

    /// See [`StateStore::delete`](super::StateStore::delete).
    pub fn delete(&mut self, identity: &Identity, kind: &str) -> Result<(), StateError> {
        ops::delete(self.tx.get()?, self.late, identity, kind)
    }

    /// See [`StateStore::list_kind`](super::StateStore::list_kind).
    pub fn list_kind(
        &mut self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Result<Vec<StateRecord>, StateError> {
        scan::list_kind(self.tx.get()?, scope, kind_prefix)
    }

    /// See [`StateStore::list_kind_bounded`](super::StateStore::list_kind_bounded).
    pub fn list_kind_bounded(
        &mut self,
        scope: ListScope,
        kind_prefix: &str,
        limit: usize,
    ) -> Result<Vec<StateRecord>, StateError> {
        scan::list_kind_bounded(self.tx.get()?, scope, kind_prefix, limit)
    }

    /// See [`State::fence_if`](super::State::fence_if). It sees what the transaction has done so
    /// far. An effect that ran is not undone when the transaction is not kept.
    pub fn fence_if<E: From<StateError>>(
        &mut self,
        expectation: &SlotExpectation,
        effect: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let tx = self.tx.get().map_err(StateError::from)?;
        ops::fence(tx, expectation)?;
        effect()
    }

    /// See [`StateStore::save_if`](super::StateStore::save_if).
    pub fn save_if(
        &mut self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Result<(), StateError> {
        ops::save_batch_if(self.tx.get()?, self.late, expectations, &[next])
    }

    /// See [`StateStore::save_batch_if`](super::StateStore::save_batch_if).
    pub fn save_batch_if(
        &mut self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Result<(), StateError> {
        ops::save_batch_if(self.tx.get()?, self.late, expectations, &writes)
    }

    /// See [`StateStore::delete_if`](super::StateStore::delete_if).
    pub fn delete_if(&mut self, expectation: &SlotExpectation) -> Result<bool, StateError> {
        ops::delete_if(self.tx.get()?, self.late, expectation)
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
        let (scope, mut all) = ((tenant, user, session), StepRange::default());
        ops::delete_scope(self.tx.get()?, self.late, scope, &mut all, FrameBudget::UNBOUNDED)
            .map(|(count, _)| count)
    }

    /// See [`StateStore::list_kind_for_identity`](super::StateStore::list_kind_for_identity).
    pub fn list_kind_for_identity(
        &mut self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Result<Vec<StateRecord>, StateError> {
        scan::list_kind_for_identity(self.tx.get()?, identity, kind_prefix, limit)
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
        scan::scan_kind_for_tenant(self.tx.get()?, scope, (tenant, kind_prefix), limit, cursor)
    }
}

impl fmt::Debug for StateTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTx").finish_non_exhaustive()
    }
}
