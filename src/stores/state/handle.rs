//! The agent states of a room.

use super::record::{EventId, Identity, ListScope, SlotExpectation, StateRecord};
use super::{StateEntry, StateError, StateStats, StateStore, ops, row, scan};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::{Engine, Snapshot};
use crate::stores::frame::{FrameStep, in_frames};
use crate::stores::page::{Cursor, Page};
use crate::tables::Table;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The agent states of a room: a [`StateStore`]. A cheap clone.
///
/// [`close`](StateStore::close) closes this handle and its clones, not the room. A record that does
/// not fit a segment of the log, together with its keys (of which the log takes four copies), is
/// [`TooLarge`](crate::Error::TooLarge).
#[derive(Clone)]
pub struct State {
    engine: Engine,
    durability: Durability,
    closed: Arc<AtomicBool>,
    closes_engine: bool,
}

impl State {
    /// The agent states of the room that `engine` runs.
    pub(crate) fn new(engine: Engine, durability: Durability) -> Self {
        Self { engine, durability, closed: Arc::default(), closes_engine: false }
    }

    /// The same store, whose close closes the room.
    pub(crate) fn closing_the_room(self) -> Self {
        Self { closes_engine: true, ..self }
    }

    /// The same store, whose answers wait for this durability. The default is the room's.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Up to `limit` states after `cursor`, or from the first one without a cursor, in byte order
    /// of tenant, user, session, run and kind.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::Error::InvalidConfig) for a limit outside 1 to
    /// [`MAX_LIST_LIMIT`](crate::limits::MAX_LIST_LIMIT), or a cursor of another listing.
    pub fn list(
        &self,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Pending<Page<StateEntry>, StateError> {
        self.read(|rows| scan::list(rows, cursor, limit))
    }

    /// Counts every state, by reading every one of them: the cost grows with what is stored, and
    /// other callers do not wait meanwhile.
    pub fn stats(&self) -> Pending<StateStats, StateError> {
        self.read(|rows| scan::stats(rows))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn read<R>(
        &self,
        operation: impl FnOnce(&mut Snapshot) -> Result<R, StateError>,
    ) -> Pending<R, StateError> {
        if self.is_closed() {
            return Pending::ready(Err(StateError::StoreClosed));
        }
        self.engine.read(self.durability, operation)
    }

    /// Runs `operation`, which will probably read the states in `slots` and those that `events`
    /// wrote.
    fn transact<R>(
        &self,
        slots: &[Vec<u8>],
        events: &[&EventId],
        operation: impl FnOnce(&mut crate::engine::Tx<'_>) -> Result<R, StateError>,
    ) -> Pending<R, StateError> {
        if self.is_closed() {
            return Pending::ready(Err(StateError::StoreClosed));
        }
        let slots = slots.iter().map(|key| (Table::STATE, key.as_slice()));
        let events = events.iter().map(|id| (Table::STATE_EVENT, id.as_str().as_bytes()));
        let prefetch: Vec<(Table, &[u8])> = slots.chain(events).collect();
        self.engine.transact(self.durability, &prefetch, operation)
    }

    fn save_all_if(
        &self,
        expectations: &[SlotExpectation],
        writes: &[StateRecord],
    ) -> Pending<(), StateError> {
        let slots: Vec<_> =
            expectations.iter().map(|slot| row::slot_key(&slot.identity, &slot.kind)).collect();
        let events: Vec<_> = writes.iter().map(|write| &write.id).collect();
        self.transact(&slots, &events, |tx| ops::save_batch_if(tx, expectations, writes))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("durability", &self.durability)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl StateStore for State {
    fn save(&self, record: StateRecord) -> Pending<(), StateError> {
        let key = row::slot_key(&record.identity, &record.kind);
        self.transact(&[key], &[&record.id], |tx| ops::save(tx, &record))
    }

    fn load(&self, identity: &Identity, kind: &str) -> Pending<StateRecord, StateError> {
        self.read(|rows| ops::load(rows, identity, kind))
    }

    fn load_by_event_id(&self, event_id: &EventId) -> Pending<StateRecord, StateError> {
        self.read(|rows| ops::load_by_event_id(rows, event_id))
    }

    fn delete(&self, identity: &Identity, kind: &str) -> Pending<(), StateError> {
        self.transact(&[row::slot_key(identity, kind)], &[], |tx| ops::delete(tx, identity, kind))
    }

    fn list_kind(
        &self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.read(|rows| scan::list_kind(rows, scope, kind_prefix))
    }

    fn close(&self) -> Pending<(), StateError> {
        self.closed.store(true, Ordering::Release);
        if self.closes_engine {
            return Pending::ready(self.engine.close().map_err(StateError::from));
        }
        self.engine.flush()
    }

    fn save_if(
        &self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Pending<(), StateError> {
        self.save_all_if(expectations, &[next])
    }

    fn save_batch_if(
        &self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Pending<(), StateError> {
        self.save_all_if(expectations, &writes)
    }

    fn delete_if(&self, expectation: &SlotExpectation) -> Pending<bool, StateError> {
        let key = row::slot_key(&expectation.identity, &expectation.kind);
        self.transact(&[key], &[], |tx| ops::delete_if(tx, expectation))
    }

    /// A session whose rows do not fit one frame of the log is removed by several transactions,
    /// each atomic by itself. After a crash or an error between two of them the rest is still
    /// there, and the call can be made again.
    fn delete_scope(&self, tenant: &str, user: &str, session: &str) -> Pending<u64, StateError> {
        let (mut removed, mut after) = (0, None);
        in_frames(&self.engine, self.durability, |tx, budget| {
            if self.is_closed() {
                return Err(StateError::StoreClosed);
            }
            let scope = (tenant, user, session);
            let (count, left) = ops::delete_scope(tx, scope, after.take(), budget)?;
            (removed, after) = (removed + count, left);
            Ok(FrameStep { answer: removed, is_last: after.is_none() })
        })
    }

    fn list_kind_for_identity(
        &self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.read(|rows| scan::list_kind_for_identity(rows, identity, kind_prefix, limit))
    }

    fn scan_kind_for_tenant(
        &self,
        scope: ListScope,
        tenant: &str,
        kind_prefix: &str,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Pending<Page<StateRecord>, StateError> {
        self.read(|rows| {
            scan::scan_kind_for_tenant(rows, scope, (tenant, kind_prefix), limit, cursor)
        })
    }
}
