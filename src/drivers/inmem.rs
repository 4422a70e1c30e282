//! The reference driver: maps under one mutex, no engine underneath.

use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::pending::Pending;
use crate::stores::span::span_ms;
use crate::stores::state::row::{scan_cursor, scan_position, slot_key};
use crate::stores::state::{
    EventId, Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore, check,
    validate_event_id, validate_list_kind, validate_record, validate_session, validate_slot,
};
use crate::stores::{Cursor, Page};
use parking_lot::ReentrantMutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Agent states in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct InMemoryState {
    /// A thread that holds the states for the effect of a fence may read them again, and a write
    /// on it finds them borrowed.
    states: Arc<ReentrantMutex<RefCell<States>>>,
    clock: Arc<dyn Clock>,
    /// How long replaced events are remembered, in milliseconds.
    late_window_ms: u64,
}

/// Identity and kind, which sort as (tenant, user, session, run, kind).
type Slot = (Identity, String);

#[derive(Debug, Default)]
struct States {
    closed: bool,
    slots: BTreeMap<Slot, StateRecord>,
    events: BTreeMap<EventId, Slot>,
    /// Events that were replaced.
    late: BTreeMap<EventId, LateEvent>,
    /// Until when the operation under way remembers those that it replaces, if it does.
    remembers_until_ms: Option<u64>,
}

#[derive(Debug)]
struct LateEvent {
    ends_at_ms: u64,
    record: StateRecord,
}

impl InMemoryState {
    /// No states, at the time of the system.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// No states, at the time of `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { states: Arc::default(), clock, late_window_ms: 0 }
    }

    /// The same store, with a late window; see
    /// [`State::with_late_window`](crate::state::State::with_late_window).
    #[must_use]
    pub fn with_late_window(self, window: Duration) -> Self {
        Self { late_window_ms: span_ms(window), ..self }
    }

    /// Runs one operation alone, unless the store was closed.
    fn run<R>(
        &self,
        operation: impl FnOnce(&mut States) -> Result<R, StateError>,
    ) -> Pending<R, StateError> {
        let states = self.states.lock();
        let answer = match states.try_borrow_mut() {
            Ok(states) if states.closed => Err(StateError::StoreClosed),
            Ok(mut states) => {
                let now_ms = self.clock.elapsed_ms();
                states.remembers_until_ms = Some(now_ms.saturating_add(self.late_window_ms))
                    .filter(|_| self.late_window_ms > 0);
                states.late.retain(|_, late| late.ends_at_ms > now_ms);
                operation(&mut states)
            }
            Err(_) => Err(Error::NestedTransaction.into()),
        };
        Pending::ready(answer)
    }

    /// Runs one operation that changes nothing, unless the store was closed.
    fn look<R>(
        &self,
        operation: impl FnOnce(&States) -> Result<R, StateError>,
    ) -> Pending<R, StateError> {
        let states = self.states.lock();
        let states = states.borrow();
        let answer = if states.closed { Err(StateError::StoreClosed) } else { operation(&states) };
        Pending::ready(answer)
    }

    /// Runs `effect` while no one can change a slot, if the slot holds what is expected; see
    /// [`State::fence_if`](crate::state::State::fence_if).
    pub fn fence_if<E: From<StateError>>(
        &self,
        expectation: &SlotExpectation,
        effect: impl FnOnce() -> Result<(), E>,
    ) -> Pending<(), E> {
        let states = self.states.lock();
        let states = states.borrow();
        let fenced = match check::validate_expectation(expectation) {
            _ if states.closed => Err(StateError::StoreClosed),
            Ok(()) if !states.holds(expectation) => Err(StateError::ConditionFailed),
            checked => checked,
        };
        Pending::ready(fenced.map_err(E::from).and_then(|()| effect()))
    }
}

impl Default for InMemoryState {
    fn default() -> Self {
        Self::new()
    }
}

fn slot(identity: &Identity, kind: &str) -> Slot {
    (identity.clone(), kind.to_owned())
}

impl States {
    fn is_saved(&self, record: &StateRecord) -> Result<bool, StateError> {
        let same =
            |saved: &StateRecord| saved.version == record.version && saved.bytes == record.bytes;
        let Some(holder) = self.events.get(&record.id) else {
            let late = self.late.get(&record.id).filter(|_| self.remembers_until_ms.is_some());
            let Some(LateEvent { record: late, .. }) = late else { return Ok(false) };
            let is_it = late.identity == record.identity && late.kind == record.kind && same(late);
            return if is_it { Ok(true) } else { Err(StateError::IdempotencyConflict) };
        };
        if *holder == slot(&record.identity, &record.kind)
            && self.slots.get(holder).is_some_and(same)
        {
            return Ok(true);
        }
        Err(StateError::IdempotencyConflict)
    }

    fn put(&mut self, record: StateRecord, now_ms: u64) {
        let slot = slot(&record.identity, &record.kind);
        self.remove(&slot);
        self.events.insert(record.id.clone(), slot.clone());
        self.slots
            .insert(slot, StateRecord { updated_at: record.updated_at.or(Some(now_ms)), ..record });
    }

    fn remove(&mut self, slot: &Slot) -> bool {
        let Some(old) = self.slots.remove(slot) else { return false };
        self.events.remove(&old.id);
        if let Some(ends_at_ms) = self.remembers_until_ms {
            self.late.insert(old.id.clone(), LateEvent { ends_at_ms, record: old });
        }
        true
    }

    fn holds(&self, expectation: &SlotExpectation) -> bool {
        let current = self.slots.get(&slot(&expectation.identity, &expectation.kind));
        current.map(|record| &record.id) == expectation.expected.as_ref()
    }

    /// Every state whose kind begins with `kind_prefix`, by kind and then identity.
    fn of_kinds(&self, kind_prefix: &str) -> Vec<StateRecord> {
        let mut found = self.all(|record| record.kind.starts_with(kind_prefix));
        found.sort_by(|a, b| (&a.kind, &a.identity).cmp(&(&b.kind, &b.identity)));
        found
    }

    /// Every state that `wanted` says, in the order of slots.
    fn all(&self, wanted: impl Fn(&StateRecord) -> bool) -> Vec<StateRecord> {
        self.slots.values().filter(|record| wanted(record)).cloned().collect()
    }
}

impl StateStore for InMemoryState {
    fn save(&self, record: StateRecord) -> Pending<(), StateError> {
        self.run(|states| {
            validate_record(&record)?;
            if !states.is_saved(&record)? {
                states.put(record, self.clock.now_ms());
            }
            Ok(())
        })
    }

    fn load(&self, identity: &Identity, kind: &str) -> Pending<StateRecord, StateError> {
        self.look(|states| {
            validate_slot(identity, kind)?;
            states.slots.get(&slot(identity, kind)).cloned().ok_or(StateError::NotFound)
        })
    }

    fn load_by_event_id(&self, event_id: &EventId) -> Pending<StateRecord, StateError> {
        self.look(|states| {
            validate_event_id(event_id)?;
            let slot = states.events.get(event_id).ok_or(StateError::NotFound)?;
            states.slots.get(slot).cloned().ok_or(StateError::NotFound)
        })
    }

    fn delete(&self, identity: &Identity, kind: &str) -> Pending<(), StateError> {
        self.run(|states| {
            validate_slot(identity, kind)?;
            states.remove(&slot(identity, kind));
            Ok(())
        })
    }

    fn list_kind(
        &self,
        scope: ListScope,
        kind_prefix: &str,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.look(|states| {
            validate_list_kind(scope, kind_prefix)?;
            Ok(states.of_kinds(kind_prefix))
        })
    }

    fn list_kind_bounded(
        &self,
        scope: ListScope,
        kind_prefix: &str,
        limit: usize,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.look(|states| {
            check::list_bounded(scope, kind_prefix, limit)?;
            let mut found = states.of_kinds(kind_prefix);
            found.truncate(limit);
            Ok(found)
        })
    }

    fn close(&self) -> Pending<(), StateError> {
        let states = self.states.lock();
        let answer = match states.try_borrow_mut() {
            Ok(mut states) => {
                states.closed = true;
                Ok(())
            }
            Err(_) => Err(Error::NestedTransaction.into()),
        };
        Pending::ready(answer)
    }

    fn save_if(
        &self,
        expectations: &[SlotExpectation],
        next: StateRecord,
    ) -> Pending<(), StateError> {
        self.save_batch_if(expectations, vec![next])
    }

    fn save_batch_if(
        &self,
        expectations: &[SlotExpectation],
        writes: Vec<StateRecord>,
    ) -> Pending<(), StateError> {
        self.run(|states| {
            check::conditional(expectations, &writes)?;
            if !expectations.iter().all(|expectation| states.holds(expectation)) {
                return Err(StateError::ConditionFailed);
            }
            let mut new = Vec::new();
            for write in writes {
                if !states.is_saved(&write)? {
                    new.push(write);
                }
            }
            new.into_iter().for_each(|write| states.put(write, self.clock.now_ms()));
            Ok(())
        })
    }

    fn delete_if(&self, expectation: &SlotExpectation) -> Pending<bool, StateError> {
        self.run(|states| {
            check::conditional_delete(expectation)?;
            Ok(states.holds(expectation)
                && states.remove(&slot(&expectation.identity, &expectation.kind)))
        })
    }

    fn delete_scope(&self, tenant: &str, user: &str, session: &str) -> Pending<u64, StateError> {
        self.run(|states| {
            validate_session(tenant, user, session)?;
            let inside = |whose: &Identity| {
                (&*whose.tenant, &*whose.user, &*whose.session) == (tenant, user, session)
            };
            let slots: Vec<Slot> =
                states.slots.keys().filter(|(whose, _)| inside(whose)).cloned().collect();
            Ok(slots.iter().filter(|slot| states.remove(slot)).count() as u64)
        })
    }

    fn list_kind_for_identity(
        &self,
        identity: &Identity,
        kind_prefix: &str,
        limit: Option<usize>,
    ) -> Pending<Vec<StateRecord>, StateError> {
        self.look(|states| {
            let limit = check::list_for_identity(identity, kind_prefix, limit)?;
            let mut found = states
                .all(|record| record.identity == *identity && record.kind.starts_with(kind_prefix));
            found.truncate(limit);
            Ok(found)
        })
    }

    fn scan_kind_for_tenant(
        &self,
        scope: ListScope,
        tenant: &str,
        kind_prefix: &str,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Pending<Page<StateRecord>, StateError> {
        self.look(|states| {
            check::scan(scope, tenant, kind_prefix, limit)?;
            let after =
                cursor.map(|cursor| scan_position(cursor, tenant, kind_prefix)).transpose()?;
            let key_of = |record: &StateRecord| slot_key(&record.identity, &record.kind);
            let mut items = states.all(|record| {
                record.identity.tenant == tenant
                    && record.kind.starts_with(kind_prefix)
                    && after.as_ref().is_none_or(|after| key_of(record) > *after)
            });
            let more = items.len() > limit;
            items.truncate(limit);
            let last = items.last().filter(|_| more);
            let next = last.map(|last| scan_cursor(tenant, kind_prefix, &key_of(last)));
            Ok(Page { items, next })
        })
    }
}
