//! The operations on agent states, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. A slot with a state has one row in each table by kind, and the event id of its state one row
//!    that names it.
//! 2. An event row names a slot whose state has that event id.

use super::StateError;
use super::check;
use super::late::{self, LateWindowMs};
use super::record::{
    EventId, Identity, SlotExpectation, StateRecord, validate_event_id, validate_record,
    validate_session, validate_slot,
};
use super::row::{self, StateRow, StateSlot};
use crate::engine::access::{Reader, Value, Writer};
use crate::error::Error;
use crate::stores::frame::{FrameBudget, StepRange, row_cost};
use crate::tables::Table;

/// The state in the slot under `key`, which an index row says is there.
pub(super) fn indexed(
    rows: &mut dyn Reader,
    index: Table,
    key: &[u8],
) -> Result<Value, StateError> {
    let missing = || {
        let location = format!("table {}", Table::STATE.name());
        Error::corrupted(location, format!("a state that table {} names is missing", index.name()))
    };
    Ok(rows.get(Table::STATE, key)?.ok_or_else(missing)?)
}

/// Whether the event of `record` has been saved, as exactly this record.
fn is_saved(
    rows: &mut dyn Reader,
    late: LateWindowMs,
    key: &[u8],
    record: &StateRecord,
) -> Result<bool, StateError> {
    let Some(holder) = rows.get(Table::STATE_EVENT, record.id.as_str().as_bytes())? else {
        return late::is_late(rows, late, key, record);
    };
    let state = indexed(rows, Table::STATE_EVENT, &holder)?;
    let state = StateRow::decode(&state)?;
    let same = *holder == *key && state.version == record.version && state.bytes == record.bytes;
    if same { Ok(true) } else { Err(StateError::IdempotencyConflict) }
}

/// Stages a record whose event is new.
fn put(
    tx: &mut dyn Writer,
    late: LateWindowMs,
    key: &[u8],
    record: &StateRecord,
) -> Result<(), StateError> {
    let row = StateRow {
        event_id: record.id.as_str(),
        version: record.version,
        updated_at_ms: record.updated_at.unwrap_or_else(|| tx.wall_ms()),
        bytes: &record.bytes,
    };
    let value = row.encode()?;
    match tx.get(Table::STATE, key)? {
        Some(old) => {
            let old = StateRow::decode(&old)?;
            late::remember(tx, late, key, &old)?;
            tx.delete(Table::STATE_EVENT, old.event_id.as_bytes());
        }
        None => {
            tx.put(Table::STATE_KIND, &row::kind_key(&record.identity, &record.kind), Vec::new());
            tx.put(
                Table::STATE_TENANT_KIND,
                &row::tenant_kind_key(&record.identity, &record.kind),
                Vec::new(),
            );
        }
    }
    tx.put(Table::STATE, key, value);
    tx.put(Table::STATE_EVENT, record.id.as_str().as_bytes(), key.to_vec());
    Ok(())
}

/// The rows of one state.
struct RowsOfState {
    slot: Vec<u8>,
    event: Vec<u8>,
    kind: Vec<u8>,
    tenant_kind: Vec<u8>,
}

impl RowsOfState {
    fn new(slot: Vec<u8>, identity: &Identity, kind: &str, event_id: &str) -> Self {
        Self {
            slot,
            event: event_id.as_bytes().to_vec(),
            kind: row::kind_key(identity, kind),
            tenant_kind: row::tenant_kind_key(identity, kind),
        }
    }

    fn keys(&self) -> [(Table, &[u8]); 4] {
        [
            (Table::STATE, &self.slot),
            (Table::STATE_EVENT, &self.event),
            (Table::STATE_KIND, &self.kind),
            (Table::STATE_TENANT_KIND, &self.tenant_kind),
        ]
    }

    /// What their removal takes in a frame.
    fn removal_cost(&self) -> usize {
        self.keys().iter().map(|(_, key)| row_cost(key.len())).sum()
    }

    /// Stages their absence.
    fn remove(&self, tx: &mut dyn Writer) {
        self.keys().iter().for_each(|(table, key)| tx.delete(*table, key));
    }
}

/// Saves a record.
pub(crate) fn save(
    tx: &mut dyn Writer,
    late: LateWindowMs,
    record: &StateRecord,
) -> Result<(), StateError> {
    validate_record(record)?;
    let key = row::slot_key(&record.identity, &record.kind);
    if !is_saved(tx, late, &key, record)? {
        put(tx, late, &key, record)?;
    }
    Ok(())
}

/// Whether the slot holds what is expected.
fn holds(rows: &mut dyn Reader, expectation: &SlotExpectation) -> Result<bool, StateError> {
    let key = row::slot_key(&expectation.identity, &expectation.kind);
    let state = rows.get(Table::STATE, &key)?;
    let current = state.as_deref().map(StateRow::decode).transpose()?.map(|row| row.event_id);
    Ok(current == expectation.expected.as_ref().map(EventId::as_str))
}

/// Saves all `writes` if all `expectations` hold. Every event is compared with what was there
/// before the batch, so that the order of the writes does not matter.
pub(crate) fn save_batch_if(
    tx: &mut dyn Writer,
    late: LateWindowMs,
    expectations: &[SlotExpectation],
    writes: &[StateRecord],
) -> Result<(), StateError> {
    check::conditional(expectations, writes)?;
    for expectation in expectations {
        if !holds(tx, expectation)? {
            return Err(StateError::ConditionFailed);
        }
    }
    let mut new = Vec::new();
    for write in writes {
        let key = row::slot_key(&write.identity, &write.kind);
        if !is_saved(tx, late, &key, write)? {
            // Damage is met before the first row is staged.
            tx.get(Table::STATE, &key)?.as_deref().map(StateRow::decode).transpose()?;
            new.push((key, write));
        }
    }
    new.iter().try_for_each(|(key, write)| put(tx, late, key, write))
}

/// The state in a slot.
pub(crate) fn load(
    rows: &mut dyn Reader,
    identity: &Identity,
    kind: &str,
) -> Result<StateRecord, StateError> {
    validate_slot(identity, kind)?;
    let state =
        rows.get(Table::STATE, &row::slot_key(identity, kind))?.ok_or(StateError::NotFound)?;
    Ok(StateRow::decode(&state)?
        .record(StateSlot { identity: identity.clone(), kind: kind.to_owned() }))
}

/// The state that an event wrote.
pub(crate) fn load_by_event_id(
    rows: &mut dyn Reader,
    event_id: &EventId,
) -> Result<StateRecord, StateError> {
    validate_event_id(event_id)?;
    let key =
        rows.get(Table::STATE_EVENT, event_id.as_str().as_bytes())?.ok_or(StateError::NotFound)?;
    let state = indexed(rows, Table::STATE_EVENT, &key)?;
    Ok(StateRow::decode(&state)?.record(row::decode_slot_key(&key)?))
}

/// Removes the state in a slot, if there is one.
pub(crate) fn delete(
    tx: &mut dyn Writer,
    late: LateWindowMs,
    identity: &Identity,
    kind: &str,
) -> Result<(), StateError> {
    validate_slot(identity, kind)?;
    let key = row::slot_key(identity, kind);
    if let Some(state) = tx.get(Table::STATE, &key)? {
        let old = StateRow::decode(&state)?;
        late::remember(tx, late, &key, &old)?;
        RowsOfState::new(key, identity, kind, old.event_id).remove(tx);
    }
    Ok(())
}

/// Removes the state in a slot if it is the expected one.
pub(crate) fn delete_if(
    tx: &mut dyn Writer,
    late: LateWindowMs,
    expectation: &SlotExpectation,
) -> Result<bool, StateError> {
    check::conditional_delete(expectation)?;
    let held = holds(tx, expectation)?;
    if held {
        delete(tx, late, &expectation.identity, &expectation.kind)?;
    }
    Ok(held)
}

/// Refuses to go on unless the slot holds what is expected.
pub(crate) fn fence(
    rows: &mut dyn Reader,
    expectation: &SlotExpectation,
) -> Result<(), StateError> {
    check::validate_expectation(expectation)?;
    if holds(rows, expectation)? { Ok(()) } else { Err(StateError::ConditionFailed) }
}

/// The states of a session, for [`delete_scope`].
pub(crate) fn states_in(
    rows: &mut dyn Reader,
    (tenant, user, session): (&str, &str, &str),
) -> Result<Option<StepRange>, StateError> {
    validate_session(tenant, user, session)?;
    let prefix = row::session_prefix(tenant, user, session);
    Ok(StepRange::of(rows, Table::STATE, &prefix)?)
}

/// Removes the states of `range` in a session, as many as the budget allows. Answers how many they
/// were, and whether none is left. An error changes nothing.
pub(crate) fn delete_scope(
    tx: &mut dyn Writer,
    late: LateWindowMs,
    (tenant, user, session): (&str, &str, &str),
    range: &mut StepRange,
    mut budget: FrameBudget,
) -> Result<(u64, bool), StateError> {
    validate_session(tenant, user, session)?;
    let prefix = row::session_prefix(tenant, user, session);
    let mut states = range.cursor(Table::STATE, &prefix);
    let (mut found, mut is_all): (Vec<(RowsOfState, Value)>, _) = (Vec::new(), true);
    while let Some((key, state)) = states.next(tx)? {
        let event_id = StateRow::decode(&state)?.event_id;
        let StateSlot { identity, kind } = row::decode_slot_key(&key)?;
        let rows = RowsOfState::new(key, &identity, &kind, event_id);
        if !budget.take(rows.removal_cost() + late::cost(late, &rows.slot, &rows.event)) {
            is_all = false;
            break;
        }
        found.push((rows, state));
    }
    for (rows, state) in &found {
        late::remember(tx, late, &rows.slot, &StateRow::decode(state)?)?;
        rows.remove(tx);
    }
    let removed = found.len() as u64;
    range.after = found.pop().map(|(rows, _)| rows.slot).or(range.after.take());
    Ok((removed, is_all))
}

#[cfg(test)]
mod tests;
