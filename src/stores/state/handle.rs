//! The agent states of a room.

use super::late::LateWindowMs;
use super::record::{EventId, Identity, ListScope, SlotExpectation, StateRecord};
use super::{StateEntry, StateError, StateStats, StateStore, StateTx, ops, row, scan};
use crate::Pending;
use crate::durability::Durability;
use crate::engine::access::{Reader, Writer};
use crate::engine::{Engine, Snapshot, Tx};
use crate::error::Error;
use crate::stores::frame::{FrameStep, in_steps};
use crate::stores::page::{Cursor, Page};
use crate::stores::span::span_ms;
use crate::stores::store_handle::StoreHandle;
use crate::tables::Table;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The agent states of a room: a [`StateStore`]. A cheap clone.
///
/// [`close`](StateStore::close) closes this handle and its clones, not the room. A record that does
/// not fit a segment of the log, together with its keys (of which the log takes four copies), is
/// [`TooLarge`](crate::Error::TooLarge).
#[derive(Clone)]
pub struct State {
    handle: StoreHandle,
    late: LateWindowMs,
    closed: Arc<AtomicBool>,
    closes_engine: bool,
}

impl State {
    /// The agent states of the room that `engine` runs.
    pub(crate) fn new(engine: Engine, durability: Durability) -> Self {
        let handle = StoreHandle::new(engine, durability);
        Self { handle, late: None, closed: Arc::default(), closes_engine: false }
    }

    /// The same store, whose close closes the room.
    pub(crate) fn closing_the_room(self) -> Self {
        Self { closes_engine: true, ..self }
    }

    /// The same store, whose answers wait for this durability. The default is the room's.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { handle: self.handle.with_durability(durability), ..self }
    }

    /// The same store. An event that is replaced or whose slot is deleted through this handle is
    /// remembered for `window`, and a save of it through a handle with a late window is then `Ok`
    /// and writes nothing, as that of the current event. So a message that is delivered late does
    /// not overwrite a newer one. An id that was remembered with other bytes, another version or
    /// another slot is [`IdempotencyConflict`](StateError::IdempotencyConflict).
    ///
    /// It is rounded up to milliseconds. Zero remembers nothing, which is the default.
    #[must_use]
    pub fn with_late_window(self, window: Duration) -> Self {
        Self { late: Some(span_ms(window)).filter(|ms| *ms > 0), ..self }
    }

    /// The states in `tx`, a transaction of `engine`, with the options of this handle.
    pub(crate) fn view<'a>(&self, engine: &Engine, tx: &'a mut dyn Writer) -> StateTx<'a> {
        let is_open = if self.is_closed() { Err(Error::Closed) } else { Ok(()) };
        StateTx::of(self.handle.within(engine, tx).with(is_open), self.late)
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

    /// Runs `effect` while no one can change a slot, if the slot holds what is expected: so that an
    /// owner that was replaced does not act any more. The expectation may also be that the slot is
    /// absent.
    ///
    /// The effect runs inside the call, on this thread, and every writer of the room waits until it
    /// returns; so it should be short. It may read the room. A write through the room, or closing
    /// it, answers [`NestedTransaction`](crate::Error::NestedTransaction) there, instead of waiting
    /// for itself; waiting in the effect for a writer on another thread would wait for ever. When
    /// the effect panics, so does the call, and the room goes on.
    ///
    /// The answer waits until what the slot was seen to hold is durable. The effect does not: it
    /// has happened before.
    ///
    /// # Errors
    /// [`ConditionFailed`](StateError::ConditionFailed) when the slot holds something else: then
    /// the effect did not run, and neither after any other error of the store. Otherwise the error
    /// of the effect.
    ///
    /// ```
    /// use cloakroom::Cloakroom;
    /// use cloakroom::state::{Identity, SlotExpectation, StateError, StateRecord, StateStore};
    ///
    /// let room = Cloakroom::builder().open_in_memory()?;
    /// let states = room.state();
    /// let whose = Identity::new("acme", "ada", "session-1", "");
    /// let lease = StateRecord::new(whose.clone(), "leader", *b"me");
    /// states.save(lease.clone()).wait()?;
    /// let still_mine = SlotExpectation::current(whose.clone(), "leader", lease.id);
    /// states.fence_if(&still_mine, || Ok::<_, StateError>(println!("send it"))).wait()?;
    /// states.save(StateRecord::new(whose, "leader", *b"another")).wait()?;
    /// let answer = states.fence_if(&still_mine, || -> Result<(), StateError> { unreachable!() });
    /// assert!(matches!(answer.wait(), Err(StateError::ConditionFailed)));
    /// # Ok::<(), StateError>(())
    /// ```
    pub fn fence_if<E: From<StateError> + Send + 'static>(
        &self,
        expectation: &SlotExpectation,
        effect: impl FnOnce() -> Result<(), E>,
    ) -> Pending<(), E> {
        let fenced = |rows: &mut dyn Reader| {
            ops::fence(rows, expectation)?;
            Ok(effect())
        };
        let done: Pending<Result<(), E>, StateError> = if self.is_closed() {
            Pending::ready(Err(StateError::StoreClosed))
        } else if self.handle.engine().is_read_only() {
            // No one can write, so no one has to be kept from it.
            self.read(|rows| fenced(rows))
        } else {
            let key = row::slot_key(&expectation.identity, &expectation.kind);
            self.transact(&[key], &[], |tx| fenced(tx))
        };
        done.then(|done| done?)
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
        self.handle.read(operation)
    }

    /// Runs `operation`, which will probably read the states in `slots` and those that `events`
    /// wrote.
    fn transact<R>(
        &self,
        slots: &[Vec<u8>],
        events: &[&EventId],
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, StateError>,
    ) -> Pending<R, StateError> {
        if self.is_closed() {
            return Pending::ready(Err(StateError::StoreClosed));
        }
        let slots = slots.iter().map(|key| (Table::STATE, key.as_slice()));
        let events = events.iter().map(|id| (Table::STATE_EVENT, id.as_str().as_bytes()));
        let prefetch: Vec<(Table, &[u8])> = slots.chain(events).collect();
        self.handle.transact(&prefetch, operation)
    }

    fn save_all_if(
        &self,
        expectations: &[SlotExpectation],
        writes: &[StateRecord],
    ) -> Pending<(), StateError> {
        let slots: Vec<_> =
            expectations.iter().map(|slot| row::slot_key(&slot.identity, &slot.kind)).collect();
        let events: Vec<_> = writes.iter().map(|write| &write.id).collect();
        self.transact(&slots, &events, |tx| ops::save_batch_if(tx, self.late, expectations, writes))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("durability", &self.handle.durability())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl StateStore for State {
    fn save(&self, record: StateRecord) -> Pending<(), StateError> {
        let key = row::slot_key(&record.identity, &record.kind);
        self.transact(&[key], &[&record.id], |tx| ops::save(tx, self.late, &record))
    }

    fn load(&self, identity: &Identity, kind: &str) -> Pending<StateRecord, StateError> {
        self.read(|rows| ops::load(rows, identity, kind))
    }

    fn load_by_event_id(&self, event_id: &EventId) -> Pending<StateRecord, StateError> {
        self.read(|rows| ops::load_by_event_id(rows, event_id))
    }

    fn delete(&self, identity: &Identity, kind: &str) -> Pending<(), StateError> {
        self.transact(&[row::slot_key(identity, kind)], &[], |tx| {
            ops::delete(tx, self.late, identity, kind)
        })
    }

    fn list_kind(
        &self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.read(|rows| scan::list_kind(rows, scope, kind_prefix))
    }

    fn list_kind_bounded(
        &self,
        scope: ListScope,
        kind_prefix: &str,
        limit: usize,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.read(|rows| scan::list_kind_bounded(rows, scope, kind_prefix, limit))
    }

    fn close(&self) -> Pending<(), StateError> {
        self.closed.store(true, Ordering::Release);
        if self.closes_engine {
            return Pending::ready(self.handle.engine().close().map_err(StateError::from));
        }
        self.handle.engine().flush()
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
        self.transact(&[key], &[], |tx| ops::delete_if(tx, self.late, expectation))
    }

    /// Removes every state that the session had when the call began, in steps of some hundreds of
    /// states in the order of their slots. Each state goes whole. Between two steps other callers
    /// go on: they see which states are gone already, and one that they save meanwhile stays, or
    /// goes if its slot was still to come. After a crash or an error between two steps the rest is
    /// still there, and the call can be made again. In `atomically` it is one step. When the call
    /// returns, all steps are done, unless the log is full: then a thread does the rest, and only
    /// the answer says that nothing is left.
    fn delete_scope(&self, tenant: &str, user: &str, session: &str) -> Pending<u64, StateError> {
        let [tenant, user, session] = [tenant, user, session].map(str::to_owned);
        let (mut removed, mut found, late) = (0, None, self.late);
        let listed = self.read(|rows| {
            found = ops::states_in(rows, (&tenant, &user, &session))?;
            Ok(0)
        });
        if listed.has_failed() {
            return listed;
        }
        let closed = Arc::clone(&self.closed);
        in_steps(&self.handle, move |tx, budget| {
            if closed.load(Ordering::Acquire) {
                return Err(StateError::StoreClosed);
            }
            let Some(range) = &mut found else {
                return Ok(FrameStep { answer: removed, is_last: true });
            };
            let scope = (tenant.as_str(), user.as_str(), session.as_str());
            let (count, is_last) = ops::delete_scope(tx, late, scope, range, budget)?;
            removed += count;
            Ok(FrameStep { answer: removed, is_last })
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
