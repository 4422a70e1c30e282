//! The operations on agent states, each written once.
//!
//! Invariants, which the operations keep:
//!
//! 1. A slot with a state has one row in each table by kind, and the event id of its state one row
//!    that names it.
//! 2. An event row names a slot whose state has that event id.

use super::StateError;
use super::check;
use super::record::{
    EventId, Identity, SlotExpectation, StateRecord, validate_event_id, validate_record,
    validate_session, validate_slot,
};
use super::row::{self, Slot, StateRow};
use crate::engine::access::{Reader, Value, Writer};
use crate::error::Error;
use crate::tables::Table;
use std::ops::Bound;

/// How many rows one step of a walk over states reads. Fewer than of small rows, because these may
/// have megabytes.
pub(super) const SCAN_SLICE: usize = 32;

/// What the rows of one state cost a transaction that deletes them, beside their keys.
const DELETE_OVERHEAD: usize = 64;

/// Shows `each` every row whose key begins with `prefix`, in key order, until it answers `false`.
pub(super) fn walk(
    rows: &mut dyn Reader,
    table: Table,
    prefix: &[u8],
    slice: usize,
    mut each: impl FnMut(&mut dyn Reader, &[u8], &Value) -> Result<bool, StateError>,
) -> Result<(), StateError> {
    let end = row::end_of(prefix);
    let end = end.as_ref().map(Vec::as_slice);
    let mut after: Option<Vec<u8>> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Included(prefix), Bound::Excluded);
        let found = rows.scan(table, from, end, slice)?;
        for (key, value) in &found {
            if !each(rows, key, value)? {
                return Ok(());
            }
        }
        if found.len() < slice {
            return Ok(());
        }
        after = found.into_iter().next_back().map(|(key, _)| key);
    }
}

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
fn is_saved(rows: &mut dyn Reader, key: &[u8], record: &StateRecord) -> Result<bool, StateError> {
    let Some(holder) = rows.get(Table::STATE_EVENT, record.id.as_str().as_bytes())? else {
        return Ok(false);
    };
    let state = indexed(rows, Table::STATE_EVENT, &holder)?;
    let state = StateRow::decode(&state)?;
    let same = *holder == *key && state.version == record.version && state.bytes == record.bytes;
    if same { Ok(true) } else { Err(StateError::IdempotencyConflict) }
}

/// Stages a record whose event is new.
fn put(tx: &mut dyn Writer, key: &[u8], record: &StateRecord) -> Result<(), StateError> {
    let row = StateRow {
        event_id: record.id.as_str(),
        version: record.version,
        updated_at_ms: record.updated_at.unwrap_or_else(|| tx.now_ms()),
        bytes: &record.bytes,
    };
    let value = row.encode()?;
    match tx.get(Table::STATE, key)? {
        Some(old) => tx.delete(Table::STATE_EVENT, StateRow::decode(&old)?.event_id.as_bytes()),
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

/// Stages the absence of a state.
fn remove(tx: &mut dyn Writer, key: &[u8], identity: &Identity, kind: &str, event_id: &str) {
    tx.delete(Table::STATE, key);
    tx.delete(Table::STATE_EVENT, event_id.as_bytes());
    tx.delete(Table::STATE_KIND, &row::kind_key(identity, kind));
    tx.delete(Table::STATE_TENANT_KIND, &row::tenant_kind_key(identity, kind));
}

/// Saves a record.
pub(crate) fn save(tx: &mut dyn Writer, record: &StateRecord) -> Result<(), StateError> {
    validate_record(record)?;
    let key = row::slot_key(&record.identity, &record.kind);
    if !is_saved(tx, &key, record)? {
        put(tx, &key, record)?;
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
        if !is_saved(tx, &key, write)? {
            // Damage is met before the first row is staged.
            tx.get(Table::STATE, &key)?.as_deref().map(StateRow::decode).transpose()?;
            new.push((key, write));
        }
    }
    new.iter().try_for_each(|(key, write)| put(tx, key, write))
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
    Ok(StateRow::decode(&state)?.record(Slot { identity: identity.clone(), kind: kind.to_owned() }))
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
    identity: &Identity,
    kind: &str,
) -> Result<(), StateError> {
    validate_slot(identity, kind)?;
    let key = row::slot_key(identity, kind);
    if let Some(state) = tx.get(Table::STATE, &key)? {
        remove(tx, &key, identity, kind, StateRow::decode(&state)?.event_id);
    }
    Ok(())
}

/// Removes the state in a slot if it is the expected one.
pub(crate) fn delete_if(
    tx: &mut dyn Writer,
    expectation: &SlotExpectation,
) -> Result<bool, StateError> {
    check::conditional_delete(expectation)?;
    let held = holds(tx, expectation)?;
    if held {
        delete(tx, &expectation.identity, &expectation.kind)?;
    }
    Ok(held)
}

/// Removes the states of a session: as many as fit into about `budget` bytes of a transaction, and
/// at least one. How many they were, and whether that was all.
pub(crate) fn delete_scope(
    tx: &mut dyn Writer,
    (tenant, user, session): (&str, &str, &str),
    budget: usize,
) -> Result<(u64, bool), StateError> {
    validate_session(tenant, user, session)?;
    let mut found = Vec::new();
    let mut cost = 0_usize;
    let mut all = true;
    walk(
        tx,
        Table::STATE,
        &row::session_prefix(tenant, user, session),
        SCAN_SLICE,
        |_, key, state| {
            let event_id = StateRow::decode(state)?.event_id.to_owned();
            cost = cost.saturating_add(3 * key.len() + event_id.len() + DELETE_OVERHEAD);
            all = cost <= budget || found.is_empty();
            if all {
                found.push((key.to_vec(), row::decode_slot_key(key)?, event_id));
            }
            Ok(all)
        },
    )?;
    for (key, slot, event_id) in &found {
        remove(tx, key, &slot.identity, &slot.kind, event_id);
    }
    Ok((found.len() as u64, all))
}

#[cfg(test)]
mod tests;
