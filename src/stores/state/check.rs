//! What must hold of the arguments of an operation before anything is read. Drivers share it.

use super::StateError;
use super::record::{
    EventId, Identity, ListScope, SlotExpectation, StateRecord, invalid, validate_event_id,
    validate_identity, validate_kind_prefix, validate_list_kind, validate_record, validate_slot,
};
use crate::limits::{MAX_BOUNDED_LIST_LIMIT, MAX_IDENTITY_LIST_LIMIT, MAX_SCAN_LIMIT};
use crate::stores::length::check_len;
use std::collections::HashSet;

type SlotRef<'a> = (&'a Identity, &'a str);

fn slot_of(expectation: &SlotExpectation) -> SlotRef<'_> {
    (&expectation.identity, &expectation.kind)
}

/// The arguments of `save_if` and `save_batch_if`.
pub(crate) fn conditional(
    expectations: &[SlotExpectation],
    writes: &[StateRecord],
) -> Result<(), StateError> {
    for expectation in expectations {
        validate_expectation(expectation)?;
    }
    writes.iter().try_for_each(validate_record)?;
    if expectations.is_empty() {
        return Err(invalid("no expectation: use `save`, or say what the slot holds"));
    }
    if writes.is_empty() {
        return Err(invalid("nothing to write"));
    }
    let mut expected: HashSet<SlotRef<'_>> = HashSet::new();
    if !expectations.iter().all(|expectation| expected.insert(slot_of(expectation))) {
        return Err(invalid("two expectations of one slot"));
    }
    let mut written: HashSet<SlotRef<'_>> = HashSet::new();
    let mut events: HashSet<&EventId> = HashSet::new();
    for write in writes {
        let slot = (&write.identity, write.kind.as_str());
        if !expected.contains(&slot) {
            return Err(invalid("a write to a slot that no expectation covers"));
        }
        if !written.insert(slot) {
            return Err(invalid("two writes to one slot"));
        }
        if !events.insert(&write.id) {
            return Err(invalid("one event id in two writes"));
        }
    }
    Ok(())
}

/// What a slot is expected to hold.
pub(crate) fn validate_expectation(expectation: &SlotExpectation) -> Result<(), StateError> {
    validate_slot(&expectation.identity, &expectation.kind)?;
    expectation.expected.as_ref().map_or(Ok(()), validate_event_id)
}

/// The event id that `delete_if` expects.
pub(crate) fn conditional_delete(expectation: &SlotExpectation) -> Result<&EventId, StateError> {
    validate_expectation(expectation)?;
    expectation.expected.as_ref().ok_or_else(|| invalid("a delete that expects an absent slot"))
}

/// The arguments of `list_kind_for_identity`; the most records it may answer.
pub(crate) fn list_for_identity(
    identity: &Identity,
    kind_prefix: &str,
    limit: Option<usize>,
) -> Result<usize, StateError> {
    validate_identity(identity)?;
    validate_kind_prefix(kind_prefix)?;
    match limit {
        None => Ok(usize::MAX),
        Some(limit) if (1..=MAX_IDENTITY_LIST_LIMIT).contains(&limit) => Ok(limit),
        Some(limit) => {
            Err(invalid(format!("a limit of {limit}; it must be 1 to {MAX_IDENTITY_LIST_LIMIT}")))
        }
    }
}

/// The arguments of `list_kind_bounded`.
pub(crate) fn list_bounded(
    scope: ListScope,
    kind_prefix: &str,
    limit: usize,
) -> Result<(), StateError> {
    validate_list_kind(scope, kind_prefix)?;
    if !(1..=MAX_BOUNDED_LIST_LIMIT).contains(&limit) {
        return Err(invalid(format!(
            "a limit of {limit}; it must be 1 to {MAX_BOUNDED_LIST_LIMIT}"
        )));
    }
    Ok(())
}

/// The arguments of `scan_kind_for_tenant` without the cursor.
pub(crate) fn scan(
    scope: ListScope,
    tenant: &str,
    kind_prefix: &str,
    limit: usize,
) -> Result<(), StateError> {
    if !scope.is_maintenance() {
        return Err(StateError::MaintenanceScopeRequired);
    }
    for (what, text) in [("the tenant", tenant), ("the kind prefix", kind_prefix)] {
        if text.is_empty() {
            return Err(StateError::InvalidScan(format!("{what} is empty")));
        }
        check_len(what, text)?;
    }
    if !(1..=MAX_SCAN_LIMIT).contains(&limit) {
        let why = format!("a limit of {limit}; it must be 1 to {MAX_SCAN_LIMIT}");
        return Err(StateError::InvalidScan(why));
    }
    Ok(())
}
